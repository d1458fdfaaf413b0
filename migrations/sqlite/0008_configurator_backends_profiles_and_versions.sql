-- The sealed keys behind the backends that users bring, named in configurations by id and version. What a value is bound
-- to (the associated data): the tenant, the user, the key's address and the row.
CREATE TABLE byok_credentials (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  user_id TEXT NOT NULL,
  key_address TEXT NOT NULL,
  backend TEXT NOT NULL,
  version INTEGER NOT NULL,
  sealed BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (customer_id, user_id, key_address, backend)
) STRICT;

-- What a user's key may reach. Servers and tools are JSON.
CREATE TABLE mcp_profiles (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  slug TEXT NOT NULL,
  user_id TEXT NOT NULL,
  key_id TEXT NOT NULL,
  display_name TEXT NOT NULL,
  servers TEXT NOT NULL,
  revision INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (customer_id, slug),
  UNIQUE (customer_id, user_id, key_id)
) STRICT;

-- The version that the newest one brought back, if it is a rollback; and, while the rollback stands, the checksum of
-- what the slot's source gave when it was made. The source has changed once it gives something else.
ALTER TABLE liaison_configurations ADD COLUMN restored_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE liaison_configurations ADD COLUMN source_checksum TEXT NOT NULL DEFAULT '';
ALTER TABLE liaison_configuration_versions ADD COLUMN restored_version INTEGER NOT NULL DEFAULT 0;

-- When the next version came: from then on the content is kept for a set time. The newest has none.
ALTER TABLE liaison_configuration_versions ADD COLUMN replaced_at INTEGER;
UPDATE liaison_configuration_versions SET replaced_at = (
  SELECT MIN(n.created_at) FROM liaison_configuration_versions n
  WHERE n.configuration_id = liaison_configuration_versions.configuration_id
  AND n.version > liaison_configuration_versions.version
);
CREATE INDEX liaison_configuration_versions_replaced ON liaison_configuration_versions (replaced_at) WHERE replaced_at IS NOT NULL;
