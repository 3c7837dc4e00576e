//! A second attempt beside the present one: a hedge that runs, or a response that was put aside for a better one.
//!
//! Both hold a link of their own, and take the place of the present attempt when that fails: the hedge goes on from where
//! it is, the response is passed on as it came. The link's owner says that it is beside; `conn::hedge` hears what it says.

use super::{Attempt, Exchange, Up, again, attempt};
use crate::buf::Lease;
use crate::cluster::outcome::Outcome;
use crate::core::Core;
use crate::io::{Io, Mono};
use crate::link::{self, Link, Owner};
use crate::proto::Framing;
use crate::proto::http1::Scan;
use crate::spec::EndpointId;
use crate::stats::retries::Retried;
use crate::table::Id;

/// What the present attempt has in the exchange itself.
#[derive(Debug)]
pub struct Beside {
    /// None is needed any more for a response that came whole, of which was told then how its attempt went.
    pub link: Option<Id<Link>>,
    pub endpoint: EndpointId,
    pub pooled: bool,
    /// `Connecting`, `Sending`, or, of a response that was put aside, `Receiving`.
    pub attempt: Attempt,
    pub attempt_since: Mono,
    pub connected: Option<Mono>,
    pub sent: Mono,
    pub first_byte: Option<Mono>,
    /// What its link delivered.
    pub rx: Option<Lease>,
    pub scan: Scan,
    /// Interim responses, and their bytes: they are not passed on while it is open whose answer will be.
    pub interim_count: u32,
    pub interim_bytes: usize,
    /// Of a response that was put aside.
    pub status: u16,
}

impl Beside {
    /// It runs; otherwise it is a response.
    pub fn is_hedge(&self) -> bool {
        self.attempt != Attempt::Receiving
    }
}

/// What is beside the attempt of an exchange.
pub fn of(core: &Core, id: Id<Exchange>) -> Option<&Beside> {
    core.besides.get(core.exchanges.get(id)?.beside?)
}
pub fn of_mut(core: &mut Core, id: Id<Exchange>) -> Option<&mut Beside> {
    core.besides.get_mut(core.exchanges.get(id)?.beside?)
}
/// Whether a hedge runs.
pub fn is_hedged(core: &Core, id: Id<Exchange>) -> bool {
    of(core, id).is_some_and(Beside::is_hedge)
}

fn place(core: &mut Core, id: Id<Exchange>, beside: Beside) {
    let Ok(at) = core.besides.insert(beside) else { unreachable!("each exchange has one at most") };
    if let Some(x) = core.exchanges.get_mut(id) {
        debug_assert!(x.beside.is_none(), "two attempts are beside one");
        x.beside = Some(at);
    }
}

fn take(core: &mut Core, id: Id<Exchange>) -> Option<Beside> {
    let at = core.exchanges.get_mut(id)?.beside.take()?;
    core.besides.remove(at)
}

/// When a hedge of the exchange begins, if it may have one: fixed as soon as all of the request is on its way.
pub(super) fn time(core: &mut Core, id: Id<Exchange>) -> Mono {
    let Some(x) = core.exchanges.get(id) else { return Mono::MAX };
    let waits = x.up() == Up::Done && x.attempt() == Attempt::Sending;
    if !waits || x.hedge_by != Mono::MAX {
        return x.hedge_by;
    }
    let (now, cluster) = (core.now(), x.cluster);
    let after = cluster.and_then(|cluster| core.cluster_mut(cluster)?.hedge.as_ref()?.after());
    let by = after.map_or(Mono::MAX, |after| now.after(after));
    if let Some(x) = core.exchanges.get_mut(id) {
        x.hedge_by = by;
    }
    by
}

/// Whether a hedge would be of use now, and is allowed. Asked once for each exchange: it is not may again.
pub fn is_wanted(core: &mut Core, id: Id<Exchange>) -> bool {
    let Some(x) = core.exchanges.get_mut(id) else { return false };
    x.hedge_by = Mono::MAX;
    let able = x.up() == Up::Done
        && x.attempt() == Attempt::Sending
        && x.is_replayable()
        && x.beside.is_none()
        && u32::from(x.attempts) < crate::limits::CONNECT_ATTEMPTS;
    std::mem::take(&mut x.may_hedge) && able && again::can_pay(core, id)
}

