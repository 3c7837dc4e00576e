//! Having a request answered: choose an endpoint, take an idle link or connect, and try elsewhere where that is allowed.

use super::{Attempt, Down, Exchange, Up, beside};
use crate::cluster::balance::Hint;
use crate::cluster::outcome::Outcome;
use crate::cluster::{PickError, Tried};
use crate::core::Core;
use crate::fault::Refusal;
use crate::io::{Expect, Io, Mono};
use crate::limits;
use crate::link::{self, Link, Owner};
use crate::spec::{ClusterId, EndpointId};
use crate::table::Id;

/// What to do after an attempt was begun or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// A link is leased: send the request on it.
    Send,
    /// A connect is under way.
    Wait,
    /// Every endpoint that is left is full, or others wait already: [`wait`] for a place.
    Queue,
    /// No endpoint is left, or the request must not be repeated: answer this.
    Refuse(Refusal),
    /// The same, but an endpoint has answered before: pass that on.
    Respond,
}

/// Picks that may find their endpoint's last place taken by another shard before the request waits.
const LOST_RACES: u32 = 4;

/// Begins the next attempt of an exchange. The first does not overtake those who wait.
pub fn start(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) -> Step {
    let first = core.exchanges.get(id).filter(|x| x.attempts == 0).and_then(|x| x.cluster);
    if let Some(cluster) = first {
        let now = core.now();
        if let Some(budget) = core.cluster_mut(cluster).and_then(|runtime| runtime.budget.as_mut()) {
            budget.on_request(now);
        }
        if link::queue::is_ahead(core, cluster) {
            return Step::Queue;
        }
    }
    begin(core, io, id, None)
}

/// As [`start`], for an exchange that waits and whose turn it is. [`Step::Queue`] says that it waits on.
pub fn resume(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) -> Step {
    begin(core, io, id, None)
}

/// Waits for a place.
pub fn wait(core: &mut Core, id: Id<Exchange>) -> Result<(), Refusal> {
    let Some(x) = core.exchanges.get(id) else { return Err(Refusal::NoEndpoint) };
    let (Some(cluster), Some(timeouts)) = (x.cluster, x.timeouts) else { return Err(Refusal::NoEndpoint) };
    let (eager, failure) = (x.tried.is_empty(), x.failure);
    debug_assert!(x.waiter.is_none(), "an exchange waits once");
    let joined = link::queue::join(core, Owner::Exchange(id), cluster, eager, timeouts.queue);
    match joined {
        Ok(waiter) => {
            if let Some(x) = core.exchanges.get_mut(id) {
                x.waiter = Some(waiter);
            }
            Ok(())
        }
        Err(Refusal::EndpointsFull) => Err(failure.unwrap_or(Refusal::EndpointsFull)),
        Err(refusal) => Err(refusal),
    }
}

/// No longer waits for a place, if it did.
pub fn end_wait(core: &mut Core, id: Id<Exchange>) {
    let Some(waiter) = core.exchanges.get_mut(id).and_then(|x| x.waiter.take()) else { return };
    let waited = u32::try_from(link::queue::leave(core, waiter)).unwrap_or(u32::MAX);
    if let Some(x) = core.exchanges.get_mut(id) {
        x.queue_us = Some(x.queue_us.unwrap_or(0).saturating_add(waited));
    }
}

