//! ringway's data path: one shard per core, each with its own ring, buffers and connections.
//!
//! Layers, lowest first (a test checks the imports; docs/architecture.md draws them):
//! `limits fault mix` · `spec io buf` · `sys stats proto` · `route cluster table` · `link post` · `tunnel` ·
//! `exchange` · `conn` · `listener` · `shard sim` · `plane`.

pub mod buf;
pub mod bulk;
pub mod cluster;
pub mod conn;
pub mod core;
pub mod deadlines;
pub mod exchange;
pub mod fault;
pub mod io;
pub mod limits;
pub mod link;
pub mod listener;
pub mod mix;
pub mod plane;
pub mod post;
pub mod proto;
pub mod route;
pub mod shard;
#[cfg(feature = "sim")]
pub mod sim;
pub mod spec;
pub mod stats;
pub mod stream;
mod sync;
pub mod sys;
pub mod table;
pub mod tunnel;
