-- Customers and their projects. All times are microseconds since the Unix epoch.
CREATE TABLE customers (
  id BLOB PRIMARY KEY,
  slug TEXT NOT NULL UNIQUE,
  display_name TEXT NOT NULL,
  description TEXT NOT NULL,
  labels TEXT NOT NULL,
  revision INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  deleted_at INTEGER
) STRICT;

-- Apart from `customers`, because every delivery moves it: the sequence that orders events.
CREATE TABLE customer_sequences (
  customer_id BLOB PRIMARY KEY REFERENCES customers (id),
  head INTEGER NOT NULL
) STRICT;

CREATE TABLE projects (
  id BLOB PRIMARY KEY,
  customer_id BLOB NOT NULL REFERENCES customers (id),
  slug TEXT NOT NULL,
  display_name TEXT NOT NULL,
  description TEXT NOT NULL,
  labels TEXT NOT NULL,
  is_default INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  deleted_at INTEGER,
  UNIQUE (customer_id, slug)
) STRICT;
