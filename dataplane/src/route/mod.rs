//! Which route takes a request: the built tables and their lookup.