/// `picked` is an endpoint that was picked already, with a running request counted on it.
pub(super) fn begin(
    core: &mut Core,
    io: &mut impl Io,
    id: Id<Exchange>,
    mut picked: Option<EndpointId>,
) -> Step {
    let mut lost_races = 0;
    loop {
        let Some(x) = core.exchanges.get_mut(id) else { return Step::Refuse(Refusal::NoEndpoint) };
        let failure = x.failure;
        let (Some(cluster), Some(timeouts)) = (x.cluster, x.timeouts) else {
            return Step::Refuse(Refusal::NoEndpoint);
        };
        if u32::from(x.attempts) >= limits::CONNECT_ATTEMPTS {
            if let Some(endpoint) = picked {
                end_request(core, id, (cluster, endpoint), Outcome::Unknown);
            }
            return Step::Refuse(failure.unwrap_or(Refusal::ConnectFailed));
        }
        let (tried, fresh, avoid) = (x.tried, x.fresh, x.avoid);
        let choice = match picked.take() {
            Some(endpoint) => Ok(endpoint),
            None => pick(core, id, &tried),
        };
        let endpoint = match choice {
            Ok(endpoint) => endpoint,
            Err(_) if fresh && avoid => {
                // Nothing else may be had: the endpoint of the stale link is as good as it was, over a new connection.
                if let Some(x) = core.exchanges.get_mut(id) {
                    x.avoid = false;
                    x.tried = Tried::NONE;
                }
                continue;
            }
            Err(PickError::Full) => return Step::Queue,
            Err(PickError::NoEndpoint) => return Step::Refuse(failure.unwrap_or(Refusal::NoEndpoint)),
            // Perhaps this request's own failure opened it: then that is what it is told of.
            Err(PickError::CircuitOpen) => return Step::Refuse(failure.unwrap_or(Refusal::CircuitOpen)),
        };
        let at = (cluster, endpoint);
        // While receives wait for buffers, an idle link may hold bytes that nobody has seen (threat F22).
        let trusted = !fresh && io.starved() == 0;
        if trusted && let Some(taken) = link::pool::take(core, cluster, endpoint) {
            lease(core, id, taken, endpoint);
            return Step::Send;
        }
        match connect(core, io, at, id, timeouts.connect) {
            Ok(()) => return Step::Wait,
            Err(Refusal::EndpointsFull)
                if fresh && let Some(taken) = link::pool::take(core, cluster, endpoint) =>
            {
                // A pooled link that may be dead is better than none.
                lease(core, id, taken, endpoint);
                return Step::Send;
            }
            Err(Refusal::EndpointsFull) => {
                end_request(core, id, at, Outcome::Unknown);
                lost_races += 1;
                // An idle link that must not be used holds the place that a new one could have.
                if link::pool::close_oldest_to(core, io, cluster, endpoint) || lost_races == LOST_RACES {
                    return Step::Queue;
                }
            }
            Err(refusal) => {
                end_request(core, id, at, refusal.into());
                let Some(x) = core.exchanges.get_mut(id) else { return Step::Refuse(refusal) };
                x.failure = Some(refusal);
                x.attempts += 1;
                x.tried.add(endpoint);
                if matches!(refusal, Refusal::DescriptorsExhausted | Refusal::MemoryExhausted) {
                    core.lacks_descriptors = true;
                }
            }
        }
    }
}

/// An endpoint for an exchange that is none of `tried`, with a running request counted on it.
pub(super) fn pick(core: &mut Core, id: Id<Exchange>, tried: &Tried) -> Result<EndpointId, PickError> {
    let (now, who) = (core.now(), Owner::Exchange(id).number());
    let Some(x) = core.exchanges.get(id) else { return Err(PickError::NoEndpoint) };
    let (conn, cluster, hint) = (x.conn, x.cluster, Hint { now, who, ..x.hint });
    let Some(runtime) = cluster.and_then(|cluster| core.cluster_mut(cluster)) else {
        return Err(PickError::NoEndpoint);
    };
    let picked = runtime.state.pick(tried, hint);
    if runtime.state.has_trials() && core.conns.get(conn).is_some_and(|conn| conn.stream.is_eof()) {
        on_client_finished(core, id);
    }
    picked
}

/// The client has finished sending and may be gone, which its answer will not be: if this is a breaker's trial, the next
/// request may try beside it.
pub fn on_client_finished(core: &mut Core, id: Id<Exchange>) {
    let now = core.now();
    let cluster = core.exchanges.get(id).and_then(|x| x.cluster);
    if let Some(runtime) = cluster.and_then(|cluster| core.cluster_mut(cluster))
        && runtime.state.has_trials()
    {
        runtime.state.yield_trials(Owner::Exchange(id).number(), now);
    }
}

fn lease(core: &mut Core, id: Id<Exchange>, taken: Id<Link>, endpoint: EndpointId) {
    let now = core.now();
    core.stats.links_reused.add(1);
    if let Some(link) = core.links.get_mut(taken) {
        link.owner = Owner::Exchange(id);
    }
    if let Some(x) = core.exchanges.get_mut(id) {
        x.attempts += 1;
        x.link = Some(taken);
        x.endpoint = Some(endpoint);
        x.pooled = true;
        x.attempt_since = now;
        x.enter_attempt(Attempt::Sending);
    }
}

fn connect(
    core: &mut Core,
    io: &mut impl Io,
    at: (ClusterId, EndpointId),
    id: Id<Exchange>,
    timeout: std::time::Duration,
) -> Result<(), Refusal> {
    let now = core.now();
    let link = link::connect::begin(core, io, at, Owner::Exchange(id), timeout)?;
    if let Some(x) = core.exchanges.get_mut(id) {
        x.attempts += 1;
        x.link = Some(link);
        x.endpoint = Some(at.1);
        x.pooled = false;
        x.attempt_since = now;
        x.connected = None;
        x.enter_attempt(Attempt::Connecting);
    }
    Ok(())
}

/// Gives the running-request slot back, and says how the attempt at the endpoint went.
pub(super) fn end_request(core: &mut Core, id: Id<Exchange>, at: (ClusterId, EndpointId), outcome: Outcome) {
    link::report(core, Owner::Exchange(id), at, outcome);
    link::queue::end_request(core, at.0, at.1);
}

/// The connect of the attempt's link was made: the request may be sent.
pub fn on_connected(core: &mut Core, id: Id<Exchange>) {
    let now = core.now();
    if let Some(x) = core.exchanges.get_mut(id) {
        x.connected = Some(now);
        x.enter_attempt(Attempt::Sending);
    }
}

