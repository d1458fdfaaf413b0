CREATE TABLE providers (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  slug TEXT NOT NULL,
  display_name TEXT NOT NULL,
  schema_name TEXT NOT NULL,
  base_url TEXT NOT NULL,
  models TEXT NOT NULL,
  priority INTEGER NOT NULL,
  weight INTEGER NOT NULL,
  enabled INTEGER NOT NULL,
  labels TEXT NOT NULL,
  revision INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (customer_id, slug)
) STRICT;

-- Provider credentials, sealed. The version grows with every rotation.
CREATE TABLE credentials (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  provider_id BLOB NOT NULL UNIQUE REFERENCES providers (id),
  version INTEGER NOT NULL,
  sealed BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX credentials_customer ON credentials (customer_id);

CREATE TABLE mcp_catalog_servers (
  customer_id BLOB NOT NULL REFERENCES customers (id),
  id TEXT NOT NULL,
  url TEXT NOT NULL,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  icon_url TEXT NOT NULL,
  categories TEXT NOT NULL,
  authentication TEXT NOT NULL,
  requires_auth INTEGER NOT NULL,
  is_enabled INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (customer_id, id)
) STRICT;
