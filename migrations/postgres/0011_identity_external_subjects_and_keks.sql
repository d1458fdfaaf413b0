-- Users of trusted OIDC issuers. Each leads to one identity of the installation.
CREATE TABLE external_subjects (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  identity_id UUID NOT NULL REFERENCES identities (id),
  issuer TEXT COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  role TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  UNIQUE (issuer, subject)
);
CREATE INDEX external_subjects_identity ON external_subjects (identity_id);

-- The subject that a session was made for. It ends with it.
ALTER TABLE tokens ADD COLUMN source_subject_id UUID;

-- Key-encryption keys that a rotation took out of service. Nothing is sealed under one any more; while
-- emptied_at is not set, values may still be.
CREATE TABLE retired_keks (
  kek_id TEXT COLLATE "C" PRIMARY KEY,
  retired_at BIGINT NOT NULL,
  emptied_at BIGINT
);
