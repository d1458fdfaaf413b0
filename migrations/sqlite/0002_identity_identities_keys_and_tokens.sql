CREATE TABLE identities (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  display_name TEXT NOT NULL,
  email TEXT NOT NULL,
  kind TEXT NOT NULL,
  revision INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX identities_email ON identities (customer_id, email) WHERE email <> '';
CREATE INDEX identities_customer ON identities (customer_id, id);

CREATE TABLE project_members (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  project_id BLOB NOT NULL REFERENCES projects (id),
  identity_id BLOB NOT NULL REFERENCES identities (id),
  role TEXT NOT NULL,
  revision INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (project_id, identity_id)
) STRICT;
CREATE INDEX project_members_identity ON project_members (identity_id);

CREATE TABLE api_keys (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  display_name TEXT NOT NULL,
  kind TEXT NOT NULL,
  role TEXT NOT NULL,
  identity_id BLOB REFERENCES identities (id),
  key_prefix TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  last_used_at INTEGER,
  revoked_at INTEGER
) STRICT;
CREATE INDEX api_keys_customer ON api_keys (customer_id, id);
CREATE INDEX api_keys_identity ON api_keys (identity_id);

-- The live secrets of a key: one, or two while a rotation overlaps. Only the hash is kept.
CREATE TABLE api_key_secrets (
  key_hash BLOB PRIMARY KEY,
  api_key_id BLOB NOT NULL REFERENCES api_keys (id),
  created_at INTEGER NOT NULL,
  expires_at INTEGER
) STRICT;
CREATE INDEX api_key_secrets_key ON api_key_secrets (api_key_id);

-- Session and workspace tokens that were issued; the id is the token's jti.
CREATE TABLE tokens (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  token_use TEXT NOT NULL,
  identity_id BLOB REFERENCES identities (id),
  workspace_id BLOB,
  role TEXT NOT NULL,
  source_key_id BLOB,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX tokens_customer ON tokens (customer_id, id);
CREATE INDEX tokens_identity ON tokens (identity_id);
CREATE INDEX tokens_expiry ON tokens (expires_at);

-- Revocations, ours and those of gateway tokens, kept until the token would have expired.
CREATE TABLE revoked_tokens (
  customer_id BLOB NOT NULL REFERENCES customers (id),
  jti TEXT NOT NULL,
  revoked_by TEXT NOT NULL,
  reason TEXT NOT NULL,
  revoked_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (customer_id, jti)
) STRICT;
CREATE INDEX revoked_tokens_expiry ON revoked_tokens (expires_at);

-- Secrets of the installation itself, sealed under the key-encryption key: token signing keys, the key
-- of page tokens, and the value that tells whether the right key-encryption key is in use.
CREATE TABLE server_secrets (
  name TEXT PRIMARY KEY,
  sealed BLOB NOT NULL,
  public_part BLOB,
  created_at INTEGER NOT NULL
) STRICT;
