//! What becomes of links, requests and tunnels when the endpoints of a cluster change under a shard.

use crate::bed::{Answer, Bed, OK, millis, origin_address, say, seconds, wait};
use dataplane::cluster::Tried;
use dataplane::cluster::balance::Hint;
use dataplane::cluster::roster::{Roster, Update};
use dataplane::listener;
use dataplane::route::RouteTable;
use dataplane::shard::swap::{self, Swap};
use dataplane::sim::Owner;
use dataplane::spec::{
    Action, Available, BodyForm, Cluster, ClusterId, Endpoint, EndpointId, ListenAddress, Listener,
    ListenerId, Match, Page, Reply, Route, RouteId, Snapshot, Template,
};
use std::sync::Arc;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Gives the endpoints of the bed's cluster their ids, as control does.
struct Control {
    roster: Roster,
    swaps: u64,
}

impl Control {
    /// The bed's cluster begins with these.
    fn new(names: &[(&str, u16)], change: impl FnOnce(&mut Cluster)) -> (Self, Bed) {
        let mut roster = Roster::default();
        roster.update(endpoints(names), 0, |_, _| true);
        let bed = Bed::new(|_, cluster| {
            cluster.endpoints = roster.endpoints().cloned().collect();
            change(cluster);
        });
        (Self { roster, swaps: 0 }, bed)
    }
    /// The shard goes over to a cluster of these endpoints, which are as `each` makes them.
    fn swap(&mut self, bed: &mut Bed, names: &[(&str, u16)], each: impl Fn(&mut Endpoint)) -> Update {
        self.swaps += 1;
        let shared = bed.shared.clusters[0].clone().expect("the cluster");
        let is_free = |id, _| shared.is_unused(id);
        let wanted = endpoints(names).map(|(entry, mut endpoint)| {
            each(&mut endpoint);
            (entry, endpoint)
        });
        let update = self.roster.update(wanted, self.swaps, is_free);
        change(bed, |next| {
            let cluster = next.clusters[0].as_ref().expect("the cluster");
            next.clusters[0] = Some(Arc::new(self.roster.cluster(cluster)));
        });
        update
    }
}

/// As the plane does it: what is new is shared, then the shard is told.
fn change(bed: &mut Bed, change: impl FnOnce(&mut Snapshot)) {
    let before = bed.shard.core.snapshot.clone();
    let mut next = Snapshot::clone(&before);
    change(&mut next);
    let shared = Arc::new(bed.shared.next(&before, &next, bed.now()));
    let routes = Arc::new(RouteTable::of(&next));
    let mut swap = Swap {
        snapshot: Arc::new(next),
        routes,
        shared: shared.clone(),
        sockets: None,
        drains: Arc::default(),
    };
    swap::begin(&mut bed.shard.core, &mut bed.io, &mut swap);
    assert!(Arc::ptr_eq(&swap.snapshot, &before), "what was before is given back");
    bed.shared = shared;
}

fn endpoints(names: &[(&str, u16)]) -> impl Iterator<Item = (u16, Endpoint)> {
    names.iter().map(|(name, port)| {
        let address = origin_address().with_port(*port);
        (0, Endpoint::new(EndpointId(0), name, address.into()))
    })
}

fn same(_: &mut Endpoint) {}

/// The one origin of the bed.
const ORIGIN: (&str, u16) = ("origin", 9000);
/// Nobody listens there.
const OTHER: (&str, u16) = ("other", 9001);

#[test]
fn what_is_gone_ends_what_it_has_and_gets_nothing_new() {
    let (mut control, mut bed) = Control::new(&[ORIGIN], |_| {});
    let first = bed.client([say(GET)]);
    bed.run_script(first);
    assert_eq!((bed.told(first).as_str(), bed.idle_links()), ("200", 1));
    bed.io.world.answer = Answer::Script(vec![wait(seconds(2)), say(OK)]);
    let running = [bed.client([say(GET)]), bed.client([say(GET)])];
    bed.run_for(millis(10));
    assert_eq!(bed.shard.core.links.len(), 2);
    let idle = bed.client([say(GET)]);
    bed.run_for(millis(10));
    bed.leave(idle);
    assert_eq!(control.swap(&mut bed, &[], same), Update { went: 1, ..Update::default() });
    let late = bed.client([say(GET)]);
    bed.run_for(millis(10));
    assert_eq!(bed.told(late), "503");
    assert!(bed.counted().starts_with("no_endpoint"), "{}", bed.counted());
    bed.run_until("what ran is answered", |bed| bed.stats.responses.get() >= 4);
    bed.run_for(millis(100));
    assert_eq!(running.map(|client| bed.told(client)), ["200", "200"]);
    assert!(bed.shard.core.links.is_empty(), "no link is kept to what is gone");
    bed.io.world.answer = Answer::Ok;
    assert_eq!(control.swap(&mut bed, &[ORIGIN], same), Update { came: 1, ..Update::default() });
    bed.tell(late, [say(GET)]);
    bed.run_script(late);
    assert_eq!((bed.told(late).as_str(), bed.idle_links()), ("503 200", 1));
    assert_eq!(bed.shard.core.snapshot.clusters[0].as_ref().unwrap().endpoints.len(), 1, "its own id again");
    [first, running[0], running[1], late].into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
}

