-- Settings that belong to a customer or one of its workspaces, such as the public URL of a data plane.
CREATE TABLE system_settings (
  customer_id BLOB NOT NULL REFERENCES customers (id),
  workspace_id BLOB NOT NULL REFERENCES workspaces (id),
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (customer_id, workspace_id, name)
) STRICT;

-- The newest content of every slot.
CREATE TABLE liaison_configurations (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  user_id TEXT NOT NULL,
  config_type TEXT NOT NULL,
  key_id TEXT NOT NULL,
  -- Set where the slot belongs to one workspace only.
  workspace_id BLOB REFERENCES workspaces (id),
  version INTEGER NOT NULL,
  checksum TEXT NOT NULL,
  deleted INTEGER NOT NULL,
  content BLOB NOT NULL,
  event_type TEXT NOT NULL,
  -- Position in the customer's sequence of the newest version, and of the newest delivery to all.
  position INTEGER NOT NULL,
  broadcast_position INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (customer_id, user_id, config_type, key_id)
) STRICT;
CREATE INDEX liaison_configurations_broadcast ON liaison_configurations (customer_id, broadcast_position);

-- Every version's content. `position` is unique in a customer, and event ids carry it.
CREATE TABLE liaison_configuration_versions (
  configuration_id BLOB NOT NULL REFERENCES liaison_configurations (id),
  version INTEGER NOT NULL,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  position INTEGER NOT NULL,
  checksum TEXT NOT NULL,
  deleted INTEGER NOT NULL,
  content BLOB NOT NULL,
  event_type TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (configuration_id, version)
) STRICT;
CREATE UNIQUE INDEX liaison_configuration_versions_position ON liaison_configuration_versions (customer_id, position);

-- Deliveries and instructions. `configuration_id` is null for instructions.
CREATE TABLE liaison_configuration_events (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  workspace_id BLOB NOT NULL REFERENCES workspaces (id),
  configuration_id BLOB REFERENCES liaison_configurations (id),
  user_id TEXT NOT NULL,
  config_type TEXT NOT NULL,
  key_id TEXT NOT NULL,
  event_type TEXT NOT NULL,
  version INTEGER NOT NULL,
  status TEXT NOT NULL,
  position INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  stuck INTEGER NOT NULL,
  -- Whether it may still be delivered, or is stuck: pending, acknowledged, or failed and not superseded.
  is_open INTEGER NOT NULL,
  -- When the lease of an acknowledged event ends, or a failed one is tried again.
  due_at INTEGER,
  lease_micros INTEGER NOT NULL,
  worker_id TEXT NOT NULL,
  claim_token BLOB,
  claimed_by TEXT NOT NULL,
  -- How the event was completed, so that a repeated completion can be told from a different one.
  outcome TEXT NOT NULL,
  error_message TEXT NOT NULL,
  resources BLOB,
  metadata BLOB,
  superseded_by BLOB,
  created_at INTEGER NOT NULL,
  acknowledged_at INTEGER,
  completed_at INTEGER
) STRICT;
-- At most one pending and one in-flight event per workspace and slot.
CREATE UNIQUE INDEX liaison_configuration_events_pending ON liaison_configuration_events (workspace_id, configuration_id) WHERE status = 'pending';
CREATE UNIQUE INDEX liaison_configuration_events_in_flight ON liaison_configuration_events (workspace_id, configuration_id) WHERE status = 'acknowledged';
-- What a poll reads, and what time brings about.
CREATE INDEX liaison_configuration_events_open ON liaison_configuration_events (workspace_id, position) WHERE is_open = TRUE;
CREATE INDEX liaison_configuration_events_due ON liaison_configuration_events (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX liaison_configuration_events_customer ON liaison_configuration_events (customer_id, position) WHERE is_open = TRUE;

-- What each workspace runs.
CREATE TABLE workspace_slots (
  workspace_id BLOB NOT NULL REFERENCES workspaces (id),
  configuration_id BLOB NOT NULL REFERENCES liaison_configurations (id),
  customer_id BLOB NOT NULL REFERENCES customers (id),
  applied_version INTEGER NOT NULL,
  applied_checksum TEXT NOT NULL,
  applied_at INTEGER,
  -- The event that applied it.
  applied_event_id BLOB,
  -- The newest version that must not be offered again: rejected, stuck or rolled back here.
  withheld_version INTEGER NOT NULL,
  PRIMARY KEY (workspace_id, configuration_id)
) STRICT;
CREATE INDEX workspace_slots_configuration ON workspace_slots (configuration_id);
