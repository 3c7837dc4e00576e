//! Fixed tables that a shard keeps its state in: slots with generations, and the timer wheel.
