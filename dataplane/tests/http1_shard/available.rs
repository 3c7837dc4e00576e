//! What becomes of links and requests when the condition of an endpoint changes under a shard.

use crate::bed::{Answer, Bed, OK, millis, origin_address, say, seconds, wait};
use dataplane::cluster::eligible::{Admin, Health};
use dataplane::conn;
use dataplane::spec::{Cluster, ClusterId, EndpointId};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const ORIGIN: EndpointId = EndpointId(0);
const SPARE: EndpointId = EndpointId(1);

/// A bed whose cluster has a second endpoint, which nobody listens at.
fn with_spare(change: impl FnOnce(&mut Cluster)) -> Bed {
    Bed::new(|_, c| {
        let mut spare = c.endpoints[0].clone();
        (spare.id, spare.name) = (SPARE, "spare".into());
        spare.address = origin_address().with_port(9).into();
        c.endpoints.push(spare);
        change(c);
    })
}

/// As the plane does it: the condition first, then the command.
fn set_health(bed: &mut Bed, endpoint: EndpointId, health: Health) {
    let (shared, now) = (bed.shared.clusters[0].as_ref().expect("the cluster"), bed.now());
    assert!(shared.set_health(endpoint, health, now));
    conn::queue::on_change(&mut bed.shard.core, &mut bed.io, ClusterId(0));
}

/// What is idle is closed, what runs ends well and is not kept, what comes is refused; and back again.
#[test]
fn an_endpoint_goes_down_and_comes_up() {
    let mut bed = Bed::new(|_, _| {});
    let first = bed.client([say(GET)]);
    bed.run_script(first);
    assert_eq!((bed.told(first).as_str(), bed.idle_links()), ("200", 1));
    bed.io.world.answer = Answer::Script(vec![wait(seconds(2)), say(OK)]);
    let running = [bed.client([say(GET)]), bed.client([say(GET)])];
    bed.run_for(millis(10));
    set_health(&mut bed, ORIGIN, Health::Down);
    let late = bed.client([say(GET)]);
    bed.run_for(millis(10));
    assert_eq!((bed.told(late).as_str(), bed.counted().as_str()), ("503", "no_endpoint"));
    assert_eq!(bed.idle_links(), 0);
    bed.run_until("what ran is answered", |bed| bed.stats.responses.get() == 4);
    bed.run_for(millis(10));
    assert_eq!((bed.told(running[0]), bed.told(running[1])), ("200".into(), "200".into()));
    assert!(bed.shard.core.links.is_empty(), "no link is kept to what is down");
    bed.io.world.answer = Answer::Ok;
    set_health(&mut bed, ORIGIN, Health::Up);
    bed.tell(late, [say(GET)]);
    bed.run_script(late);
    assert_eq!((bed.told(late).as_str(), bed.idle_links()), ("503 200", 1));
    [first, running[0], running[1], late].into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
}

/// An idle link is closed as soon as its endpoint is drained, with nobody asking.
#[test]
fn idle_links_to_a_draining_endpoint_are_closed() {
    let mut bed = Bed::new(|_, _| {});
    let client = bed.client([say(GET)]);
    bed.run_script(client);
    assert_eq!(bed.idle_links(), 1);
    let shared = bed.shared.clusters[0].as_ref().expect("the cluster");
    assert!(shared.set_admin(ORIGIN, Admin::Drain, bed.now()));
    conn::queue::on_change(&mut bed.shard.core, &mut bed.io, ClusterId(0));
    bed.run_for(millis(10));
    assert!(bed.shard.core.links.is_empty());
    bed.leave(client);
    bed.check_empty().unwrap();
}

/// Requests wait for a place at the one endpoint that is up; another that comes up takes them at once.
#[test]
fn who_waits_goes_where_something_came_up() {
    let mut bed = with_spare(|c| {
        c.endpoints[0].max_requests = 1;
        c.endpoints[1].address = origin_address().into();
        c.timeouts.queue = seconds(50);
    });
    set_health(&mut bed, SPARE, Health::Down);
    bed.io.world.answer = Answer::Script(vec![wait(seconds(5)), say(OK)]);
    let clients: Vec<usize> = (0..3).map(|_| bed.client([say(GET)])).collect();
    bed.run_for(millis(10));
    assert_eq!(bed.shard.core.waiters.len(), 2);
    set_health(&mut bed, SPARE, Health::Up);
    bed.run_for(millis(10));
    assert_eq!(bed.shard.core.waiters.len(), 0);
    bed.run_until("all are answered", |bed| bed.stats.responses.get() == 3);
    bed.run_for(millis(10));
    for client in clients {
        assert_eq!(bed.told(client), "200");
        bed.leave(client);
    }
    bed.check_empty().unwrap();
}

/// Requests that wait for a place at a cluster that loses its last endpoint are refused at once.
#[test]
fn who_waits_for_nothing_is_refused() {
    let mut bed = Bed::new(|_, c| {
        c.endpoints[0].max_requests = 1;
        c.timeouts.queue = seconds(50);
    });
    bed.io.world.answer = Answer::Script(vec![wait(seconds(5)), say(OK)]);
    let clients: Vec<usize> = (0..3).map(|_| bed.client([say(GET)])).collect();
    bed.run_for(millis(10));
    assert_eq!(bed.shard.core.waiters.len(), 2);
    set_health(&mut bed, ORIGIN, Health::Down);
    bed.run_for(millis(10));
    assert_eq!((bed.shard.core.waiters.len(), bed.counted().as_str()), (0, "no_endpoint*2"));
    bed.run_until("the first is answered", |bed| bed.stats.responses.get() == 3);
    bed.run_for(millis(10));
    assert_eq!(clients.iter().filter(|client| bed.told(**client) == "200").count(), 1);
    clients.into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
}

/// The primary is dead and nobody knows it yet: the request goes to the backup.
#[test]
fn a_dead_primary_costs_no_answer_while_a_backup_lives() {
    let mut bed = with_spare(|c| {
        c.endpoints[0].priority = 1;
        c.timeouts.queue = seconds(50);
    });
    let client = bed.client([say(GET)]);
    bed.run_script(client);
    assert_eq!((bed.told(client).as_str(), bed.stats.connect_failures.get()), ("200", 1));
    bed.leave(client);
    bed.check_empty().unwrap();
}