/// Nobody has an idle link to what is gone, not even where nobody asks.
#[test]
fn idle_links_of_what_is_gone_are_closed_and_others_stay() {
    let (mut control, mut bed) = Control::new(&[ORIGIN], |_| {});
    let client = bed.client([say(GET)]);
    bed.run_script(client);
    assert_eq!(bed.idle_links(), 1);
    assert_eq!(control.swap(&mut bed, &[ORIGIN, OTHER], same).came, 1);
    bed.run_for(millis(10));
    assert_eq!(bed.idle_links(), 1, "another that comes touches nothing");
    assert_eq!(control.swap(&mut bed, &[OTHER], same).went, 1);
    bed.run_for(millis(10));
    assert!(bed.shard.core.links.is_empty());
    bed.leave(client);
    bed.check_empty().unwrap();
}

/// An id is another's as soon as the former has nothing left, with fresh numbers; not while a request runs there.
#[test]
fn an_id_is_given_anew_when_nobody_refers_to_it() {
    let (mut control, mut bed) = Control::new(&[OTHER], |_| {});
    assert_eq!(control.swap(&mut bed, &[ORIGIN], same).left_out, 0);
    let len = |bed: &Bed| bed.shard.core.snapshot.clusters[0].as_ref().unwrap().endpoints.len();
    assert_eq!(len(&bed), 2, "gone only now");
    bed.io.world.answer = Answer::Script(vec![wait(seconds(2)), say(OK)]);
    let running = bed.client([say(GET)]);
    bed.run_for(millis(10));
    assert_eq!(control.swap(&mut bed, &[OTHER], same), Update { came: 1, went: 1, left_out: 0 });
    assert_eq!(control.swap(&mut bed, &[OTHER, ("third", 9002)], same).came, 1);
    assert_eq!(len(&bed), 3, "a request runs at the origin, which is gone");
    bed.run_until("it is answered", |bed| bed.stats.responses.get() == 1);
    bed.run_for(millis(100));
    assert_eq!(control.swap(&mut bed, &[OTHER, ("third", 9002), ("fourth", 9003)], same).came, 1);
    let spec = bed.shard.core.snapshot.clusters[0].clone().unwrap();
    let names: Vec<_> = spec.endpoints.iter().map(|e| &*e.name).collect();
    assert_eq!(names, ["other", "fourth", "third"]);
    assert_eq!(bed.told(running), "200");
    bed.leave(running);
    bed.check_empty().unwrap();
}

#[test]
fn who_waits_goes_where_something_came() {
    let (mut control, mut bed) = Control::new(&[OTHER], |cluster| {
        cluster.endpoints[0].max_requests = 1;
        cluster.timeouts.queue = seconds(50);
    });
    let shared = bed.shared.clusters[0].clone().unwrap();
    assert!(shared.endpoint(EndpointId(0)).unwrap().try_start(1), "somebody else has its only place");
    let clients: Vec<usize> = (0..3).map(|_| bed.client([say(GET)])).collect();
    bed.run_for(millis(10));
    assert_eq!(bed.shard.core.waiters.len(), 3);
    let limited = |endpoint: &mut Endpoint| endpoint.max_requests = 2;
    assert_eq!(control.swap(&mut bed, &[ORIGIN], limited), Update { came: 1, went: 1, left_out: 0 });
    bed.run_until("all are answered", |bed| bed.stats.responses.get() == 3);
    bed.run_for(millis(10));
    for client in clients {
        assert_eq!(bed.told(client), "200");
        bed.leave(client);
    }
    shared.endpoint(EndpointId(0)).unwrap().end();
    bed.check_empty().unwrap();
}

