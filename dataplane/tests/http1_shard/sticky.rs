//! The cookie by which clients come back to their endpoint: set, read, hidden, and set anew where the endpoint is gone.

use crate::bed::{Answer, Bed, OK, origin_at, say, seconds, wait};
use crate::message::Message;
use dataplane::cluster::eligible::Admin;
use dataplane::sim::Owner;
use dataplane::sim::peers::Act;
use dataplane::spec::{Cluster, Endpoint, EndpointId, HostPolicy, Sticky};

/// What the cookie says of an endpoint.
fn value(n: u16) -> String {
    ["a", "b", "c"][usize::from(n)].repeat(32)
}

fn sticky() -> Sticky {
    let values = [0, 1, 2].map(|n| value(n).into_bytes().try_into().unwrap());
    let mut sticky = Sticky::new("SO".into(), "; Path=/; HttpOnly".into(), Box::new(values)).unwrap();
    sticky.indirect = true;
    sticky.nocache = true;
    sticky
}

/// Endpoints on ports 9000, 9001 and 9002, which learn their own address as Host; `up` of them listen.
fn bed(up: u16, change: impl FnOnce(&mut Cluster)) -> Bed {
    let mut bed = Bed::new(|_, cluster| {
        cluster.endpoints =
            (0..3).map(|n| Endpoint::new(EndpointId(n), &format!("e{n}"), origin_at(n).into())).collect();
        cluster.host = HostPolicy::Endpoint;
        cluster.sticky = Some(sticky());
        change(cluster);
    });
    // The first listens already.
    for n in 1..up {
        bed.io.net.listen(origin_at(n), 1024, Owner::Actor(0));
    }
    bed
}

