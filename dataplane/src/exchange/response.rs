//! The response half: reads what the link delivered, piece by piece. Its conn writes each piece to the client.

use super::{Attempt, Down, Exchange, Up, again, attempt, replay};
use crate::buf::{Class, Lease, Pool};
use crate::cluster::ClusterState;
use crate::core::Core;
use crate::fault::Refusal;
use crate::limits;
use crate::proto::http1::{BodyDecoder, Parsed, StickyEdits, parse_response};
use crate::proto::{Framing, Version};
use crate::table::Id;

/// The next piece of a response.
#[derive(Debug)]
pub enum Next {
    /// Nothing more in what was received.
    NeedMore,
    /// An interim (1xx) head stands at the front of `link_rx`.
    Interim,
    /// The final head stands there: [`accept`] it, or another attempt follows.
    Head,
    /// A 101 to an upgrade that the client asked for stands there.
    Upgraded,
    /// A piece of the body (none where framing only was read), and whether the body ends with it.
    Data(Option<Lease>, bool),
    /// The origin broke the rules before its head was passed on, or after (`Down::Body`).
    Failed(Refusal),
}

/// The link delivered bytes: they join what is there.
pub fn receive(core: &mut Core, id: Id<Exchange>, lease: Lease) -> Result<(), Refusal> {
    let now = core.now();
    let Core { pool, exchanges, .. } = core;
    let Some(x) = exchanges.get_mut(id) else {
        pool.give_back(lease);
        return Ok(());
    };
    let mut timed = false;
    if x.attempt() == Attempt::Sending {
        x.enter_attempt(Attempt::Receiving);
        x.first_byte = Some(now);
        timed = x.timed;
    }
    let joined = join(pool, x.link_rx.take(), lease);
    let held = joined.is_some();
    x.link_rx = joined;
    if timed {
        let (cluster, took) = (x.cluster, now.since(x.sent));
        again::time(core, cluster, took);
    }
    // The head's bound is the scanner's: what does not fit here found no buffer.
    if held { Ok(()) } else { Err(Refusal::BuffersExhausted) }
}

/// One contiguous lease of two (invariant 17); both are given back where no class holds them.
pub fn join(pool: &mut Pool, first: Option<Lease>, second: Lease) -> Option<Lease> {
    let Some(mut first) = first else { return Some(second) };
    if first.spare() >= second.len() {
        pool.append_lease(&mut first, &second);
        pool.give_back(second);
        return Some(first);
    }
    let larger = Class::for_bytes(first.len() + second.len()).and_then(|class| pool.take(class));
    let result = larger.map(|mut joined| {
        pool.append_lease(&mut joined, &first);
        pool.append_lease(&mut joined, &second);
        joined
    });
    pool.give_back(first);
    pool.give_back(second);
    result
}

/// Reads the next piece out of what was received.
pub fn next(core: &mut Core, id: Id<Exchange>) -> Next {
    let Core { pool, exchanges, .. } = core;
    let Some(x) = exchanges.get_mut(id) else { return Next::NeedMore };
    match x.down() {
        Down::Waiting => {
            let next = next_head(pool, x);
            if matches!(next, Next::Head | Next::Upgraded) {
                attempt::on_head(core, id);
            }
            next
        }
        Down::Body => next_body(pool, x),
        Down::Head | Down::Done | Down::Aborted => Next::NeedMore,
    }
}

fn next_head(pool: &Pool, x: &mut Exchange) -> Next {
    let Some(lease) = &x.link_rx else { return Next::NeedMore };
    let bytes = pool.bytes(lease);
    match parse_response(bytes, &mut x.scan, x.head.method, &mut x.response) {
        Ok(Parsed::Partial) => Next::NeedMore,
        Ok(Parsed::Complete { len }) => {
            x.head_len = len;
            on_head(x)
        }
        Err(refusal) => Next::Failed(refusal),
    }
}

fn on_head(x: &mut Exchange) -> Next {
    match x.response.status {
        101 if x.head.upgrade_websocket && x.response.upgrade_websocket => Next::Upgraded,
        101 => Next::Failed(Refusal::ResponseUnexpectedUpgrade),
        100..=199 => {
            x.interim_count += 1;
            x.interim_bytes = x.interim_bytes.saturating_add(u32::try_from(x.head_len).unwrap_or(u32::MAX));
            if x.interim_count > limits::INTERIM_RESPONSES || x.interim_bytes > limits::INTERIM_BYTES {
                return Next::Failed(Refusal::ResponseTooManyInterim);
            }
            Next::Interim
        }
        _ => Next::Head,
    }
}

