-- Settings that belong to a customer or one of its workspaces, such as the public URL of a data plane.
CREATE TABLE system_settings (
  customer_id UUID NOT NULL REFERENCES customers (id),
  workspace_id UUID NOT NULL REFERENCES workspaces (id),
  name TEXT COLLATE "C" NOT NULL,
  value TEXT COLLATE "C" NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (customer_id, workspace_id, name)
);

-- The newest content of every slot.
CREATE TABLE liaison_configurations (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  user_id TEXT COLLATE "C" NOT NULL,
  config_type TEXT COLLATE "C" NOT NULL,
  key_id TEXT COLLATE "C" NOT NULL,
  -- Set where the slot belongs to one workspace only.
  workspace_id UUID REFERENCES workspaces (id),
  version BIGINT NOT NULL,
  checksum TEXT COLLATE "C" NOT NULL,
  deleted BOOLEAN NOT NULL,
  content BYTEA NOT NULL,
  event_type TEXT COLLATE "C" NOT NULL,
  -- Position in the customer's sequence of the newest version, and of the newest delivery to all.
  position BIGINT NOT NULL,
  broadcast_position BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  UNIQUE (customer_id, user_id, config_type, key_id)
);
CREATE INDEX liaison_configurations_broadcast ON liaison_configurations (customer_id, broadcast_position);

-- Every version's content. `position` is unique in a customer, and event ids carry it.
CREATE TABLE liaison_configuration_versions (
  configuration_id UUID NOT NULL REFERENCES liaison_configurations (id),
  version BIGINT NOT NULL,
  customer_id UUID NOT NULL REFERENCES customers (id),
  position BIGINT NOT NULL,
  checksum TEXT COLLATE "C" NOT NULL,
  deleted BOOLEAN NOT NULL,
  content BYTEA NOT NULL,
  event_type TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (configuration_id, version)
);
CREATE UNIQUE INDEX liaison_configuration_versions_position ON liaison_configuration_versions (customer_id, position);

-- Deliveries and instructions. `configuration_id` is null for instructions.
CREATE TABLE liaison_configuration_events (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  workspace_id UUID NOT NULL REFERENCES workspaces (id),
  configuration_id UUID REFERENCES liaison_configurations (id),
  user_id TEXT COLLATE "C" NOT NULL,
  config_type TEXT COLLATE "C" NOT NULL,
  key_id TEXT COLLATE "C" NOT NULL,
  event_type TEXT COLLATE "C" NOT NULL,
  version BIGINT NOT NULL,
  status TEXT COLLATE "C" NOT NULL,
  position BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  stuck BOOLEAN NOT NULL,
  -- Whether it may still be delivered, or is stuck: pending, acknowledged, or failed and not superseded.
  is_open BOOLEAN NOT NULL,
  -- When the lease of an acknowledged event ends, or a failed one is tried again.
  due_at BIGINT,
  lease_micros BIGINT NOT NULL,
  worker_id TEXT COLLATE "C" NOT NULL,
  claim_token UUID,
  claimed_by TEXT COLLATE "C" NOT NULL,
  -- How the event was completed, so that a repeated completion can be told from a different one.
  outcome TEXT COLLATE "C" NOT NULL,
  error_message TEXT COLLATE "C" NOT NULL,
  resources BYTEA,
  metadata BYTEA,
  superseded_by UUID,
  created_at BIGINT NOT NULL,
  acknowledged_at BIGINT,
  completed_at BIGINT
);
-- At most one pending and one in-flight event per workspace and slot.
CREATE UNIQUE INDEX liaison_configuration_events_pending ON liaison_configuration_events (workspace_id, configuration_id) WHERE status = 'pending';
CREATE UNIQUE INDEX liaison_configuration_events_in_flight ON liaison_configuration_events (workspace_id, configuration_id) WHERE status = 'acknowledged';
-- What a poll reads, and what time brings about.
CREATE INDEX liaison_configuration_events_open ON liaison_configuration_events (workspace_id, position) WHERE is_open = TRUE;
CREATE INDEX liaison_configuration_events_due ON liaison_configuration_events (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX liaison_configuration_events_customer ON liaison_configuration_events (customer_id, position) WHERE is_open = TRUE;

-- What each workspace runs.
CREATE TABLE workspace_slots (
  workspace_id UUID NOT NULL REFERENCES workspaces (id),
  configuration_id UUID NOT NULL REFERENCES liaison_configurations (id),
  customer_id UUID NOT NULL REFERENCES customers (id),
  applied_version BIGINT NOT NULL,
  applied_checksum TEXT COLLATE "C" NOT NULL,
  applied_at BIGINT,
  -- The event that applied it.
  applied_event_id UUID,
  -- The newest version that must not be offered again: rejected, stuck or rolled back here.
  withheld_version BIGINT NOT NULL,
  PRIMARY KEY (workspace_id, configuration_id)
);
CREATE INDEX workspace_slots_configuration ON workspace_slots (configuration_id);
