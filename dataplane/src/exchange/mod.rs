//! An exchange: one request and its response. Two halves that advance independently, and the attempts to have it answered.
//!
//! `attempt` finds and reaches an endpoint, `again` decides what follows when that fails, `beside` has a second attempt
//! beside the first; `request` carries head and body
//! up, and `replay` does so once more; `response` reads what comes down; `record` and `measure` tell of what is over.
//! An exchange does not know how its conn speaks to the client: `conn` asks it for the next piece and writes it.

pub mod again;
pub mod attempt;
pub mod beside;
pub mod measure;
pub mod record;
pub mod replay;
pub mod request;
pub mod response;

use crate::buf::Lease;
use crate::bulk::Bulk;
use crate::cluster::Tried;
use crate::cluster::balance::Hint;
use crate::conn::Conn;
use crate::fault::{At, Refusal};
use crate::io::{Mono, SocketAddress};
use crate::link::Link;
use crate::link::queue::Waiter;
use crate::proto::http1::{BodyDecoder, Scan};
use crate::proto::{Framing, RequestHead, ResponseHead};
use crate::spec::{ClusterId, ClusterTimeouts, EndpointId, RouteId, Snapshot, Tracing};
use crate::stats::retries::Retries;
use crate::table::Id;
use beside::Beside;

/// How far the request has gone up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Up {
    /// The head is here; not (or not again) sent.
    #[default]
    Head,
    /// The head is on its way; the body follows as it comes.
    Body,
    /// Answered without an origin: what is left of the body is read and dropped.
    Drain,
    /// Every byte was taken from the client.
    Done,
    /// The rest will never be read.
    Aborted,
}

impl Up {
    pub const ALL: [Self; 5] = [Self::Head, Self::Body, Self::Drain, Self::Done, Self::Aborted];

    /// The transition table of the request half. `Head` again from `Body` or `Done`: the attempt is made anew.
    pub const fn may_become(self, next: Self) -> bool {
        use Up::{Aborted, Body, Done, Drain, Head};
        matches!(
            (self, next),
            (Head, Body | Drain | Done | Aborted)
                | (Body, Head | Drain | Done | Aborted)
                | (Drain, Done | Aborted)
                | (Done, Head)
        )
    }
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Aborted)
    }
}

/// How far the response has come down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Down {
    /// Nothing yet, or interim responses only.
    #[default]
    Waiting,
    /// The head is complete and not yet written to the client.
    Head,
    Body,
    /// Every byte is queued to the client.
    Done,
    /// Cut off: the client sees an incomplete response.
    Aborted,
}

impl Down {
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Head, Self::Body, Self::Done, Self::Aborted];

    /// The transition table of the response half. `Waiting` to `Done` is our own answer.
    pub const fn may_become(self, next: Self) -> bool {
        use Down::{Aborted, Body, Done, Head, Waiting};
        matches!(
            (self, next),
            (Waiting, Head | Done | Aborted) | (Head, Body | Done | Aborted) | (Body, Done | Aborted)
        )
    }
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Aborted)
    }
}

/// Pairs of halves that cannot be: a request still to be sent has no response under way.
pub const fn is_possible(up: Up, down: Down) -> bool {
    !matches!(
        (up, down),
        (Up::Head, Down::Head | Down::Body) | (Up::Drain, Down::Waiting | Down::Head | Down::Body)
    )
}

/// Where the present attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Attempt {
    #[default]
    Queued,
    Connecting,
    /// The head went to the link; no byte of the response has come.
    Sending,
    Receiving,
    Ended,
}

impl Attempt {
    pub const ALL: [Self; 5] = [Self::Queued, Self::Connecting, Self::Sending, Self::Receiving, Self::Ended];

    /// The transition table: back to `Queued` while nothing was passed on. `Queued` to `Receiving` is an attempt that was
    /// put aside, or ran beside the first, and takes its place.
    pub const fn may_become(self, next: Self) -> bool {
        use Attempt::{Connecting, Ended, Queued, Receiving, Sending};
        matches!(
            (self, next),
            (Queued, Connecting | Sending | Receiving | Ended)
                | (Connecting, Sending | Queued | Ended)
                | (Sending, Receiving | Queued | Ended)
                | (Receiving, Queued | Ended)
        )
    }
}

