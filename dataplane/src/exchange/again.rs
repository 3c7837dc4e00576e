//! When an attempt fails, or its answer counts as failing: whether another follows, and what it costs.

use super::attempt::{Step, begin, pick, release_link, start};
use super::{Attempt, Exchange, Up, beside};
use crate::cluster::outcome::Outcome;
use crate::cluster::retry::{self, Again, Failure};
use crate::core::Core;
use crate::fault::Refusal;
use crate::io::{Io, Mono};
use crate::spec::{ClusterId, EndpointId, Retry, Statuses};
use crate::stats::retries::Retried;
use crate::table::Id;

/// How an attempt was lost before any byte of its response came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    pub failure: Failure,
    /// What the client is told if the request is not tried again.
    pub refusal: Refusal,
}

impl Loss {
    pub fn connect(refusal: Refusal) -> Self {
        Self { failure: Failure::Connect, refusal }
    }
    /// A deadline passed: the origin may be at work on the request.
    pub fn timeout(refusal: Refusal) -> Self {
        Self { failure: Failure::Timeout, refusal }
    }
    pub fn link(refusal: Refusal) -> Self {
        let failure = if refusal == Refusal::OriginReset { Failure::Reset } else { Failure::Closed };
        Self { failure, refusal }
    }
}

/// The policy of an exchange's cluster on second attempts.
pub(super) fn policy<'a>(core: &'a Core, x: &Exchange) -> Option<&'a Retry> {
    let runtime = core.clusters.get(usize::from(x.cluster?.0))?.as_ref()?;
    runtime.state.spec().retry.as_ref()
}

/// What is known of the attempt that ended in `failure`.
fn facts(core: &Core, x: &Exchange, failure: Failure) -> retry::Attempt {
    // A send that is still in flight may have written bytes already.
    let written = x.link.and_then(|l| core.links.get(l)).is_some_and(|l| l.wrote || l.stream.is_sending());
    retry::Attempt {
        failure,
        pooled: x.pooled,
        idempotent: x.head.method.is_idempotent(),
        request_bytes: written,
        response_bytes: match failure {
            Failure::Status(_) => x.interim_count > 0,
            _ => x.attempt() == Attempt::Receiving,
        },
        replayable: x.is_replayable(),
        nested: x.nested,
        attempts: u32::from(x.attempts),
        repeats: u32::from(x.repeats),
    }
}

/// The attempt was lost before any byte of a response. Closes its link and decides what comes next.
pub fn on_lost(core: &mut Core, io: &mut impl Io, id: Id<Exchange>, loss: Loss) -> Step {
    let Some(x) = core.exchanges.get(id) else { return Step::Refuse(loss.refusal) };
    let facts = facts(core, x, loss.failure);
    let mut again = facts.again(policy(core, x));
    let (endpoint, unseen) = (x.endpoint, x.attempt() == Attempt::Sending && !facts.request_bytes);
    // A pooled link that is gone may have been closed long before: it says nothing of the endpoint now.
    let stale = facts.pooled && matches!(loss.failure, Failure::Closed | Failure::Reset);
    release_link(core, io, id, if stale { Outcome::Unknown } else { loss.refusal.into() });
    if let Some(x) = core.exchanges.get_mut(id) {
        x.failure = Some(loss.refusal);
        x.copies -= u8::from(unseen && x.copies > 0);
    }
    if beside::take_over(core, id) {
        return Step::Wait;
    }
    if again != Again::Never && facts.is_paid_for() && !can_pay(core, id) {
        again = Again::Never;
    }
    let Some(x) = core.exchanges.get_mut(id) else { return Step::Refuse(loss.refusal) };
    let step = match again {
        Again::Never if matches!(loss.failure, Failure::Timeout | Failure::Connect) => {
            Step::Refuse(loss.refusal)
        }
        Again::Never => Step::Refuse(facts.refusal()),
        Again::Elsewhere | Again::FreshLink => {
            let stale = again == Again::FreshLink;
            x.fresh |= stale;
            // The link was stale, or its endpoint is dying: another one first, while there is one (threat B02). But whoever
            // sticks to it would lose it for an idle link that was closed: a connect tells the two apart.
            if let Some(endpoint) = endpoint.filter(|_| !stale || endpoint != x.hint.sticky) {
                x.avoid |= stale;
                x.tried.add(endpoint);
            }
            if loss.failure != Failure::Connect {
                send_anew(x);
            }
            x.enter_attempt(Attempt::Queued);
            let step = start(core, io, id);
            let step = or_respond(core, io, id, step);
            on_retried(core, id, step, &facts);
            return step;
        }
    };
    or_respond(core, io, id, step)
}

/// Nothing that was sent counts any more.
fn send_anew(x: &mut Exchange) {
    debug_assert!(x.link_rx.is_none(), "an answer would begin behind another's bytes");
    x.repeats = x.repeats.saturating_add(1);
    x.hedge_by = Mono::MAX;
    x.enter_up(Up::Head);
    // While the next link is reached, the client may be received from.
    x.up_bulk.forget_readable();
}

