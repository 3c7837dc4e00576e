//! Every interleaving of the only lock-free code: the mailbox's sleep and wake, and the counts that cross shards.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p dataplane --test loom`; without that cfg there is nothing here.

#![cfg(loom)]

use dataplane::cluster::balance::Hint;
use dataplane::cluster::eligible::{Admin, Breaker, Health};
use dataplane::cluster::events::{Event, Events, Failed, What};
use dataplane::cluster::outcome::Outcome;
use dataplane::cluster::shared::{SharedCluster, SharedListener, SharedLoads};
use dataplane::cluster::{ClusterState, Tried};
use dataplane::io::{Mono, SocketAddress};
use dataplane::shard::mailbox::mailbox;
use dataplane::spec::{
    BreakerOf, CircuitBreaker, Cluster, ClusterId, Endpoint, EndpointId, Outlier, Statuses,
};
use loom::sync::{Arc, Notify};
use loom::thread;

/// Runs `work` on two threads at once and returns what each said.
fn on_two_shards<S, R>(shared: &Arc<S>, work: fn(&S) -> R) -> [R; 2]
where
    S: Send + Sync + 'static,
    R: Send + 'static,
{
    let start = || {
        let shared = shared.clone();
        thread::spawn(move || work(&shared))
    };
    [start(), start()].map(|shard| shard.join().unwrap())
}

/// A lost wake-up would leave the receiver asleep for ever, which loom reports as a deadlock.
#[test]
fn a_sleeping_receiver_is_woken_for_every_message() {
    loom::model(|| {
        let bell = Arc::new(Notify::new());
        let ring = bell.clone();
        let (mut sender, mut receiver) = mailbox(2, move || ring.notify());
        let control = thread::spawn(move || {
            for message in 0..2 {
                assert_eq!(sender.send(message), Ok(()));
            }
        });
        let mut received = 0;
        while received < 2 {
            if let Some(message) = receiver.receive() {
                assert_eq!(message, received);
                received += 1;
            } else if receiver.fall_asleep() {
                bell.wait();
                receiver.wake_up();
            }
        }
        assert_eq!(receiver.receive(), None);
        control.join().unwrap();
    });
}

/// A full mailbox gives the message back; what it took arrives.
#[test]
fn a_full_mailbox_loses_nothing() {
    loom::model(|| {
        let (mut sender, mut receiver) = mailbox(1, || ());
        let control = thread::spawn(move || (0..2).filter(|&message| sender.send(message).is_ok()).count());
        let early = receiver.receive().is_some();
        let sent = control.join().unwrap();
        let late = std::iter::from_fn(|| receiver.receive()).count();
        assert_eq!(usize::from(early) + late, sent);
        assert!(sent >= 1);
    });
}

/// Two shards want the last place: exactly one gets it, and once it is given back it can be had again.
#[test]
fn a_limit_is_never_exceeded_and_is_reached() {
    loom::model(|| {
        let listener = Arc::new(SharedListener::new(1));
        assert!(listener.try_open(2));
        let opened = on_two_shards(&listener, |listener| {
            let opened = listener.try_open(2);
            assert!(listener.open() <= 2);
            opened
        });
        assert!(opened[0] != opened[1]);
        listener.close();
        assert!(listener.try_open(2) && !listener.try_open(2));
    });
}

/// Two shards hand something to a third, which meanwhile shuts: once it is shut and finds its load at 0, nothing is on its
/// way to it; and both never count in on the sight of one load.
#[test]
fn nothing_is_on_its_way_to_an_empty_shut_shard() {
    loom::model(|| {
        let loads = Arc::new(SharedLoads::new(3));
        let shard = {
            let loads = loads.clone();
            thread::spawn(move || {
                loads.shut(0);
                loads.get(0)
            })
        };
        let handed = on_two_shards(&loads, |loads| loads.try_hand(0, 0));
        let at_shut = shard.join().unwrap();
        assert!(!(handed[0] && handed[1]), "both saw 0");
        assert_eq!(loads.get(0), at_shut, "counted in after it was shut");
        assert_eq!(at_shut, u32::from(handed[0] || handed[1]));
    });
}

