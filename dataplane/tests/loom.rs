//! Every interleaving of the only lock-free code: the mailbox's sleep and wake, and the counts that cross shards.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p dataplane --test loom`; without that cfg there is nothing here.

#![cfg(loom)]

use dataplane::cluster::shared::{SharedCluster, SharedListener};
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

/// While a place is given back another shard may or may not get it, but no count is lost.
#[test]
fn taking_and_giving_back_keep_count() {
    loom::model(|| {
        let cluster = Arc::new(SharedCluster::new(1));
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
        let cluster = Arc::new(SharedCluster::new(0));
        let took =
            on_two_shards(&cluster, |cluster| [cluster.take_pick_ticket(), cluster.take_pick_ticket()]);
        let mut tickets = took.concat();
        tickets.sort_unstable();
        assert_eq!(tickets, [0, 1, 2, 3]);
    });
}

/// One refused link frees one place: exactly one of two shards closes a link for it.
#[test]
fn a_wanted_place_is_freed_by_one_shard() {
    loom::model(|| {
        let cluster = Arc::new(SharedCluster::new(1));
        let endpoint = cluster.endpoint(EndpointId(0)).unwrap();
        assert!(endpoint.try_open_link(1) && !endpoint.try_open_link(1));
        let took = on_two_shards(&cluster, |cluster| {
            cluster.endpoint(EndpointId(0)).is_some_and(|endpoint| endpoint.take_wanted())
        });
        assert!(took[0] != took[1]);
    });
}
