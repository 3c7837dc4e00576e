//! What `/metrics` answers: everything that shards count and share, and what control knows of them, at the moment of the
//! question. `process` tells of shards and the process, `objects` of what a configuration names, `text` writes it.
//!
//! Shards are only read, number by number: none of them waits. Labels hold names of the configuration and words of our own,
//! never what a client sent, so that there are as many series as there are objects.

mod objects;
mod process;
mod text;

pub(crate) use text::Format;

use crate::admin::{Answer, Sight};
use text::Text;

/// Bytes that the metrics of an endpoint, and of any other object, take roughly.
const ENDPOINT_BYTES: usize = 3 * 1024;
const OBJECT_BYTES: usize = 32 * 1024;

/// All metrics.
pub(crate) fn answer(sight: &Sight<'_>, format: Format) -> Answer {
    let snapshot = &sight.loaded.snapshot;
    let endpoints: usize = snapshot.clusters.iter().flatten().map(|cluster| cluster.endpoints.len()).sum();
    let others = snapshot.listeners.len() + snapshot.clusters.len();
    let mut text = Text::new(format, ENDPOINT_BYTES * endpoints + OBJECT_BYTES * (1 + others));
    process::write(&mut text, sight);
    objects::write(&mut text, sight);
    Answer::text(format.content_type(), text.finish())
}
