CREATE TABLE audit_entries (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  created_at INTEGER NOT NULL,
  actor_kind TEXT NOT NULL,
  actor_id TEXT NOT NULL,
  identity_id BLOB,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  outcome TEXT NOT NULL,
  reason TEXT NOT NULL,
  request_id TEXT NOT NULL,
  peer TEXT NOT NULL,
  count INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_entries_customer ON audit_entries (customer_id, created_at, id);

-- Answers of writes that carried an idempotency key, sealed where they hold a secret.
CREATE TABLE idempotency_records (
  caller TEXT NOT NULL,
  method TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  request_hash BLOB NOT NULL,
  response BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (caller, method, idempotency_key)
) STRICT;
CREATE INDEX idempotency_records_expiry ON idempotency_records (expires_at);