/// One request of a client of its own, with these field lines: where it went, and the answer.
fn ask(bed: &mut Bed, fields: &str) -> (u16, Message) {
    let client = bed.client([say(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n"))]);
    bed.run_script(client);
    let [answer] = &bed.responses(client)[..] else { panic!("{}", bed.told(client)) };
    (went(bed), answer.clone())
}

/// Where the last request went.
fn went(bed: &Bed) -> u16 {
    let (_, request) = bed.io.world.requests.last().expect("a request");
    let port = request.field("host").and_then(|host| host.rsplit(':').next()?.parse::<u16>().ok());
    port.expect("an endpoint's address") - 9000
}

fn set(n: u16) -> String {
    format!("SO={}; Path=/; HttpOnly", value(n))
}

fn cookie(n: u16) -> String {
    format!("Cookie: SO={}\r\n", value(n))
}

#[test]
fn a_client_comes_back_to_its_endpoint() {
    let mut bed = bed(3, |_| ());
    for n in [0, 1, 2] {
        let (at, answer) = ask(&mut bed, "");
        assert_eq!((at, answer.field("set-cookie")), (n, Some(&*set(n))), "in turn");
        assert_eq!(answer.field("cache-control"), Some("private"));
    }
    for n in [2, 2, 0, 1] {
        let (at, answer) = ask(&mut bed, &cookie(n));
        assert_eq!(at, n);
        assert_eq!((answer.field("set-cookie"), answer.field("cache-control")), (None, None));
    }
    bed.check_quiet().unwrap();
}

#[test]
fn origins_do_not_see_it_and_may_not_set_it() {
    let mut bed = bed(3, |_| ());
    let others = "SO=x; Path=/\r\nSet-Cookie: so=y\r\nSet-Cookie: SO =z\r\nCache-Control: public, max-age=60";
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: {others}\r\n\r\nok");
    bed.io.world.answer = Answer::Script(vec![say(text)]);
    let (_, answer) = ask(&mut bed, &format!("Cookie: a=1; SO={}; b=2\r\nCookie: SO=3\r\n", value(1)));
    let (_, request) = bed.io.world.requests.last().unwrap();
    let cookies: Vec<_> = request.fields.iter().filter(|(name, _)| name == "cookie").collect();
    assert_eq!(cookies, [&("cookie".to_owned(), "a=1; b=2".to_owned())]);
    let lines = |answer: &Message, name: &str| -> Vec<String> {
        answer.fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.clone()).collect()
    };
    assert_eq!(lines(&answer, "set-cookie"), ["so=y"]);
    assert_eq!(lines(&answer, "cache-control"), ["public, max-age=60"]);
    let (at, answer) = ask(&mut bed, "");
    assert_eq!(lines(&answer, "set-cookie"), ["so=y".to_owned(), set(at)]);
    assert_eq!(lines(&answer, "cache-control"), ["public, max-age=60", "private"], "beside the origin's own");
}

/// Not indirect: the origin is told whom the client sticks to. Not nocache: caches are the origin's business.
#[test]
fn what_is_not_asked_for_is_not_done() {
    let mut bed = bed(3, |cluster| {
        if let Some(sticky) = &mut cluster.sticky {
            (sticky.indirect, sticky.nocache) = (false, false);
        }
    });
    let (at, answer) = ask(&mut bed, "Cookie: SO=1\r\n");
    assert_eq!((answer.field("set-cookie"), answer.field("cache-control")), (Some(&*set(at)), None));
    assert_eq!(bed.io.world.requests[0].1.field("cookie"), Some("SO=1"));
}

#[test]
fn a_forged_cookie_is_none_and_of_several_the_first_of_ours_counts() {
    let mut bed = bed(3, |_| ());
    let oversized = "a".repeat(9000);
    for wrong in ["", "0", &value(1)[1..], &(value(1) + "b"), &value(1).to_uppercase(), &oversized] {
        let (at, answer) = ask(&mut bed, &format!("Cookie: SO={wrong}\r\n"));
        assert_eq!(answer.field("set-cookie"), Some(&*set(at)), "{wrong}");
    }
    let (at, answer) = ask(&mut bed, &format!("Cookie: SO=1; SO={}; SO={}\r\n", value(2), value(1)));
    assert_eq!((at, answer.field("set-cookie")), (2, None));
}

/// Nobody listens at its endpoint: another answers, and the client sticks to that from then on.
#[test]
fn an_endpoint_that_is_dead_loses_its_clients() {
    let mut bed = bed(2, |_| ());
    let (at, answer) = ask(&mut bed, &cookie(2));
    assert_eq!((at < 2, answer.field("set-cookie")), (true, Some(&*set(at))));
    let (again, answer) = ask(&mut bed, &cookie(at));
    assert_eq!((again, answer.field("set-cookie")), (at, None));
}

#[test]
fn an_endpoint_that_drains_keeps_its_clients_and_gets_no_new_ones() {
    let mut bed = bed(3, |_| ());
    let admin = |bed: &Bed, admin| {
        let cluster = bed.shard.core.shared.clusters[0].as_ref().unwrap();
        assert!(cluster.set_admin(EndpointId(1), admin, bed.now()));
    };
    admin(&bed, Admin::Drain);
    let new: Vec<_> = (0..6).map(|_| ask(&mut bed, "").0).collect();
    assert!(!new.contains(&1), "{new:?}");
    let (at, answer) = ask(&mut bed, &cookie(1));
    assert_eq!((at, answer.field("set-cookie")), (1, None));
    admin(&bed, Admin::Maint);
    let (at, answer) = ask(&mut bed, &cookie(1));
    assert_eq!((at != 1, answer.field("set-cookie")), (true, Some(&*set(at))));
    admin(&bed, Admin::Ready);
    assert_eq!(ask(&mut bed, &cookie(1)).0, 1);
}

/// Full for a moment: another answers this one request, and the client goes back to its own with the next.
#[test]
fn an_endpoint_that_is_full_keeps_its_clients() {
    let mut bed = bed(3, |cluster| cluster.endpoints[1].max_requests = 1);
    bed.io.world.answer = Answer::Script(vec![wait(seconds(1)), say(OK)]);
    let get = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", cookie(1));
    let clients = [0; 2].map(|_| bed.client([say(&get)]));
    bed.run_for(seconds(3));
    let places: Vec<_> = bed.io.world.requests.iter().filter_map(|(_, m)| m.field("host")).collect();
    assert!(places[0].ends_with(":9001") && !places[1].ends_with(":9001"), "{places:?}");
    for client in clients {
        assert_eq!(bed.responses(client)[0].field("set-cookie"), None);
        bed.leave(client);
    }
    bed.io.world.answer = Answer::Ok;
    assert_eq!(ask(&mut bed, &cookie(1)).0, 1);
}

/// The origin closes an idle link just as a request is sent on it. Its client stays: over a new link if the endpoint takes
/// one, and goes to another if not.
#[test]
fn a_stale_link_does_not_cost_a_client_its_endpoint() {
    for lives in [true, false] {
        let mut bed = bed(1, |_| ());
        let listener = bed.io.net.listen(origin_at(1), 1024, Owner::Actor(0));
        assert_eq!(ask(&mut bed, &cookie(1)).0, 1);
        bed.io.world.answer = Answer::Script(vec![Act::Reset]);
        if !lives {
            bed.io.net.close_listener(listener);
        }
        let get = format!("GET / HTTP/1.1\r\nHost: a\r\n{}Connection: close\r\n\r\n", cookie(1));
        let client = bed.client([say(get)]);
        bed.run_until("the link is lost", |bed| bed.stats.retries.get() > 0);
        bed.io.world.answer = Answer::Ok;
        bed.run_script(client);
        let (at, answers) = (went(&bed), bed.responses(client));
        assert_eq!((at == 1, answers[0].status()), (lives, 200));
        let expected = (!lives).then(|| set(at));
        assert_eq!(answers[0].field("set-cookie"), expected.as_deref());
    }
}

/// A weight of 0 takes nothing, not even those who stick to it.
#[test]
fn an_endpoint_without_weight_has_no_clients() {
    let mut bed = bed(3, |cluster| cluster.endpoints[1].weight = 0);
    let (at, answer) = ask(&mut bed, &cookie(1));
    assert_eq!((at != 1, answer.field("set-cookie")), (true, Some(&*set(at))));
}

/// Our own answers set no cookie: no endpoint gave them.
#[test]
fn a_refusal_sets_none() {
    let mut bed = bed(3, |cluster| cluster.endpoints.iter_mut().for_each(|endpoint| endpoint.weight = 0));
    let client = bed.client([say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")]);
    bed.run_script(client);
    let answers = bed.responses(client);
    assert_eq!((answers[0].status(), answers[0].field("set-cookie")), (503, None));
}