/// While a place is given back another shard may or may not get it, but no count is lost.
#[test]
fn taking_and_giving_back_keep_count() {
    loom::model(|| {
        let cluster = Arc::new(SharedCluster::new(1, 2));
        let took = on_two_shards(&cluster, |cluster| {
            let endpoint = cluster.endpoint(EndpointId(0)).unwrap();
            let took = endpoint.try_start(1);
            if took {
                assert_eq!(endpoint.running_requests(), 1);
                endpoint.end();
            }
            took
        });
        assert!(took[0] || took[1], "the place was free");
        let endpoint = cluster.endpoint(EndpointId(0)).unwrap();
        assert_eq!(endpoint.running_requests(), 0);
        assert!(endpoint.try_start(1) && !endpoint.try_start(1));
    });
}

/// Each pick has a number of its own, and none is left out.
#[test]
fn tickets_are_each_taken_once() {
    loom::model(|| {
        let cluster = Arc::new(SharedCluster::new(0, 2));
        let took =
            on_two_shards(&cluster, |cluster| [cluster.take_pick_ticket(), cluster.take_pick_ticket()]);
        let mut tickets = took.concat();
        tickets.sort_unstable();
        assert_eq!(tickets, [0, 1, 2, 3]);
    });
}

/// One shard frees the only place while another begins to wait for it: at least one of them sees the other, so that the
/// place is not left free with somebody waiting.
#[test]
fn a_place_and_a_waiter_do_not_miss_each_other() {
    loom::model(|| {
        let cluster = Arc::new(SharedCluster::new(1, 2));
        assert!(cluster.endpoint(EndpointId(0)).unwrap().try_open_link(1));
        let freer = {
            let cluster = cluster.clone();
            thread::spawn(move || {
                cluster.endpoint(EndpointId(0)).unwrap().close_link();
                cluster.meet();
                cluster.has_waiters()
            })
        };
        assert!(cluster.try_wait(1, true, 8));
        cluster.meet();
        let sees_place = cluster.endpoint(EndpointId(0)).unwrap().open_links() == 0;
        let sees_waiter = freer.join().unwrap();
        assert!(sees_place || sees_waiter);
    });
}

/// The same with an idle link of one shard in place of a free place.
#[test]
fn an_idle_link_and_a_waiter_do_not_miss_each_other() {
    loom::model(|| {
        let cluster = Arc::new(SharedCluster::new(1, 2));
        let holder = {
            let cluster = cluster.clone();
            thread::spawn(move || {
                cluster.endpoint(EndpointId(0)).unwrap().set_idle(0, true);
                cluster.meet();
                cluster.next_waiting() == Some(1)
            })
        };
        assert!(cluster.try_wait(1, true, 8));
        cluster.meet();
        let sees_link = cluster.endpoint(EndpointId(0)).unwrap().idle_after(1) == Some(0);
        assert!(holder.join().unwrap() || sees_link);
    });
}

/// Two places become free at once on two shards while a third and a fourth wait: each is given its own turn.
#[test]
fn two_turns_go_to_two_shards() {
    loom::model(|| {
        let cluster = Arc::new(SharedCluster::new(0, 2));
        assert!(cluster.try_wait(0, true, 8) && cluster.try_wait(1, true, 8));
        let turns = on_two_shards(&cluster, |cluster| cluster.take_turn());
        assert!(turns[0] != turns[1], "{turns:?}");
    });
}

/// The bound of a queue holds, and what left it may come again.
#[test]
fn a_queue_is_bounded() {
    loom::model(|| {
        let cluster = Arc::new(SharedCluster::new(0, 2));
        assert!(cluster.try_wait(0, false, 2));
        let joined = on_two_shards(&cluster, |cluster| {
            let joined = cluster.try_wait(1, true, 2);
            assert!(cluster.waiters() <= 2);
            joined
        });
        assert!(joined[0] != joined[1]);
        cluster.end_wait(1, true, true);
        assert!(
            !cluster.is_queue_eager() && cluster.next_waiting() == Some(0) && cluster.try_wait(1, true, 2)
        );
    });
}

