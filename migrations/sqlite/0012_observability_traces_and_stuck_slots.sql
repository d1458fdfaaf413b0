-- The W3C traceparent of the call that made a version, so that its deliveries can be traced back to it. Null where that
-- call was not traced.
ALTER TABLE liaison_configuration_versions ADD COLUMN traceparent TEXT;
-- Counting stuck slots reads these alone. The index moves only when a slot gets stuck or free.
CREATE INDEX liaison_configuration_events_stuck ON liaison_configuration_events (customer_id) WHERE stuck = TRUE;
