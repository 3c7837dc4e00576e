//! The simulator: a backend of `Io` with a virtual clock, TCP's semantics and a seeded fault plan.
