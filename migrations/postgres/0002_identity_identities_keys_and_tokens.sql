CREATE TABLE identities (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  display_name TEXT COLLATE "C" NOT NULL,
  email TEXT COLLATE "C" NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  revision BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX identities_email ON identities (customer_id, email) WHERE email <> '';
CREATE INDEX identities_customer ON identities (customer_id, id);

CREATE TABLE project_members (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  project_id UUID NOT NULL REFERENCES projects (id),
  identity_id UUID NOT NULL REFERENCES identities (id),
  role TEXT COLLATE "C" NOT NULL,
  revision BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  UNIQUE (project_id, identity_id)
);
CREATE INDEX project_members_identity ON project_members (identity_id);

CREATE TABLE api_keys (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  display_name TEXT COLLATE "C" NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  role TEXT COLLATE "C" NOT NULL,
  identity_id UUID REFERENCES identities (id),
  key_prefix TEXT COLLATE "C" NOT NULL,
  created_by TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT,
  last_used_at BIGINT,
  revoked_at BIGINT
);
CREATE INDEX api_keys_customer ON api_keys (customer_id, id);
CREATE INDEX api_keys_identity ON api_keys (identity_id);

-- The live secrets of a key: one, or two while a rotation overlaps. Only the hash is kept.
CREATE TABLE api_key_secrets (
  key_hash BYTEA PRIMARY KEY,
  api_key_id UUID NOT NULL REFERENCES api_keys (id),
  created_at BIGINT NOT NULL,
  expires_at BIGINT
);
CREATE INDEX api_key_secrets_key ON api_key_secrets (api_key_id);

-- Session and workspace tokens that were issued; the id is the token's jti.
CREATE TABLE tokens (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  token_use TEXT COLLATE "C" NOT NULL,
  identity_id UUID REFERENCES identities (id),
  workspace_id UUID,
  role TEXT COLLATE "C" NOT NULL,
  source_key_id UUID,
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL
);
CREATE INDEX tokens_customer ON tokens (customer_id, id);
CREATE INDEX tokens_identity ON tokens (identity_id);
CREATE INDEX tokens_expiry ON tokens (expires_at);

-- Revocations, ours and those of gateway tokens, kept until the token would have expired.
CREATE TABLE revoked_tokens (
  customer_id UUID NOT NULL REFERENCES customers (id),
  jti TEXT COLLATE "C" NOT NULL,
  revoked_by TEXT COLLATE "C" NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  revoked_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (customer_id, jti)
);
CREATE INDEX revoked_tokens_expiry ON revoked_tokens (expires_at);

-- Secrets of the installation itself, sealed under the key-encryption key: token signing keys, the key
-- of page tokens, and the value that tells whether the right key-encryption key is in use.
CREATE TABLE server_secrets (
  name TEXT COLLATE "C" PRIMARY KEY,
  sealed BYTEA NOT NULL,
  public_part BYTEA,
  created_at BIGINT NOT NULL
);
