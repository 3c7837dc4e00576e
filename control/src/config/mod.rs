//! A configuration file: read, parse, check, and the snapshot that the shards run.
