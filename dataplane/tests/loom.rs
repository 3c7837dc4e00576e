//! Every interleaving of the only lock-free code: the mailbox's sleep and wake, and the counts that cross shards.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p dataplane --test loom`; without that cfg there is nothing here.

#![cfg(loom)]

use dataplane::cluster::eligible::{Admin, Health};
use dataplane::cluster::shared::{SharedCluster, SharedListener, SharedLoads};
use dataplane::shard::mailbox::mailbox;
use dataplane::spec::EndpointId;
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
        let listener = Arc::new(SharedListener::new());
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

/// Two say something of one endpoint at once: neither word is lost, and whoever sees the version of both sees both.
#[test]
fn what_is_said_of_an_endpoint_is_announced() {
    loom::model(|| {
        let cluster = Arc::new(SharedCluster::new(1, 2));
        let operator = {
            let cluster = cluster.clone();
            thread::spawn(move || assert!(cluster.set_admin(EndpointId(0), Admin::Drain)))
        };
        let checks = {
            let cluster = cluster.clone();
            thread::spawn(move || assert!(cluster.set_health(EndpointId(0), Health::Down)))
        };
        let version = cluster.version();
        let condition = cluster.endpoint(EndpointId(0)).unwrap().condition();
        if version == 2 {
            assert_eq!((condition.admin, condition.health), (Admin::Drain, Health::Down));
        }
        operator.join().unwrap();
        checks.join().unwrap();
        let condition = cluster.endpoint(EndpointId(0)).unwrap().condition();
        assert_eq!((condition.admin, condition.health), (Admin::Drain, Health::Down));
        assert_eq!(cluster.version(), 2);
    });
}
