//! Which requests are spans of a trace, and what those are called. Nothing is kept for it: both follow from the request's id
//! and the process's key, so that a shard and the log thread know the same without telling each other.

use super::request_id::RequestId;
use crate::mix::mix;
use crate::proto::trace::TraceParent;
use crate::spec::tracing::Tracing;

/// The span that a request is for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
}

/// Bit 0 of the flags: the span is kept (W3C Trace Context 3.2.2.5.1).
const SAMPLED: u8 = 1;
/// Bit 1: the trace id's last seven bytes are random (level 2, 3.2.2.5.2).
const RANDOM: u8 = 2;

/// Whether the request is to be a span.
pub fn takes(tracing: &Tracing, id: RequestId, parent: Option<TraceParent>) -> bool {
    match parent.filter(|_| tracing.respect_parent) {
        Some(parent) => parent.flags & SAMPLED != 0,
        None => ((mixed(tracing.key[0], id) >> 11) as f64) < tracing.share * (1_u64 << 53) as f64,
    }
}

impl Traced {
    /// Of a request that is a span: in its client's trace, or in one that begins here.
    pub fn of(tracing: &Tracing, id: RequestId, parent: Option<TraceParent>) -> Self {
        let [one, other] = tracing.key;
        let fresh = || {
            let (high, low) = (mixed(other, id), mixed(one.rotate_left(32), id));
            ((u128::from(high) << 64) | u128::from(low)).max(1).to_be_bytes()
        };
        Self {
            trace_id: parent.map_or_else(fresh, |parent| parent.trace_id),
            span_id: mixed(one ^ other, id).max(1).to_be_bytes(),
        }
    }

    /// What the origin is told.
    pub fn to_origin(self, parent: Option<TraceParent>) -> TraceParent {
        let flags = parent.map_or(RANDOM, |parent| parent.flags & RANDOM) | SAMPLED;
        TraceParent { trace_id: self.trace_id, parent_id: self.span_id, flags }
    }
}

/// An even number of 64 bits for each id and key.
fn mixed(key: u64, id: RequestId) -> u64 {
    let place = (u64::from(id.process) << 16) | u64::from(id.shard);
    mix(mix(key ^ id.count.wrapping_mul(0x9e37_79b9_7f4a_7c15)) ^ place.wrapping_mul(0xd6e8_feb8_6659_fd93))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn tracing(share: f64, respect_parent: bool) -> Tracing {
        Tracing { key: [0x1234_5678_9abc_def0, 7], share, respect_parent }
    }

    fn id(count: u64) -> RequestId {
        RequestId { process: 0xfeed, shard: 3, count }
    }

    fn parent(flags: u8) -> TraceParent {
        TraceParent { trace_id: [5; 16], parent_id: [6; 8], flags }
    }

    #[test]
    fn a_share_is_taken_and_a_client_decides_where_it_may() {
        let tenth = tracing(0.1, true);
        let taken = (0..100_000).filter(|count| takes(&tenth, id(*count), None)).count();
        assert!((9_500..10_500).contains(&taken), "{taken} of 100,000 at 0.1");
        let (none, all) = (tracing(0.0, true), tracing(1.0, true));
        for count in 0..1000 {
            assert!(!takes(&none, id(count), None) && takes(&all, id(count), None));
            assert!(takes(&none, id(count), Some(parent(1))) && !takes(&all, id(count), Some(parent(2))));
        }
        let own = tracing(1.0, false);
        assert!(takes(&own, id(0), Some(parent(0))));
        assert!(!takes(&tracing(0.0, false), id(0), Some(parent(1))));
    }

    #[test]
    fn ids_are_of_one_request_each() {
        let all = tracing(1.0, true);
        let mut spans = BTreeSet::new();
        let mut traces = BTreeSet::new();
        for process in [1, 2] {
            for shard in [0, 1, 255] {
                for count in 0..10_000 {
                    let id = RequestId { process, shard, count };
                    let one = Traced::of(&all, id, None);
                    assert_eq!(one, Traced::of(&all, id, None));
                    assert!(spans.insert(one.span_id) && traces.insert(one.trace_id));
                }
            }
        }
        let other = Tracing { key: [1, 2], ..all };
        assert_ne!(Traced::of(&other, id(1), None), Traced::of(&all, id(1), None));
    }

    #[test]
    fn the_origin_is_told_of_our_span_in_the_clients_trace() {
        let all = tracing(1.0, false);
        for (flags, told) in [(0, 1), (1, 1), (2, 3), (0xff, 3)] {
            let span = Traced::of(&all, id(1), Some(parent(flags)));
            assert_eq!((span.trace_id, span.span_id != [6; 8]), ([5; 16], true));
            let to_origin = span.to_origin(Some(parent(flags)));
            assert_eq!((to_origin.parent_id, to_origin.flags), (span.span_id, told));
        }
        let begun = Traced::of(&all, id(1), None);
        let text = begun.to_origin(None).text();
        assert_eq!(TraceParent::parse(&text), Some(begun.to_origin(None)), "{}", text.escape_ascii());
        assert!(text.ends_with(b"-03"));
    }
}