/// A cluster of so many endpoints with weight, half of which may be ejected, each after one failure; with breakers that open
/// after one and are half-open at once.
fn rules(endpoints: u16) -> Cluster {
    let address = |n| SocketAddress::new([127, 0, 0, 1].into(), 9000 + n).into();
    let endpoints = (0..endpoints).map(|n| Endpoint::new(EndpointId(n), "e", address(n))).collect();
    let second = std::time::Duration::from_secs(1);
    let outlier = Outlier {
        consecutive_failures: 1,
        failure_rate: None,
        minimum_volume: 1,
        window: second,
        ejection_time: second,
        max_ejection_time: second,
        max_ejected_percent: 50,
        failure_status: Statuses::SERVER_ERRORS,
    };
    let breaker = CircuitBreaker {
        of: BreakerOf::Cluster,
        failure_threshold: 1,
        recovery_timeout: std::time::Duration::ZERO,
        trial_timeout: second,
        failure_status: Statuses::SERVER_ERRORS,
    };
    let cluster = Cluster::new(ClusterId(0), "c", endpoints);
    Cluster { outlier: Some(outlier), circuit_breaker: Some(breaker), ..cluster }
}

/// Two say something of one endpoint at once: neither word is lost, and whoever sees the version of both sees both.
#[test]
fn what_is_said_of_an_endpoint_is_announced() {
    loom::model(|| {
        let (cluster, spec) = (Arc::new(SharedCluster::new(1, 2)), rules(1));
        let operator = {
            let cluster = cluster.clone();
            thread::spawn(move || assert!(cluster.set_admin(EndpointId(0), Admin::Drain, Mono(1))))
        };
        let checks = {
            let cluster = cluster.clone();
            thread::spawn(move || assert!(cluster.set_health(EndpointId(0), Health::Down, Mono(1))))
        };
        let seen = |cluster: &SharedCluster| {
            let condition = cluster.condition(&spec, EndpointId(0), Mono(1)).unwrap();
            (condition.admin, condition.health)
        };
        if cluster.version() == 2 {
            assert_eq!(seen(&cluster), (Admin::Drain, Health::Down));
        }
        operator.join().unwrap();
        checks.join().unwrap();
        assert_eq!((cluster.version(), seen(&cluster)), (2, (Admin::Drain, Health::Down)));
    });
}

/// Two shards eject two endpoints of which one may be out: one is, and its place comes back with it.
#[test]
fn no_more_endpoints_are_ejected_than_may_be() {
    loom::model(|| {
        let (cluster, spec) = (Arc::new(SharedCluster::new(2, 2)), rules(2));
        let eject = |id| {
            let (cluster, spec) = (cluster.clone(), spec.clone());
            thread::spawn(move || {
                let rules = spec.outlier.as_ref().unwrap();
                cluster.eject(&spec, rules, EndpointId(id), Failed::InARow(1), Mono(5))
            })
        };
        let ejected = [eject(0), eject(1)].map(|shard| shard.join().unwrap());
        assert!(ejected[0] != ejected[1], "{ejected:?}");
        let out = |id| cluster.ejected_until(EndpointId(id), Mono(5)).is_some();
        assert_eq!([out(0), out(1)], ejected);
        assert!(cluster.set_health(EndpointId(u16::from(ejected[1])), Health::Up, Mono(6)));
        let rules = spec.outlier.as_ref().unwrap();
        assert!(cluster.eject(&spec, rules, EndpointId(0), Failed::InARow(1), Mono(6)));
        assert!(!cluster.eject(&spec, rules, EndpointId(1), Failed::InARow(1), Mono(6)));
    });
}

/// An endpoint whose time is over is written down as readmitted while it is ejected anew: it is out or not, and the places
/// are counted right either way.
#[test]
fn readmission_and_ejection_keep_count() {
    loom::model(|| {
        let (events, spec) = (std::sync::Arc::new(Events::with_slots(4)), rules(2));
        let cluster = Arc::new(SharedCluster::of(&spec, 2, events.clone()));
        let rules = spec.outlier.unwrap();
        assert!(cluster.eject(&spec, &rules, EndpointId(0), Failed::InARow(1), Mono(0)));
        let late = Mono(2_000_000_000);
        let control = {
            let (cluster, spec) = (cluster.clone(), spec.clone());
            thread::spawn(move || cluster.settle(&spec, late))
        };
        let again = cluster.eject(&spec, &rules, EndpointId(0), Failed::InARow(1), late);
        control.join().unwrap();
        let out = cluster.ejected_until(EndpointId(0), late).is_some();
        assert!(out == again);
        let told = std::iter::from_fn(|| events.pop()).filter(|event| event.what == What::Readmitted).count();
        assert_eq!(told, 1, "by whoever was first");
        // One place there is: whoever is not out can have it, and nobody beside who is.
        assert!(cluster.eject(&spec, &rules, EndpointId(1), Failed::InARow(1), late) != out);
    });
}

