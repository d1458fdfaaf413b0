-- Upgrades of data planes, named by the event that started each. `ended_at` is null while one is under way; rolling a
-- completed one back makes it so again.
CREATE TABLE dataplane_upgrades (
  event_id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  workspace_id UUID NOT NULL REFERENCES workspaces (id),
  phase TEXT COLLATE "C" NOT NULL,
  message TEXT COLLATE "C" NOT NULL,
  target_version TEXT COLLATE "C" NOT NULL,
  metadata BYTEA NOT NULL,
  -- JSON array of the credential slots that it is parked for.
  required_credentials TEXT COLLATE "C" NOT NULL,
  running_version TEXT COLLATE "C" NOT NULL,
  failed_version TEXT COLLATE "C" NOT NULL,
  cancel_event_id UUID,
  rollback_event_id UUID,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  ended_at BIGINT
);
-- At most one upgrade per workspace is under way.
CREATE UNIQUE INDEX dataplane_upgrades_active ON dataplane_upgrades (workspace_id) WHERE ended_at IS NULL;
CREATE INDEX dataplane_upgrades_workspace ON dataplane_upgrades (workspace_id, created_at);
CREATE UNIQUE INDEX dataplane_upgrades_cancel ON dataplane_upgrades (cancel_event_id) WHERE cancel_event_id IS NOT NULL;
CREATE UNIQUE INDEX dataplane_upgrades_rollback ON dataplane_upgrades (rollback_event_id) WHERE rollback_event_id IS NOT NULL;

-- Registry logins on their way to a data plane, each sealed under a data key of its own. The rows of one submission
-- share their id.
CREATE TABLE dataplane_upgrade_credentials (
  id UUID NOT NULL,
  slot TEXT COLLATE "C" NOT NULL,
  customer_id UUID NOT NULL REFERENCES customers (id),
  workspace_id UUID NOT NULL REFERENCES workspaces (id),
  event_id UUID NOT NULL REFERENCES dataplane_upgrades (event_id),
  sealed BYTEA NOT NULL,
  persist_in_cluster BOOLEAN NOT NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (id, slot),
  UNIQUE (event_id, slot)
);
CREATE INDEX dataplane_upgrade_credentials_expiry ON dataplane_upgrade_credentials (expires_at);
