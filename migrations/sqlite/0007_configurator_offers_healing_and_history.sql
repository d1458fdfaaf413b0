-- Counts what was offered to a workspace, so that a watch knows what is new. An event carries the count it was last
-- offered at; it is offered again whenever it becomes pending.
ALTER TABLE workspace_sync ADD COLUMN offered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE liaison_configuration_events ADD COLUMN offered INTEGER NOT NULL DEFAULT 0;
-- Every failed attempt, a line of JSON each.
ALTER TABLE liaison_configuration_events ADD COLUMN failures TEXT NOT NULL DEFAULT '';

-- Self-healing of a slot in a workspace: the version last offered again, how often, and when it may be the next time.
ALTER TABLE workspace_slots ADD COLUMN heal_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workspace_slots ADD COLUMN heal_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workspace_slots ADD COLUMN heal_after INTEGER;
-- The version that the data plane tried and went back from by itself.
ALTER TABLE workspace_slots ADD COLUMN failed_version INTEGER NOT NULL DEFAULT 0;

-- History by workspace and by customer, newest first. Partial, so that only the end of an event is written to them.
CREATE INDEX liaison_configuration_events_workspace_history ON liaison_configuration_events (workspace_id, position, id) WHERE is_open = FALSE;
CREATE INDEX liaison_configuration_events_customer_history ON liaison_configuration_events (customer_id, position, id) WHERE is_open = FALSE;
