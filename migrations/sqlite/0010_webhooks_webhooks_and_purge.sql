-- Endpoints that are told what happens to the workspaces of a customer.
CREATE TABLE webhooks (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  display_name TEXT NOT NULL,
  url TEXT NOT NULL,
  -- Names separated by blanks; empty for all.
  event_types TEXT NOT NULL,
  labels TEXT NOT NULL,
  -- Empty while it gets messages.
  disabled_reason TEXT NOT NULL,
  -- Sealed signing secrets: the current one, and the one before while a rotation overlaps.
  secret BLOB NOT NULL,
  previous_secret BLOB,
  previous_secret_expires_at INTEGER,
  revision INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX webhooks_customer ON webhooks (customer_id, id);

-- The queue: a row for each message and webhook. While it is pending, `due_at` is when it is sent next; while it is
-- being sent, there is a claim token, and `due_at` is when the claim ends.
CREATE TABLE webhook_deliveries (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  webhook_id BLOB NOT NULL REFERENCES webhooks (id),
  message_id BLOB NOT NULL,
  event_type TEXT NOT NULL,
  payload TEXT NOT NULL,
  state TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  due_at INTEGER,
  claim_token BLOB,
  last_status INTEGER NOT NULL,
  last_error TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  last_attempt_at INTEGER,
  ended_at INTEGER
) STRICT;
CREATE INDEX webhook_deliveries_webhook ON webhook_deliveries (webhook_id, created_at, id);
CREATE INDEX webhook_deliveries_customer ON webhook_deliveries (customer_id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_head ON webhook_deliveries (webhook_id, due_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_claimed ON webhook_deliveries (webhook_id) WHERE claim_token IS NOT NULL;
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (ended_at) WHERE ended_at IS NOT NULL;

-- What just happened to a workspace, written in the transaction that made it happen and taken away by the one that
-- tells it. `data` is JSON.
CREATE TABLE workspace_signals (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  workspace_id BLOB NOT NULL REFERENCES workspaces (id),
  configuration_id BLOB REFERENCES liaison_configurations (id),
  kind TEXT NOT NULL,
  version INTEGER NOT NULL,
  data TEXT NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX workspace_signals_customer ON workspace_signals (customer_id);

-- What has been told and is not over yet: workspaces that went offline, and slots that got stuck.
CREATE TABLE webhook_offline_workspaces (
  workspace_id BLOB PRIMARY KEY REFERENCES workspaces (id),
  customer_id BLOB NOT NULL REFERENCES customers (id),
  last_seen_at INTEGER NOT NULL,
  told_at INTEGER NOT NULL
) STRICT;
CREATE INDEX webhook_offline_workspaces_customer ON webhook_offline_workspaces (customer_id);
CREATE TABLE webhook_stuck_slots (
  workspace_id BLOB NOT NULL REFERENCES workspaces (id),
  configuration_id BLOB NOT NULL REFERENCES liaison_configurations (id),
  customer_id BLOB NOT NULL REFERENCES customers (id),
  version INTEGER NOT NULL,
  told_at INTEGER NOT NULL,
  PRIMARY KEY (workspace_id, configuration_id)
) STRICT;
CREATE INDEX webhook_stuck_slots_customer ON webhook_stuck_slots (customer_id);

-- Purging a customer takes many transactions. From the first one on it cannot come back.
ALTER TABLE customers ADD COLUMN purge_began_at INTEGER;
-- Whom a kept answer is about, so that it goes with its customer.
ALTER TABLE idempotency_records ADD COLUMN customer_id BLOB;
CREATE INDEX idempotency_records_customer ON idempotency_records (customer_id) WHERE customer_id IS NOT NULL;
-- The highest number of a workspace that is gone. Event ids carry numbers, so none is given twice.
CREATE TABLE retired_workspace_numbers (
  highest INTEGER PRIMARY KEY
) STRICT;
