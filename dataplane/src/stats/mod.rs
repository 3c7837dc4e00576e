//! What a shard counts and records for control: counters, close reasons, access-log records.