/// The final head at the front of `link_rx` is the answer: no other attempt will be made.
pub fn accept(pool: &mut Pool, x: &mut Exchange) {
    settle_framing(x);
    replay::give_up(pool, x);
    x.enter_down(Down::Head);
}

/// How the client will see the body end (RFC 9112 section 6).
fn settle_framing(x: &mut Exchange) {
    x.down_decoder = BodyDecoder::new(x.response.framing);
    x.down_framing = match (x.response.framing, x.head.version) {
        (Framing::None, _) => Framing::None,
        (Framing::Length(n), _) => Framing::Length(n),
        (Framing::Chunked | Framing::UntilClose, Version::Http11) => Framing::Chunked,
        (Framing::Chunked | Framing::UntilClose, Version::Http10) => Framing::UntilClose,
    };
    if x.pass_trailers
        && x.head.te_trailers
        && x.response.framing == Framing::Chunked
        && x.down_framing == Framing::Chunked
    {
        x.down_trailers = Some(Box::default());
    }
    // An answer before the whole request was read: the connection is kept only if the rest is soon skipped,
    // and never where the body may or may not follow (threat U02).
    let unread = x.up() != Up::Done && (!x.rest_is_small() || (x.head.expect_continue && !x.body_taken));
    if x.down_framing == Framing::UntilClose || unread {
        x.close_after = true;
    }
}

/// What becomes of the cookie of a cluster whose clients stick to their endpoints: it is set where the client had none, or
/// the endpoint of its own is not to be had. One that merely has no room at this moment keeps its clients.
pub fn sticky<'a>(x: &Exchange, cluster: &'a ClusterState) -> Option<StickyEdits<'a>> {
    let sticky = cluster.spec().sticky.as_ref()?;
    let stays = |id| x.endpoint == Some(id) || !x.tried.contains(id) && cluster.keeps(id);
    let gives = !x.hint.sticky.is_some_and(stays);
    let value = x.endpoint.filter(|_| gives).and_then(|id| sticky.value(id));
    Some(StickyEdits {
        cookie: sticky.cookie.as_bytes(),
        value: value.map(|value| value.as_slice()),
        attributes: sticky.attributes.as_bytes(),
        private: sticky.nocache,
    })
}

/// The head (interim, final or 101) at the front of `link_rx` was written to the client.
pub fn head_taken(pool: &mut Pool, x: &mut Exchange) {
    x.scan = Default::default();
    let Some(mut lease) = x.link_rx.take() else { return };
    lease.advance(x.head_len);
    x.head_len = 0;
    if lease.is_empty() {
        pool.give_back(lease);
    } else {
        x.link_rx = Some(lease);
    }
}

fn next_body(pool: &mut Pool, x: &mut Exchange) -> Next {
    if x.down_decoder.is_done() {
        let clean = x.link_rx.is_none();
        return finish(pool, x, clean);
    }
    let Some(mut lease) = x.link_rx.take() else { return Next::NeedMore };
    let trailers = x.down_trailers.as_deref_mut();
    match x.down_decoder.decode(pool.bytes_mut(&mut lease), trailers) {
        Ok(decoded) => {
            x.link_clean = decoded.end && decoded.consumed == lease.len();
            lease.truncate(decoded.data);
            x.down_bytes += decoded.data as u64;
            if lease.is_empty() {
                pool.give_back(lease);
                return Next::Data(None, decoded.end);
            }
            Next::Data(Some(lease), decoded.end)
        }
        Err(_) => {
            pool.give_back(lease);
            Next::Failed(Refusal::ResponseFramingInvalid)
        }
    }
}

/// A response without a body, or of length 0: its end comes with its head.
fn finish(pool: &mut Pool, x: &mut Exchange, clean: bool) -> Next {
    if let Some(rest) = x.link_rx.take() {
        // Bytes behind the end: whatever they are, they are no answer to anything (threat F22).
        pool.give_back(rest);
    }
    x.link_clean = clean;
    Next::Data(None, true)
}

/// The link ended: whether that is the proper end of a close-delimited body.
pub fn ends_with_close(core: &Core, id: Id<Exchange>) -> bool {
    core.exchanges.get(id).is_some_and(|x| {
        x.down() == Down::Body
            && x.response.framing == Framing::UntilClose
            && x.down_decoder.on_close().is_ok()
    })
}
