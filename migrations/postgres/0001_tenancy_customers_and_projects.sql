-- Customers and their projects. All times are microseconds since the Unix epoch.
CREATE TABLE customers (
  id UUID PRIMARY KEY,
  slug TEXT COLLATE "C" NOT NULL UNIQUE,
  display_name TEXT COLLATE "C" NOT NULL,
  description TEXT COLLATE "C" NOT NULL,
  labels TEXT COLLATE "C" NOT NULL,
  revision BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  deleted_at BIGINT
);

-- Apart from `customers`, because every delivery moves it: the sequence that orders events.
CREATE TABLE customer_sequences (
  customer_id UUID PRIMARY KEY REFERENCES customers (id),
  head BIGINT NOT NULL
);

CREATE TABLE projects (
  id UUID PRIMARY KEY,
  customer_id UUID NOT NULL REFERENCES customers (id),
  slug TEXT COLLATE "C" NOT NULL,
  display_name TEXT COLLATE "C" NOT NULL,
  description TEXT COLLATE "C" NOT NULL,
  labels TEXT COLLATE "C" NOT NULL,
  is_default BOOLEAN NOT NULL,
  revision BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  deleted_at BIGINT,
  UNIQUE (customer_id, slug)
);
