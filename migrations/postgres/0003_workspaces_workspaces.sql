CREATE TABLE workspaces (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  slug TEXT COLLATE "C" NOT NULL,
  -- A small number that event ids carry in place of the row id.
  number BIGINT NOT NULL UNIQUE,
  display_name TEXT COLLATE "C" NOT NULL,
  labels TEXT COLLATE "C" NOT NULL,
  revision BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  deleted_at BIGINT,
  UNIQUE (customer_id, slug)
);

-- What moves with every poll, apart from the row that people edit.
CREATE TABLE workspace_sync (
  workspace_id UUID PRIMARY KEY REFERENCES workspaces (id),
  customer_id UUID NOT NULL REFERENCES customers (id),
  -- Position in the customer's sequence up to which events have been laid out for this workspace.
  position BIGINT NOT NULL,
  last_seen_at BIGINT,
  doctor_runtime BYTEA
);
CREATE INDEX workspace_sync_customer ON workspace_sync (customer_id, position);