/// The head of the response came: tells the cluster's policy how long that took from when the link was there; and if this
/// attempt is a breaker's trial, that decides it.
pub fn on_head(core: &mut Core, id: Id<Exchange>) {
    let now = core.now();
    // One that was put aside, and is passed on after all, was told of when it came.
    let Some(x) = core.exchanges.get(id).filter(|x| x.repeats < u8::MAX) else { return };
    let (Some(cluster), Some(endpoint), status) = (x.cluster, x.endpoint, x.response.status) else { return };
    let since = x.connected.filter(|_| !x.pooled).unwrap_or(x.attempt_since);
    if let Some(runtime) = core.cluster_mut(cluster) {
        runtime.state.observe(endpoint, now.since(since), now);
        runtime.state.decide(endpoint, Owner::Exchange(id).number(), Outcome::Answered(status), now);
    }
}

/// The attempt is over, and whatever is beside it: it waits for nothing, its link is closed and the endpoint's request slot
/// is free. `outcome` is what that says of the endpoint, if it was reached for.
pub fn release(core: &mut Core, io: &mut impl Io, id: Id<Exchange>, outcome: Outcome) {
    end_wait(core, id);
    release_link(core, io, id, outcome);
    beside::drop(core, io, id, Outcome::Unknown);
}

/// Closes the attempt's link, and frees the endpoint's request slot.
pub(super) fn release_link(core: &mut Core, io: &mut impl Io, id: Id<Exchange>, outcome: Outcome) {
    if let Some(link) = detach(core, id, outcome) {
        drop_upload(core, io, id);
        link::close(core, io, link);
    }
}

/// Bytes of the request that are still in a pipe were for the link that is no longer the exchange's.
fn drop_upload(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) {
    if let Some(x) = core.exchanges.get_mut(id) {
        x.up_bulk.drop_pipe(io);
    }
}

/// The response ended cleanly: the link waits for the next exchange, if it may.
pub fn give_back(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) {
    let Some(x) = core.exchanges.get(id) else { return };
    let reusable = x.link_clean && x.response.keep_alive && x.up() == Up::Done;
    let answered = Outcome::Answered(x.response.status);
    let Some(link) = detach(core, id, answered) else { return };
    // What came behind the response without being asked for must not meet the next request (invariant 19, threat F22).
    let reusable = reusable && core.links.get(link).is_some_and(|link| io.ahead(link.stream.fd) == 0);
    drop_upload(core, io, id);
    let sent = core.links.get(link).is_some_and(|l| l.stream.is_drained() && !l.stream.is_eof());
    if reusable && sent {
        link::pool::put(core, io, link);
    } else {
        link::close(core, io, link);
    }
}

/// Takes the link out of the exchange and ends the request at its endpoint.
pub fn detach(core: &mut Core, id: Id<Exchange>, outcome: Outcome) -> Option<Id<Link>> {
    let x = core.exchanges.get_mut(id)?;
    let link = x.link.take()?;
    let (cluster, endpoint) = (x.cluster, x.endpoint);
    if let Some(l) = core.links.get_mut(link) {
        l.owner = Owner::None;
    }
    if let (Some(cluster), Some(endpoint)) = (cluster, endpoint) {
        end_request(core, id, (cluster, endpoint), outcome);
    }
    Some(link)
}

/// Arms the recv for the response, and its deadline.
pub fn await_response(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) {
    time_response(core, id);
    if let Some(link) = core.exchanges.get(id).and_then(|x| x.link) {
        link::arm_recv(core, io, link, Expect::Later);
    }
}

/// The deadline of the response's head runs from the end of the request, and while the client waits for the origin's
/// word (RFC 9110 10.1.1). While a body is on its way those of client and link say who is slow.
pub fn time_response(core: &mut Core, id: Id<Exchange>) {
    let now = core.now();
    let Some(x) = core.exchanges.get(id) else { return };
    let (Some(link), Some(timeouts), Down::Waiting) = (x.link, x.timeouts, x.down()) else { return };
    let asked = x.head.expect_continue && x.interim_count == 0 && !x.body_taken;
    let runs = x.up() == Up::Done || asked;
    let may_hedge = x.may_hedge;
    if let Some(l) = core.links.get_mut(link) {
        l.deadlines.read_by = if runs { now.after(timeouts.response_header) } else { Mono::MAX };
    }
    let hedge_by = if may_hedge { beside::time(core, id) } else { Mono::MAX };
    link::settle_also(core, link, hedge_by);
}

/// The link takes no more: whatever the request lacks, its answer must come soon.
pub fn time_last_words(core: &mut Core, id: Id<Exchange>) {
    let now = core.now();
    let Some(x) = core.exchanges.get(id) else { return };
    let (Some(link), Some(timeouts)) = (x.link, x.timeouts) else { return };
    if let Some(l) = core.links.get_mut(link) {
        l.deadlines.read_by = l.deadlines.read_by.min(now.after(timeouts.response_header));
    }
    link::settle(core, link);
}