/// Picks another endpoint for a hedge, and leases or begins a link to it; false where none is to be had. A leased one is
/// ready to be sent on.
pub fn begin(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) -> bool {
    let now = core.now();
    let Some(x) = core.exchanges.get(id) else { return false };
    let (Some(cluster), Some(timeouts), Some(present)) = (x.cluster, x.timeouts, x.endpoint) else {
        return false;
    };
    let mut tried = x.tried;
    tried.add(present);
    let Ok(endpoint) = attempt::pick(core, id, &tried) else { return false };
    // While receives wait for buffers, an idle link may hold bytes that nobody has seen (threat F22).
    let pooled = if io.starved() == 0 { link::pool::take(core, cluster, endpoint) } else { None };
    let owner = Owner::Beside(id);
    let link = match pooled {
        Some(link) => {
            core.stats.links_reused.add(1);
            if let Some(link) = core.links.get_mut(link) {
                link.owner = owner;
            }
            link
        }
        None => match link::connect::begin(core, io, (cluster, endpoint), owner, timeouts.connect) {
            Ok(link) => link,
            Err(refusal) => {
                attempt::end_request(core, id, (cluster, endpoint), refusal.into());
                return false;
            }
        },
    };
    if let Some(x) = core.exchanges.get_mut(id) {
        x.attempts += 1;
    }
    let hedge = Beside {
        link: Some(link),
        endpoint,
        pooled: pooled.is_some(),
        attempt: if pooled.is_some() { Attempt::Sending } else { Attempt::Connecting },
        attempt_since: now,
        connected: None,
        sent: now,
        first_byte: None,
        rx: None,
        scan: Scan::default(),
        interim_count: 0,
        interim_bytes: 0,
        status: 0,
    };
    place(core, id, hedge);
    again::pay(core, id);
    again::note(core, id, Retried::Hedge);
    true
}

/// The present attempt has the answer: ends what is beside it.
pub fn cancel(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) {
    if core.exchanges.get(id).is_none_or(|x| x.beside.is_none()) {
        return;
    }
    let now = core.now();
    let cluster = core.exchanges.get(id).and_then(|x| x.cluster);
    let silent = of(core, id).filter(|hedge| hedge.attempt == Attempt::Sending);
    if let (Some(cluster), Some(hedge)) = (cluster, silent) {
        let (endpoint, took) = (hedge.endpoint, now.since(hedge.sent));
        again::time_silence(core, (cluster, endpoint), took);
    }
    drop(core, io, id, Outcome::Unknown);
}

/// Ends what is beside the present attempt: its link is closed, its running request given back. `outcome` is what is known of
/// a hedge.
pub fn drop(core: &mut Core, io: &mut impl Io, id: Id<Exchange>, outcome: Outcome) {
    let Some(beside) = take(core, id) else { return };
    let cluster = core.exchanges.get(id).and_then(|x| x.cluster);
    let outcome = if beside.is_hedge() { outcome } else { Outcome::Answered(beside.status) };
    if let Some(rx) = beside.rx {
        core.pool.give_back(rx);
    }
    let Some(link) = beside.link else { return };
    if let Some(l) = core.links.get_mut(link) {
        l.owner = Owner::None;
    }
    if let Some(cluster) = cluster {
        attempt::end_request(core, id, (cluster, beside.endpoint), outcome);
    }
    link::close(core, io, link);
}

/// Puts the response at the front of `link_rx` aside, its head read. One that came whole needs no link any more. What was
/// beside before is dropped: it is older.
pub(super) fn put_aside(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) {
    drop(core, io, id, Outcome::Unknown);
    let Some(x) = core.exchanges.get(id) else { return };
    let body = match x.response.framing {
        Framing::None => Some(0),
        Framing::Length(n) => usize::try_from(n).ok(),
        Framing::Chunked | Framing::UntilClose => None,
    };
    let here = x.link_rx.as_ref().map_or(0, Lease::len);
    let whole = body.and_then(|body| body.checked_add(x.head_len)) == Some(here) && x.response.keep_alive;
    let sent = |l: &Link| l.stream.is_drained() && !l.stream.is_eof();
    let free = whole && x.link.and_then(|l| core.links.get(l)).is_some_and(sent);
    let present = take_present(core, id);
    let (Some(mut present), Some(x)) = (present, core.exchanges.get(id)) else { return };
    let answered = Outcome::Answered(present.status);
    let (link, at) = (present.link, x.cluster.map(|cluster| (cluster, present.endpoint)));
    if free {
        present.link = None;
    }
    place(core, id, present);
    if let Some(l) = link.and_then(|link| core.links.get_mut(link)) {
        // Nobody reads it for now: it is not slow.
        l.deadlines.read_by = Mono::MAX;
        l.deadlines.end_write();
        l.owner = if free { Owner::None } else { Owner::Beside(id) };
    }
    if let (true, Some(link), Some(at)) = (free, link, at) {
        attempt::end_request(core, id, at, answered);
        link::pool::put(core, io, link);
    }
}