/// Those who wait at a cluster that has nothing left learn it at once.
#[test]
fn who_waits_for_what_is_gone_is_refused() {
    let (mut control, mut bed) = Control::new(&[ORIGIN], |cluster| {
        cluster.endpoints[0].max_requests = 1;
        cluster.timeouts.queue = seconds(50);
    });
    bed.io.world.answer = Answer::Script(vec![wait(seconds(5)), say(OK)]);
    let clients: Vec<usize> = (0..3).map(|_| bed.client([say(GET)])).collect();
    bed.run_for(millis(10));
    assert_eq!(bed.shard.core.waiters.len(), 2);
    control.swap(&mut bed, &[], same);
    bed.run_for(millis(10));
    assert_eq!((bed.shard.core.waiters.len(), bed.counted().as_str()), (0, "no_endpoint*2"));
    bed.run_until("the first is answered", |bed| bed.stats.responses.get() == 3);
    bed.run_for(millis(10));
    assert_eq!(clients.iter().filter(|client| bed.told(**client) == "200").count(), 1);
    clients.into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
}

/// Weights, limits and whole clusters change too, and where requests go.
#[test]
fn another_cluster_takes_the_requests() {
    let (_, mut bed) = Control::new(&[OTHER], |_| {});
    let client = bed.client([say(GET)]);
    bed.run_script(client);
    assert_eq!(bed.told(client), "502");
    change(&mut bed, |next| {
        let spec = next.clusters[0].as_deref().unwrap().clone();
        let endpoints = endpoints(&[ORIGIN]).map(|(_, endpoint)| endpoint).collect();
        let spec = Cluster { id: ClusterId(1), name: "new".into(), endpoints, ..spec };
        next.clusters.push(Some(Arc::new(spec)));
        let listener = next.listener(ListenerId(0)).unwrap();
        let mut listener = (**listener).clone();
        listener.cluster = Some(ClusterId(1));
        next.listeners[0] = Some(Arc::new(listener));
    });
    let other = bed.client([say(GET)]);
    bed.run_script(other);
    assert_eq!((bed.told(other).as_str(), bed.idle_links()), ("200", 1));
    // The second goes, and its link with it; what its id counted is left in order.
    change(&mut bed, |next| {
        let mut listener = (**next.listener(ListenerId(0)).unwrap()).clone();
        listener.cluster = Some(ClusterId(0));
        next.listeners[0] = Some(Arc::new(listener));
        next.clusters[1] = None;
    });
    bed.run_for(millis(10));
    assert!(bed.shard.core.links.is_empty());
    let shared = bed.shared.clusters[1].clone().unwrap();
    assert_eq!((shared.endpoint(EndpointId(0)).unwrap().open_links(), shared.idle_links()), (0, 0));
    [client, other].into_iter().for_each(|client| bed.leave(client));
    bed.check_empty().unwrap();
}

/// What routes ask about holds for the first request after endpoints came or went, and an endpoint that comes to others has
/// little of the traffic at first.
#[test]
fn routes_know_how_many_are_available_and_who_comes_starts_slowly() {
    let (mut control, mut bed) = Control::new(&[ORIGIN], |cluster| cluster.slow_start = seconds(60));
    change(&mut bed, |next| {
        let available = Some(Available { cluster: ClusterId(0), at_least: 0, below: 1 });
        let page = Page { body: Template(Vec::new()), form: BodyForm::Plain, headers: Vec::new() };
        let reply = Reply { status: 299, page };
        next.routes = vec![Arc::new(Route {
            id: RouteId(0),
            name: "stand-in".into(),
            listeners: Vec::new(),
            matcher: Match { available, ..Match::default() },
            action: Action::Respond(Arc::new(reply)),
            maintenance: None,
            error_pages: Default::default(),
        })]
        .into();
    });
    let client = bed.client([say(GET)]);
    bed.run_script(client);
    control.swap(&mut bed, &[], same);
    bed.tell(client, [say(GET)]);
    bed.run_script(client);
    // Its own id again, and nobody is beside it.
    control.swap(&mut bed, &[ORIGIN], same);
    bed.tell(client, [say(GET)]);
    bed.run_script(client);
    assert_eq!(bed.told(client), "200 299 200");
    bed.run_for(seconds(60));
    control.swap(&mut bed, &[ORIGIN, OTHER], same);
    let now = bed.now();
    let runtime = bed.shard.core.clusters[0].as_mut().unwrap();
    let mut picks = |now| {
        let mut pick = || {
            let id = runtime.state.pick(&Tried::NONE, Hint { now, ..Hint::default() }).unwrap();
            runtime.state.end_request(id);
            usize::from(id == EndpointId(1))
        };
        (0..100).map(|_| pick()).sum::<usize>()
    };
    assert!((8..=10).contains(&picks(now)), "a tenth of the other's");
    assert_eq!(picks(now.after(seconds(60))), 50);
    bed.leave(client);
    bed.check_empty().unwrap();
}

/// The bed's listener is gone, or listens elsewhere.
fn move_listener(bed: &mut Bed, change_it: impl FnOnce(&mut Listener)) {
    change(bed, |next| {
        let mut listener = (**next.listener(ListenerId(0)).unwrap()).clone();
        change_it(&mut listener);
        next.listeners[0] = Some(Arc::new(listener));
    });
}

