-- Endpoints that are told what happens to the workspaces of a customer.
CREATE TABLE webhooks (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  display_name TEXT COLLATE "C" NOT NULL,
  url TEXT COLLATE "C" NOT NULL,
  -- Names separated by blanks; empty for all.
  event_types TEXT COLLATE "C" NOT NULL,
  labels TEXT COLLATE "C" NOT NULL,
  -- Empty while it gets messages.
  disabled_reason TEXT COLLATE "C" NOT NULL,
  -- Sealed signing secrets: the current one, and the one before while a rotation overlaps.
  secret BYTEA NOT NULL,
  previous_secret BYTEA,
  previous_secret_expires_at BIGINT,
  revision BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);
CREATE INDEX webhooks_customer ON webhooks (customer_id, id);

-- The queue: a row for each message and webhook. While it is pending, `due_at` is when it is sent next; while it is
-- being sent, there is a claim token, and `due_at` is when the claim ends.
CREATE TABLE webhook_deliveries (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  webhook_id UUID NOT NULL REFERENCES webhooks (id),
  message_id UUID NOT NULL,
  event_type TEXT COLLATE "C" NOT NULL,
  payload TEXT COLLATE "C" NOT NULL,
  state TEXT COLLATE "C" NOT NULL,
  attempts BIGINT NOT NULL,
  due_at BIGINT,
  claim_token UUID,
  last_status BIGINT NOT NULL,
  last_error TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  last_attempt_at BIGINT,
  ended_at BIGINT
);
CREATE INDEX webhook_deliveries_webhook ON webhook_deliveries (webhook_id, created_at, id);
CREATE INDEX webhook_deliveries_customer ON webhook_deliveries (customer_id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_head ON webhook_deliveries (webhook_id, due_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_claimed ON webhook_deliveries (webhook_id) WHERE claim_token IS NOT NULL;
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (ended_at) WHERE ended_at IS NOT NULL;

-- What just happened to a workspace, written in the transaction that made it happen and taken away by the one that
-- tells it. `data` is JSON.
CREATE TABLE workspace_signals (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  workspace_id UUID NOT NULL REFERENCES workspaces (id),
  configuration_id UUID REFERENCES liaison_configurations (id),
  kind TEXT COLLATE "C" NOT NULL,
  version BIGINT NOT NULL,
  data TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE INDEX workspace_signals_customer ON workspace_signals (customer_id);

-- What has been told and is not over yet: workspaces that went offline, and slots that got stuck.
CREATE TABLE webhook_offline_workspaces (
  workspace_id UUID PRIMARY KEY REFERENCES workspaces (id),
  customer_id UUID NOT NULL REFERENCES customers (id),
  last_seen_at BIGINT NOT NULL,
  told_at BIGINT NOT NULL
);
CREATE INDEX webhook_offline_workspaces_customer ON webhook_offline_workspaces (customer_id);
CREATE TABLE webhook_stuck_slots (
  workspace_id UUID NOT NULL REFERENCES workspaces (id),
  configuration_id UUID NOT NULL REFERENCES liaison_configurations (id),
  customer_id UUID NOT NULL REFERENCES customers (id),
  version BIGINT NOT NULL,
  told_at BIGINT NOT NULL,
  PRIMARY KEY (workspace_id, configuration_id)
);
CREATE INDEX webhook_stuck_slots_customer ON webhook_stuck_slots (customer_id);

-- Purging a customer takes many transactions. From the first one on it cannot come back.
ALTER TABLE customers ADD COLUMN purge_began_at BIGINT;
-- Whom a kept answer is about, so that it goes with its customer.
ALTER TABLE idempotency_records ADD COLUMN customer_id UUID;
CREATE INDEX idempotency_records_customer ON idempotency_records (customer_id) WHERE customer_id IS NOT NULL;
-- The highest number of a workspace that is gone. Event ids carry numbers, so none is given twice.
CREATE TABLE retired_workspace_numbers (
  highest BIGINT PRIMARY KEY
);
