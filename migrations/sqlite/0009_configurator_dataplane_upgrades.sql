-- Upgrades of data planes, named by the event that started each. `ended_at` is null while one is under way; rolling a
-- completed one back makes it so again.
CREATE TABLE dataplane_upgrades (
  event_id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  workspace_id BLOB NOT NULL REFERENCES workspaces (id),
  phase TEXT NOT NULL,
  message TEXT NOT NULL,
  target_version TEXT NOT NULL,
  metadata BLOB NOT NULL,
  -- JSON array of the credential slots that it is parked for.
  required_credentials TEXT NOT NULL,
  running_version TEXT NOT NULL,
  failed_version TEXT NOT NULL,
  cancel_event_id BLOB,
  rollback_event_id BLOB,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  ended_at INTEGER
) STRICT;
-- At most one upgrade per workspace is under way.
CREATE UNIQUE INDEX dataplane_upgrades_active ON dataplane_upgrades (workspace_id) WHERE ended_at IS NULL;
CREATE INDEX dataplane_upgrades_workspace ON dataplane_upgrades (workspace_id, created_at);
CREATE UNIQUE INDEX dataplane_upgrades_cancel ON dataplane_upgrades (cancel_event_id) WHERE cancel_event_id IS NOT NULL;
CREATE UNIQUE INDEX dataplane_upgrades_rollback ON dataplane_upgrades (rollback_event_id) WHERE rollback_event_id IS NOT NULL;

-- Registry logins on their way to a data plane, each sealed under a data key of its own. The rows of one submission
-- share their id.
CREATE TABLE dataplane_upgrade_credentials (
  id BLOB NOT NULL,
  slot TEXT NOT NULL,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  workspace_id BLOB NOT NULL REFERENCES workspaces (id),
  event_id BLOB NOT NULL REFERENCES dataplane_upgrades (event_id),
  sealed BLOB NOT NULL,
  persist_in_cluster INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (id, slot),
  UNIQUE (event_id, slot)
) STRICT;
CREATE INDEX dataplane_upgrade_credentials_expiry ON dataplane_upgrade_credentials (expires_at);