/// Who waits is closed, who has asked is answered and then closed, who is about to ask may, and what does not end is cut when
/// `drain_timeout` is over.
#[test]
fn conns_leave_with_their_listener() {
    let (_, mut bed) = Control::new(&[ORIGIN], |_| {});
    let idle = bed.client([say(GET)]);
    bed.run_script(idle);
    bed.io.world.answer = Answer::Script(vec![wait(seconds(2)), say(OK)]);
    let running = bed.client([say(GET)]);
    bed.run_for(millis(10));
    bed.io.world.answer = Answer::Script(vec![wait(seconds(60)), say(OK)]);
    let stuck = bed.client([say(GET)]);
    let fresh = bed.client([]);
    bed.run_for(millis(10));
    assert_eq!(bed.shard.core.conns.len(), 4);
    move_listener(&mut bed, |listener| listener.addresses.clear());
    let begun = bed.now();
    bed.run_for(millis(10));
    assert_eq!(
        (bed.shard.core.conns.len(), bed.told(idle).as_str()),
        (3, "200 (end)"),
        "the idle one is closed"
    );
    bed.io.world.answer = Answer::Ok;
    bed.tell(fresh, [say(GET)]);
    bed.run_for(millis(100));
    assert_eq!(
        (bed.told(fresh).as_str(), bed.shard.core.conns.len()),
        ("200 (end)", 2),
        "answered, and closed"
    );
    bed.run_until("the running one is answered", |bed| bed.shard.core.conns.len() == 1);
    assert_eq!(bed.told(running), "200 (end)");
    let over = bed.run_until("the stuck one is cut", |bed| bed.shard.core.conns.is_empty());
    assert_eq!(over.since(begun) / 1_000_000_000, 5, "drain_timeout");
    assert!(!bed.told(stuck).contains("200"), "{}", bed.told(stuck));
    // Who is accepted by the socket as long as it is there leaves as well.
    let late = bed.client([say(GET)]);
    bed.run_until("the last one is served", |bed| bed.told(late).starts_with("200"));
    bed.run_for(millis(100));
    assert!(bed.shard.core.conns.is_empty());
    for client in [idle, running, stuck, fresh, late] {
        bed.leave(client);
    }
    bed.check_empty().unwrap();
}

/// What else changes about a listener sends nobody away, and neither does an address more.
#[test]
fn conns_stay_with_a_listener_that_stays() {
    let (_, mut bed) = Control::new(&[ORIGIN], |_| {});
    let client = bed.client([say(GET)]);
    bed.run_script(client);
    move_listener(&mut bed, |listener| {
        listener.addresses.push(ListenAddress::Ip(origin_address()));
        listener.timeouts.idle = seconds(30);
        listener.max_connections = 7;
    });
    bed.tell(client, [say(GET)]);
    bed.run_script(client);
    assert_eq!((bed.told(client).as_str(), bed.shard.core.conns.len()), ("200 200", 1));
    move_listener(&mut bed, |listener| _ = listener.addresses.remove(0));
    bed.run_for(millis(10));
    assert!(bed.shard.core.conns.is_empty(), "it listens elsewhere now");
    bed.leave(client);
    bed.check_empty().unwrap();
}

/// Who came before is served, who comes now is not let in, and after a while the socket is closed.
#[test]
fn a_socket_that_goes_is_closed_when_it_is_quiet() {
    let (_, mut bed) = Control::new(&[ORIGIN], |_| {});
    let (before, fd) = (bed.shard.core.listeners.len(), bed.shard.core.listeners[0].fd);
    let queued: Vec<usize> = (0..5).map(|_| bed.client([say(GET)])).collect();
    bed.run_until("all have come", |bed| bed.stats.accepted.get() == 5);
    let begun = bed.now();
    listener::follow(&mut bed.shard.core, &mut bed.io, &[]);
    bed.run_until("all are served", |bed| queued.iter().all(|client| bed.told(*client) == "200"));
    let closed = bed.run_until("it is closed", |bed| bed.shard.core.listeners[0].is_closed());
    assert!((250..400).contains(&(closed.since(begun) / 1_000_000)), "{} ns", closed.since(begun));
    assert!(bed.io.net.open_sockets(|owner| owner == Owner::Shard(fd)) == 0);
    let refused = bed.client([say(GET)]);
    bed.run_for(millis(10));
    assert!(!bed.told(refused).contains("200"));
    assert_eq!(bed.shard.core.listeners.len(), before);
    queued.into_iter().chain([refused]).for_each(|client| bed.leave(client));
    bed.run_for(seconds(1));
}
