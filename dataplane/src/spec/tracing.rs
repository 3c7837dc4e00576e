//! `[tracing]`: which requests become spans.

/// Which requests are recorded as spans of traces, and what their ids are made with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tracing {
    /// Random, and the same for as long as the process runs: ids are this and the request's number, mixed.
    pub key: [u64; 2],
    /// Of requests whose client does not decide, 0 to 1.
    pub share: f64,
    /// A client that says that it keeps its span, or does not, decides for this one too.
    pub respect_parent: bool,
}