/// Takes the present attempt out of an exchange.
fn take_present(core: &mut Core, id: Id<Exchange>) -> Option<Beside> {
    let x = core.exchanges.get_mut(id)?;
    let endpoint = x.endpoint?;
    x.scan = Scan::default();
    x.head_len = 0;
    Some(Beside {
        link: x.link.take(),
        endpoint,
        pooled: x.pooled,
        attempt: x.attempt(),
        attempt_since: x.attempt_since,
        connected: x.connected,
        sent: x.sent,
        first_byte: x.first_byte.take(),
        rx: x.link_rx.take(),
        scan: Scan::default(),
        interim_count: 0,
        interim_bytes: 0,
        status: x.response.status,
    })
}

/// Makes what was beside an exchange's attempt the present one. Nothing of the last one is left.
fn set_present(core: &mut Core, id: Id<Exchange>, beside: Beside) {
    let now = core.now();
    let Core { exchanges, links, pool, .. } = core;
    let Some(x) = exchanges.get_mut(id) else { return };
    debug_assert!(x.link.is_none(), "two attempts are present");
    // What came of an answer is of this attempt alone: another must not begin behind it.
    let answers = beside.attempt == Attempt::Sending && beside.rx.is_some();
    let attempt = if answers { Attempt::Receiving } else { beside.attempt };
    if let Some(old) = std::mem::replace(&mut x.link_rx, beside.rx) {
        pool.give_back(old);
    }
    // Its head is read once more, as that of the present attempt.
    x.scan = Scan::default();
    x.head_len = 0;
    (x.link, x.endpoint, x.pooled) = (beside.link, Some(beside.endpoint), beside.pooled);
    (x.attempt_since, x.connected, x.sent) = (beside.attempt_since, beside.connected, beside.sent);
    x.first_byte = beside.first_byte.or_else(|| answers.then_some(now));
    x.hedge_by = Mono::MAX;
    x.enter_attempt(Attempt::Queued);
    x.enter_attempt(attempt);
    x.enter_up(if attempt == Attempt::Connecting { Up::Head } else { Up::Done });
    if let Some(link) = beside.link.and_then(|link| links.get_mut(link)) {
        link.owner = Owner::Exchange(id);
        x.upstream_local = link.local;
    }
}

/// The present attempt failed, and its link is gone: a hedge that runs becomes it. False where there is none.
pub fn take_over(core: &mut Core, id: Id<Exchange>) -> bool {
    let hedge = if is_hedged(core, id) { take(core, id) } else { None };
    let found = hedge.is_some();
    if let Some(hedge) = hedge {
        note_tried(core, id);
        set_present(core, id, hedge);
    }
    found
}

/// The endpoint of the present attempt failed: no further one goes there.
fn note_tried(core: &mut Core, id: Id<Exchange>) {
    if let Some(x) = core.exchanges.get_mut(id)
        && let Some(endpoint) = x.endpoint
    {
        x.tried.add(endpoint);
    }
}

/// The hedge's answer came first: the present attempt is cancelled.
pub fn win(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) {
    let now = core.now();
    let Some(x) = core.exchanges.get(id) else { return };
    let (cluster, sent, silent) = (x.cluster, x.sent, x.attempt() == Attempt::Sending);
    let at = cluster.zip(x.endpoint);
    attempt::release_link(core, io, id, Outcome::Overtaken);
    if let Some(at) = at.filter(|_| silent) {
        again::time_silence(core, at, now.since(sent));
    }
    let Some(mut hedge) = take(core, id) else { return };
    hedge.attempt = Attempt::Receiving;
    hedge.first_byte = Some(now);
    let took = now.since(hedge.sent);
    set_present(core, id, hedge);
    again::time(core, cluster, took);
    core.stats.hedges_won.add(1);
    if let Some(counts) = cluster.and_then(|cluster| core.of_cluster(cluster)) {
        counts.cluster.hedges_won.add(1);
    }
}

/// The present attempt answered with what is tried again, and a hedge runs: they change places.
pub(super) fn swap(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) {
    let Some(hedge) = take(core, id) else { return };
    note_tried(core, id);
    put_aside(core, io, id);
    set_present(core, id, hedge);
}

/// No attempt did better: a response that was put aside is the present attempt's again, and the answer. False where there
/// is none.
pub fn restore(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) -> bool {
    let response = if is_hedged(core, id) { None } else { take(core, id) };
    let Some(response) = response else { return false };
    attempt::release_link(core, io, id, Outcome::Unknown);
    set_present(core, id, response);
    if let Some(x) = core.exchanges.get_mut(id) {
        x.repeats = u8::MAX;
    }
    true
}