/// One request and its response. Its tables keep their memory from one life of the slot to the next.
#[derive(Debug)]
pub struct Exchange {
    pub conn: Id<Conn>,
    // --- the request, as it came
    pub head: RequestHead,
    pub head_bytes: Option<Lease>,
    /// Number of the request in its shard, and on its conn.
    pub number: u64,
    pub on_conn: u64,
    /// When the request's first byte came, and how long its head took from then, microseconds.
    pub started: Mono,
    pub started_wall: u64,
    pub head_us: u32,
    /// It is a span of a trace, of which the origin and the log thread are told.
    pub traced: bool,
    // --- where it goes
    pub route: Option<RouteId>,
    pub cluster: Option<ClusterId>,
    pub timeouts: Option<ClusterTimeouts>,
    /// What the cluster's policy asked of the request.
    pub hint: Hint,
    // --- the request half
    up: Up,
    pub up_decoder: BodyDecoder,
    /// Framing towards the origin.
    pub up_framing: Framing,
    pub up_bytes: u64,
    pub up_bulk: Bulk,
    /// When the body began, and how long we were not reading it, for the rate floor.
    pub body_since: Mono,
    pub paused_since: Option<Mono>,
    // --- the response half
    down: Down,
    pub response: ResponseHead,
    /// What the link delivered and nobody has taken yet; the response head stands at its front.
    pub link_rx: Option<Lease>,
    pub scan: Scan,
    pub head_len: usize,
    pub down_decoder: BodyDecoder,
    /// Framing towards the client.
    pub down_framing: Framing,
    pub down_bytes: u64,
    pub down_bulk: Bulk,
    /// Most bytes this request's body may have.
    pub body_limit: u64,
    pub interim_count: u32,
    pub interim_bytes: u32,
    /// The origin's response ended cleanly with nothing behind it.
    pub link_clean: bool,
    /// Raw trailers of each direction, where the cluster passes them.
    pub pass_trailers: bool,
    pub up_trailers: Option<Box<Vec<u8>>>,
    pub down_trailers: Option<Box<Vec<u8>>>,
    // --- the attempt
    attempt: Attempt,
    pub link: Option<Id<Link>>,
    /// Its place in the queue of its cluster, while it waits.
    pub waiter: Option<Id<Waiter>>,
    pub endpoint: Option<EndpointId>,
    pub tried: Tried,
    pub attempts: u8,
    /// The link came from the pool: it may turn out dead.
    pub pooled: bool,
    /// Times the request was sent anew; the most there is says that it will not be again.
    pub repeats: u8,
    /// Copies of the request that an origin may have seen.
    pub copies: u8,
    /// Why it was tried again, or was not.
    pub retried: Retries,
    /// The request came as another proxy's second attempt.
    pub nested: bool,
    /// Its cluster has hedges, and wants to know when first bytes come.
    pub timed: bool,
    /// A second attempt may begin beside the first, but has not yet; when, once the request is out.
    pub may_hedge: bool,
    pub hedge_by: Mono,
    /// A hedge that runs, or a response that is passed on if no other attempt does better.
    pub beside: Option<Id<Beside>>,
    /// The next attempt must not take a link from the pool.
    pub fresh: bool,
    /// `tried` holds the endpoint of a stale link, which is only to be avoided.
    pub avoid: bool,
    /// Bytes of the body were taken from the client: without [`Exchange::holds_body`] they cannot be sent again.
    pub body_taken: bool,
    /// Most bytes of the body that may be held to be sent again; 0 where they are not held.
    pub hold_limit: u32,
    pub held: Option<Lease>,
    /// Why the last attempt failed.
    pub failure: Option<Refusal>,
    // --- what the log will say
    pub status: u16,
    pub refusal: Option<Refusal>,
    /// Where it was when something ended it before its end.
    pub ended_at: Option<At>,
    /// When the last attempt was begun, and when its connect was made, if it needed one.
    pub attempt_since: Mono,
    pub connected: Option<Mono>,
    /// When the last copy of the request was sent: its head, and what there was of its body.
    pub sent: Mono,
    pub first_byte: Option<Mono>,
    /// How long it waited for a place, microseconds, if it did.
    pub queue_us: Option<u32>,
    /// Local address of the last link that the request was sent on.
    pub upstream_local: Option<SocketAddress>,
    /// The conn ends after this exchange.
    pub close_after: bool,
}

const _: () = assert!(size_of::<Exchange>() <= 1024, "an exchange is at most 1 KiB");

