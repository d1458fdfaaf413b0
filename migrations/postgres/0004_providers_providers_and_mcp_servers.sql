CREATE TABLE providers (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  slug TEXT COLLATE "C" NOT NULL,
  display_name TEXT COLLATE "C" NOT NULL,
  schema_name TEXT COLLATE "C" NOT NULL,
  base_url TEXT COLLATE "C" NOT NULL,
  models TEXT COLLATE "C" NOT NULL,
  priority BIGINT NOT NULL,
  weight BIGINT NOT NULL,
  enabled BOOLEAN NOT NULL,
  labels TEXT COLLATE "C" NOT NULL,
  revision BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  UNIQUE (customer_id, slug)
);

-- Provider credentials, sealed. The version grows with every rotation.
CREATE TABLE credentials (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  provider_id UUID NOT NULL UNIQUE REFERENCES providers (id),
  version BIGINT NOT NULL,
  sealed BYTEA NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);
CREATE INDEX credentials_customer ON credentials (customer_id);

CREATE TABLE mcp_catalog_servers (
  customer_id UUID NOT NULL REFERENCES customers (id),
  id TEXT COLLATE "C" NOT NULL,
  url TEXT COLLATE "C" NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  description TEXT COLLATE "C" NOT NULL,
  icon_url TEXT COLLATE "C" NOT NULL,
  categories TEXT COLLATE "C" NOT NULL,
  authentication TEXT COLLATE "C" NOT NULL,
  requires_auth BOOLEAN NOT NULL,
  is_enabled BOOLEAN NOT NULL,
  revision BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (customer_id, id)
);