/// Counts and notes a further attempt, unless it came to nothing, and pays for it.
fn on_retried(core: &mut Core, id: Id<Exchange>, step: Step, facts: &retry::Attempt) {
    if matches!(step, Step::Refuse(_) | Step::Respond) {
        return;
    }
    core.stats.retries.add(1);
    if facts.is_paid_for() {
        pay(core, id);
    }
    note(core, id, facts.why());
}

/// Where nothing else is to be had, what an endpoint answered before is passed on. An exchange that has that does not wait
/// for a place: it holds one.
fn or_respond(core: &mut Core, io: &mut impl Io, id: Id<Exchange>, step: Step) -> Step {
    match step {
        Step::Refuse(_) | Step::Queue if beside::restore(core, io, id) => Step::Respond,
        step => step,
    }
}

/// A final head came and stands at the front of `link_rx`. `None` says that it is the answer; otherwise it was put aside for
/// another attempt, or dropped for a hedge that runs.
pub fn on_answer(core: &mut Core, io: &mut impl Io, id: Id<Exchange>) -> Option<Step> {
    let x = core.exchanges.get(id)?;
    let status = x.response.status;
    if status < Statuses::FIRST {
        return None;
    }
    // Only while all of the request is out: a body that is still being sent would have to be remembered twice.
    if !policy(core, x)?.on.statuses.has(status) || x.up() != Up::Done {
        return None;
    }
    let facts = facts(core, x, Failure::Status(status));
    let again = facts.again(policy(core, x));
    if beside::is_hedged(core, id) {
        // What was going to be done is done already.
        beside::swap(core, io, id);
        return Some(Step::Wait);
    }
    if again == Again::Never || !can_pay(core, id) {
        return None;
    }
    let x = core.exchanges.get(id)?;
    let (mut tried, endpoint) = (x.tried, x.endpoint?);
    tried.add(endpoint);
    // Before anything is given up.
    let picked = pick(core, id, &tried).ok()?;
    beside::put_aside(core, io, id);
    let x = core.exchanges.get_mut(id)?;
    x.tried = tried;
    send_anew(x);
    x.enter_attempt(Attempt::Queued);
    let step = begin(core, io, id, Some(picked));
    let step = or_respond(core, io, id, step);
    on_retried(core, id, step, &facts);
    Some(step)
}

/// What the present attempt's origin says is no answer, and no reason to ask another one. `None` says that there is nothing
/// beside it to take its place.
pub fn on_broken(core: &mut Core, io: &mut impl Io, id: Id<Exchange>, refusal: Refusal) -> Option<Step> {
    core.exchanges.get(id)?.beside?;
    release_link(core, io, id, refusal.into());
    if beside::take_over(core, id) {
        return Some(Step::Wait);
    }
    beside::restore(core, io, id).then_some(Step::Respond)
}

/// Whether a status is one that is tried again.
pub fn is_tried_again(core: &Core, id: Id<Exchange>, status: u16) -> bool {
    let policy = core.exchanges.get(id).and_then(|x| policy(core, x));
    policy.is_some_and(|policy| policy.on.statuses.has(status))
}

/// Whether the budget has one more second attempt. Without a policy there is none to ask.
pub(super) fn can_pay(core: &mut Core, id: Id<Exchange>) -> bool {
    let now = core.now();
    let cluster = core.exchanges.get(id).and_then(|x| x.cluster);
    let budget = cluster.and_then(|cluster| core.cluster_mut(cluster)?.budget.as_mut());
    let can = budget.is_none_or(|budget| budget.has(now));
    if !can {
        note(core, id, Retried::BudgetEmpty);
    }
    can
}

/// A second attempt was begun.
pub(super) fn pay(core: &mut Core, id: Id<Exchange>) {
    let now = core.now();
    let cluster = core.exchanges.get(id).and_then(|x| x.cluster);
    if let Some(budget) = cluster.and_then(|cluster| core.cluster_mut(cluster)?.budget.as_mut()) {
        budget.spend(now);
    }
}

pub(super) fn note(core: &mut Core, id: Id<Exchange>, why: Retried) {
    core.stats.retried(why).add(1);
    let Some(x) = core.exchanges.get_mut(id) else { return };
    x.retried.add(why);
    if let Some(counts) = x.cluster.and_then(|cluster| core.of_cluster(cluster)) {
        counts.cluster.retried(why).add(1);
    }
}

/// An attempt at a cluster took so long to its first byte, nanoseconds.
pub(super) fn time(core: &mut Core, cluster: Option<ClusterId>, took: u64) {
    let now = core.now();
    if let Some(hedge) = cluster.and_then(|cluster| core.cluster_mut(cluster)?.hedge.as_mut()) {
        hedge.record(took, now);
    }
}

/// An attempt at an endpoint was given up for a faster one, when it had been silent for so long, nanoseconds: it would have
/// taken at least that. Who is told of none of them thinks ever better of whoever is slow.
pub(super) fn time_silence(core: &mut Core, (cluster, endpoint): (ClusterId, EndpointId), took: u64) {
    let now = core.now();
    time(core, Some(cluster), took);
    if let Some(runtime) = core.cluster_mut(cluster) {
        runtime.state.observe(endpoint, took, now);
    }
}