impl Exchange {
    /// A fresh exchange of a conn, everything at its beginning.
    pub fn new(conn: Id<Conn>) -> Self {
        Self {
            conn,
            head: Default::default(),
            head_bytes: None,
            number: 0,
            on_conn: 0,
            started: Mono(0),
            started_wall: 0,
            head_us: 0,
            traced: false,
            route: None,
            cluster: None,
            timeouts: None,
            hint: Hint::default(),
            up: Up::Head,
            up_decoder: BodyDecoder::new(Framing::None),
            up_framing: Framing::None,
            up_bytes: 0,
            up_bulk: Bulk::default(),
            body_since: Mono(0),
            paused_since: None,
            down: Down::Waiting,
            response: Default::default(),
            link_rx: None,
            scan: Default::default(),
            head_len: 0,
            down_decoder: BodyDecoder::new(Framing::None),
            down_framing: Framing::None,
            down_bytes: 0,
            down_bulk: Bulk::default(),
            body_limit: crate::limits::REQUEST_BODY.default,
            interim_count: 0,
            interim_bytes: 0,
            link_clean: false,
            pass_trailers: false,
            up_trailers: None,
            down_trailers: None,
            attempt: Attempt::Queued,
            link: None,
            waiter: None,
            endpoint: None,
            tried: Default::default(),
            attempts: 0,
            pooled: false,
            repeats: 0,
            copies: 0,
            retried: Retries::NONE,
            nested: false,
            timed: false,
            may_hedge: false,
            hedge_by: Mono::MAX,
            beside: None,
            fresh: false,
            avoid: false,
            body_taken: false,
            hold_limit: 0,
            held: None,
            failure: None,
            status: 0,
            refusal: None,
            ended_at: None,
            attempt_since: Mono(0),
            connected: None,
            sent: Mono(0),
            first_byte: None,
            queue_us: None,
            upstream_local: None,
            close_after: false,
        }
    }
    /// What the ids of its span are made with, if it is one.
    pub fn tracing(&self, snapshot: &Snapshot) -> Option<Tracing> {
        snapshot.tracing.filter(|_| self.traced)
    }
    pub fn up(&self) -> Up {
        self.up
    }
    pub fn down(&self) -> Down {
        self.down
    }
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }
    /// The one door of the request half (invariant 6).
    pub fn enter_up(&mut self, next: Up) {
        assert!(
            self.up == next || self.up.may_become(next),
            "a request may not go from {:?} to {next:?}",
            self.up
        );
        self.up = next;
    }
    /// The rest of the request will not be read, unless all of it was.
    pub fn abort_up(&mut self) {
        if !self.up.is_over() {
            self.enter_up(Up::Aborted);
        }
    }
    /// The one door of the response half.
    pub fn enter_down(&mut self, next: Down) {
        assert!(
            self.down == next || self.down.may_become(next),
            "a response may not go from {:?} to {next:?}",
            self.down
        );
        self.down = next;
        debug_assert!(is_possible(self.up, self.down), "{:?} with {:?}", self.up, self.down);
    }
    pub fn enter_attempt(&mut self, next: Attempt) {
        assert!(
            self.attempt == next || self.attempt.may_become(next),
            "an attempt may not go from {:?} to {next:?}",
            self.attempt
        );
        self.attempt = next;
    }
    /// Something ends it here, before its end. What comes of that, and after it, changes nothing.
    pub fn note_end(&mut self) {
        let at = match (self.down, self.attempt) {
            (Down::Body | Down::Done | Down::Aborted, _) => At::Data,
            (_, Attempt::Queued) if self.waiter.is_some() => At::Queue,
            (_, Attempt::Queued) => At::Request,
            (_, Attempt::Connecting) => At::Connect,
            (_, Attempt::Sending | Attempt::Receiving | Attempt::Ended) => At::Answer,
        };
        self.ended_at.get_or_insert(at);
    }
    /// Our own answer is queued: it is the whole response.
    pub fn answer_own(&mut self) {
        self.down_framing = Framing::None;
        self.enter_down(Down::Done);
    }
    /// What was taken of the body is held, all of it.
    pub fn holds_body(&self) -> bool {
        self.hold_limit > 0
    }
    /// Everything of the request so far can be sent again.
    pub fn is_replayable(&self) -> bool {
        !self.body_taken || self.holds_body()
    }
    /// Both halves are over.
    pub fn is_over(&self) -> bool {
        self.up.is_over() && self.down.is_over()
    }
    /// Whether the body's framing still lets the rest of it be skipped cheaply, to keep the connection.
    pub fn rest_is_small(&self) -> bool {
        match self.up {
            Up::Done => true,
            Up::Aborted => false,
            _ => {
                self.up_decoder.is_done()
                    || self.up_decoder.remaining().is_some_and(|n| n <= crate::limits::DRAIN_BYTES)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_reaches_its_end() {
        for up in Up::ALL {
            assert!(up.is_over() || up.may_become(Up::Aborted), "{up:?}");
        }
        for down in Down::ALL {
            assert!(down.is_over() || down.may_become(Down::Aborted), "{down:?}");
        }
        for attempt in Attempt::ALL {
            assert!(attempt == Attempt::Ended || attempt.may_become(Attempt::Ended), "{attempt:?}");
        }
    }

    #[test]
    fn impossible_pairs_are_listed() {
        let impossible = Up::ALL
            .iter()
            .flat_map(|u| Down::ALL.iter().map(move |d| (*u, *d)))
            .filter(|(u, d)| !is_possible(*u, *d));
        assert_eq!(impossible.count(), 5);
    }
}
