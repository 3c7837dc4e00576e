//! What a process that serves waits for.

use super::reload::{Reloads, Step};
use super::upgrade::{self, Upgrades};
use crate::admin::connections::Lists;
use crate::admin::{Api, Ask};
use crate::health::{Checks, Happened};
use crate::upgrade::Arrival;
use dataplane::plane::{PlaneEvent, ShardEnd};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, sleep_until};

/// What can happen to a process that serves.
#[derive(Debug)]
pub(super) enum Event {
    Shard(u16, ShardEnd),
    /// SIGTERM or SIGQUIT.
    Drain,
    /// SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// A reload goes on.
    Reloads(Step),
    ReopenLogs,
    /// SIGUSR2.
    Upgrade,
    /// An upgrade goes on.
    Upgrades(upgrade::Step),
    /// A connection of the process before this one.
    Arrived(Arrival),
    Tick,
    DrainTimedOut,
    /// Of the active checks.
    Checks(Happened),
    /// Somebody asks, by the admin API.
    Asked(Ask),
    /// Shards may have said which connections they have.
    Lists,
}

pub(super) struct Signals {
    term: Signal,
    quit: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }
}

/// What of the process itself can make an event.
pub(super) struct Own<'a> {
    pub(super) checks: &'a mut Checks,
    pub(super) api: &'a mut Option<Api>,
    pub(super) reloads: &'a mut Reloads,
    pub(super) upgrades: &'a mut Upgrades,
    pub(super) arrivals: &'a mut mpsc::Receiver<Arrival>,
    pub(super) lists: &'a Lists,
    pub(super) drain_until: Option<Instant>,
}

pub(super) async fn next_event(
    shards: &mut mpsc::UnboundedReceiver<PlaneEvent>,
    signals: &mut Signals,
    ticks: &mut Interval,
    own: Own<'_>,
) -> Event {
    let Own { checks, api, reloads, upgrades, arrivals, lists, drain_until } = own;
    let drain_timed_out = async {
        match drain_until {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let asked = async {
        match api {
            Some(api) => api.next().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        Some(PlaneEvent::ShardEnded { shard, how }) = shards.recv() => Event::Shard(shard, how),
        _ = signals.int.recv() => Event::Stop,
        _ = signals.term.recv() => Event::Drain,
        _ = signals.quit.recv() => Event::Drain,
        _ = signals.hup.recv() => Event::Reload,
        _ = signals.usr1.recv() => Event::ReopenLogs,
        _ = signals.usr2.recv() => Event::Upgrade,
        () = drain_timed_out => Event::DrainTimedOut,
        _ = ticks.tick() => Event::Tick,
        step = reloads.next() => Event::Reloads(step),
        step = upgrades.next() => Event::Upgrades(step),
        Some(arrived) = arrivals.recv() => Event::Arrived(arrived),
        // Before questions: checks come at their own pace, and whoever asks without a pause must not hold them up.
        happened = checks.next() => Event::Checks(happened),
        () = lists.next() => Event::Lists,
        Some(ask) = asked => Event::Asked(ask),
    }
}
