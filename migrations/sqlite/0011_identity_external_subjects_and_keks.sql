-- Users of trusted OIDC issuers. Each leads to one identity of the installation.
CREATE TABLE external_subjects (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  identity_id BLOB NOT NULL REFERENCES identities (id),
  issuer TEXT NOT NULL,
  subject TEXT NOT NULL,
  role TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  UNIQUE (issuer, subject)
) STRICT;
CREATE INDEX external_subjects_identity ON external_subjects (identity_id);

-- The subject that a session was made for. It ends with it.
ALTER TABLE tokens ADD COLUMN source_subject_id BLOB;

-- Key-encryption keys that a rotation took out of service. Nothing is sealed under one any more; while
-- emptied_at is not set, values may still be.
CREATE TABLE retired_keks (
  kek_id TEXT PRIMARY KEY,
  retired_at INTEGER NOT NULL,
  emptied_at INTEGER
) STRICT;
