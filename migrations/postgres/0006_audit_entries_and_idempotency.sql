CREATE TABLE audit_entries (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  created_at BIGINT NOT NULL,
  actor_kind TEXT COLLATE "C" NOT NULL,
  actor_id TEXT COLLATE "C" NOT NULL,
  identity_id UUID,
  action TEXT COLLATE "C" NOT NULL,
  target TEXT COLLATE "C" NOT NULL,
  outcome TEXT COLLATE "C" NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  request_id TEXT COLLATE "C" NOT NULL,
  peer TEXT COLLATE "C" NOT NULL,
  count BIGINT NOT NULL
);
CREATE INDEX audit_entries_customer ON audit_entries (customer_id, created_at, id);

-- Answers of writes that carried an idempotency key, sealed where they hold a secret.
CREATE TABLE idempotency_records (
  caller TEXT COLLATE "C" NOT NULL,
  method TEXT COLLATE "C" NOT NULL,
  idempotency_key TEXT COLLATE "C" NOT NULL,
  request_hash BYTEA NOT NULL,
  response BYTEA NOT NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (caller, method, idempotency_key)
);
CREATE INDEX idempotency_records_expiry ON idempotency_records (expires_at);