/// Two shards pick at a half-open breaker: one of them tries, and what it finds is what becomes of the breaker.
#[test]
fn one_shard_tries() {
    let mut builder = loom::model::Builder::new();
    // Enough for a race of two and its loser's second look.
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let spec = std::sync::Arc::new(rules(1));
        let shared = std::sync::Arc::new(SharedCluster::new(1, 2));
        let state = |shard| ClusterState::new(spec.clone(), shared.clone(), shard, 1);
        let mut first = state(0);
        let hint = |who| Hint { now: Mono(10), who, ..Hint::default() };
        let id = first.pick(&Tried::NONE, hint(1)).unwrap();
        first.report(id, 1, Outcome::ConnectFailed, Mono(10));
        first.end_request(id);
        let pick = |mut state: ClusterState, who| {
            thread::spawn(move || {
                let picked = state.pick(&Tried::NONE, hint(who));
                (picked.is_ok(), state)
            })
        };
        let (one, other) = (pick(first, 2), pick(state(1), 3));
        let ((one, mut first), (other, mut second)) = (one.join().unwrap(), other.join().unwrap());
        assert!(one != other, "{one} {other}");
        let (state, who) = if one { (&mut first, 2) } else { (&mut second, 3) };
        state.report(id, who, Outcome::Answered(200), Mono(11));
        assert_eq!(shared.breaker(&spec, Mono(11)).0, Breaker::Closed);
    });
}

/// A trial that ends as its time does: whoever writes first has the say, and the breaker is one or the other.
#[test]
fn a_late_trial_and_its_silence_do_not_both_count() {
    loom::model(|| {
        let spec = std::sync::Arc::new(rules(1));
        let shared = std::sync::Arc::new(SharedCluster::new(1, 2));
        let mut state = ClusterState::new(spec.clone(), shared.clone(), 0, 1);
        let hint = |who| Hint { now: Mono(10), who, ..Hint::default() };
        let id = state.pick(&Tried::NONE, hint(1)).unwrap();
        state.report(id, 1, Outcome::ConnectFailed, Mono(10));
        state.end_request(id);
        assert_eq!(state.pick(&Tried::NONE, hint(2)), Ok(id));
        let late = Mono(1_000_000_010);
        let control = {
            let (spec, shared) = (spec.clone(), shared.clone());
            thread::spawn(move || shared.settle(&spec, late))
        };
        // Its own clock is a little behind.
        state.report(id, 2, Outcome::Answered(200), Mono(late.0 - 1));
        control.join().unwrap();
        let breaker = shared.breaker(&spec, late).0;
        assert!(matches!(breaker, Breaker::Closed | Breaker::HalfOpen), "{breaker:?}");
    });
}

/// Two shards tell something while control reads: what is read is whole and comes once, and the rest comes later.
#[test]
fn events_are_whole_and_come_once() {
    loom::model(|| {
        let events = Arc::new(Events::with_slots(2));
        let event =
            |n: u16| Event { cluster: ClusterId(n), endpoint: None, what: What::Closed, at: Mono(n.into()) };
        let tell = |n| {
            let events = events.clone();
            thread::spawn(move || events.push(event(n)))
        };
        let shards = [tell(1), tell(2)];
        let mut read: Vec<_> = events.pop().into_iter().collect();
        shards.into_iter().for_each(|shard| shard.join().unwrap());
        read.extend(std::iter::from_fn(|| events.pop()));
        read.sort_by_key(|event| event.at);
        assert_eq!((read, events.lost()), (vec![event(1), event(2)], 0));
    });
}
