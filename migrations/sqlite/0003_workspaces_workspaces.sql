CREATE TABLE workspaces (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  slug TEXT NOT NULL,
  -- A small number that event ids carry in place of the row id.
  number INTEGER NOT NULL UNIQUE,
  display_name TEXT NOT NULL,
  labels TEXT NOT NULL,
  revision INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  deleted_at INTEGER,
  UNIQUE (customer_id, slug)
) STRICT;

-- What moves with every poll, apart from the row that people edit.
CREATE TABLE workspace_sync (
  workspace_id BLOB PRIMARY KEY REFERENCES workspaces (id),
  customer_id BLOB NOT NULL REFERENCES customers (id),
  -- Position in the customer's sequence up to which events have been laid out for this workspace.
  position INTEGER NOT NULL,
  last_seen_at INTEGER,
  doctor_runtime BLOB
) STRICT;
CREATE INDEX workspace_sync_customer ON workspace_sync (customer_id, position);
