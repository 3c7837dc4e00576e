//! Answers that are no good: refused, empty, cut, forged, looped, huge, slow. What was known stands, the log says why, and the
//! process stays well.

use crate::support::client::Client;
use crate::support::dns::{Answer, Dns, FORGED, Forgery};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use std::net::IpAddr;

const SILENT: &str = "the resolver does not answer";
const NO_ADDRESS: &str = "the name has no address";
const CUT: &str = ": no whole one came over TCP";

fn start(dns: &Dns, endpoint: &str) -> Proxy {
    Proxy::start(&format!(
        "[runtime]\nshards = 1\nresolver = \"{}\"\n[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n\
         cluster = \"app\"\n[[cluster]]\nname = \"app\"\nendpoints = [\"{endpoint}\"]\n",
        dns.address,
    ))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The line that says why what was known stands.
fn told(proxy: &Proxy, what: &str) -> String {
    let line = proxy.stderr.wait_for(|line| line.contains("app.test") && line.contains("stands"));
    line.unwrap_or_else(|| panic!("{what}: nothing was told: {:#?}", proxy.stderr.all()))
}

fn count(proxy: &Proxy, wanted: &str) -> usize {
    proxy.stderr.all().iter().filter(|line| line.contains(wanted)).count()
}

/// Threat B05: after a good answer each of these changes nothing, the log says why, and a good one is followed again.
#[test]
fn bad_answers_change_nothing() {
    let origin = Origin::saying("here");
    let forged = |forgery| Answer::Forged(forgery, None);
    let bad = [
        ("servfail", Answer::ServFail, "the resolver says: Server Failure"),
        ("nxdomain", Answer::NxDomain, "there is no such name (NXDOMAIN)"),
        ("nothing", Answer::Nothing, "the name has no address"),
        ("truncated", Answer::Truncated, CUT),
        ("slow", Answer::Slow(ip(FORGED)), SILENT),
        ("loop", Answer::Loop, NO_ADDRESS),
        ("two loop", Answer::Alias("other.test"), NO_ADDRESS),
        ("other", Answer::OtherName(ip(FORGED)), NO_ADDRESS),
        ("garbage", Answer::Garbage, SILENT),
        ("torn", Answer::Torn, "incorrect rdata length read: 1 expected: 4"),
        ("silence", Answer::Silence, SILENT),
        ("id", forged(Forgery::Id), SILENT),
        ("port", forged(Forgery::Port), SILENT),
        ("address", forged(Forgery::Address), SILENT),
        ("question's name", forged(Forgery::Name), SILENT),
        ("question's type", forged(Forgery::Type), SILENT),
        (
            "unusable",
            Answer::Addresses(1, vec![ip("0.0.0.0"), ip("224.0.0.1")]),
            "no address that can be connected to",
        ),
    ];
    std::thread::scope(|scope| {
        for (what, answer, said) in bad {
            let origin = &origin;
            scope.spawn(move || {
                let dns = Dns::start();
                dns.addresses("app.test", &["127.0.0.1"]);
                dns.set("other.test", Answer::Alias("app.test"));
                let proxy = start(&dns, &format!("app.test:{}", origin.address.port()));
                assert_eq!(Client::get(proxy.edge(), "/").text(), "here", "{what}");
                let is_forged = matches!(answer, Answer::Forged(..));
                dns.set("app.test", answer);
                let told = told(&proxy, what);
                assert!(told.contains(&format!("{said}; what was known of it stands")), "{what}: {told}");
                assert_eq!(dns.forged() > 0, is_forged, "{what}");
                assert_eq!(Client::get(proxy.edge(), "/").text(), "here", "{what}");
                dns.addresses("app.test", &["127.0.0.1"]);
                let again = proxy.stderr.wait_for(|line| line.contains("answered again"));
                assert!(again.is_some(), "{what}: a good answer was not taken");
                assert_eq!(count(&proxy, "endpoint is gone"), 0, "{what}: the endpoint went");
                assert_eq!(count(&proxy, FORGED), 0, "{what}: {:#?}", proxy.stderr.all());
                assert_eq!(Client::get(proxy.edge(), "/").text(), "here", "{what}");
            });
        }
    });
}

/// Threat B05: who forges an answer and is faster than the resolver gains nothing: the true one is waited for.
#[test]
fn the_true_answer_is_taken_behind_a_forged_one() {
    let origin = Origin::saying("here");
    std::thread::scope(|scope| {
        for forgery in [Forgery::Id, Forgery::Port, Forgery::Address, Forgery::Name, Forgery::Type] {
            let origin = &origin;
            scope.spawn(move || {
                let dns = Dns::start();
                dns.set("app.test", Answer::Forged(forgery, Some(ip("127.0.0.1"))));
                let proxy = start(&dns, &format!("app.test:{}", origin.address.port()));
                eventually("it is asked again and again", || dns.forged() >= 4);
                assert_eq!(Client::get(proxy.edge(), "/").text(), "here", "{forgery:?}");
                assert_eq!(count(&proxy, FORGED), 0, "{forgery:?}: {:#?}", proxy.stderr.all());
                assert_eq!(count(&proxy, "stands"), 0, "{forgery:?}: {:#?}", proxy.stderr.all());
            });
        }
    });
}

/// The same of services: what cannot be a target is none, and where no target is left what was known stands.
#[test]
fn bad_services_change_nothing() {
    let origin = Origin::saying("here");
    let port = origin.address.port();
    let service = |port, target| Answer::Services(1, vec![(1, 1, port, target)]);
    let bad = [
        ("port 0", service(0, "t.test"), "the service has no target"),
        ("root", service(port, ""), "the service has no target"),
        ("unknown", service(port, "nobody.test"), "nobody.test: there is no such name (NXDOMAIN)"),
        ("loop", service(port, "one.test"), "one.test: the name has no address"),
        ("thousands", Answer::HugeServices(1000, port), "there is no such name (NXDOMAIN)"),
        ("cut", Answer::Truncated, CUT),
    ];
    std::thread::scope(|scope| {
        for (what, answer, said) in bad {
            scope.spawn(move || {
                let dns = Dns::start();
                dns.addresses("t.test", &["127.0.0.1"]);
                dns.set("one.test", Answer::Alias("two.test"));
                dns.set("two.test", Answer::Alias("one.test"));
                dns.set("_http._tcp.app.test", service(port, "t.test"));
                let proxy = start(&dns, "srv:_http._tcp.app.test");
                assert_eq!(Client::get(proxy.edge(), "/").text(), "here", "{what}");
                dns.set("_http._tcp.app.test", answer);
                let told = told(&proxy, what);
                assert!(told.contains(&format!("{said}; what was known of it stands")), "{what}: {told}");
                assert_eq!(Client::get(proxy.edge(), "/").text(), "here", "{what}");
                // What is no target takes one that is none along; an alias of a good one is followed, though RFC 2782 forbids it.
                dns.set("alias.test", Answer::Alias("t.test"));
                let mixed = vec![(1, 1, 0, "t.test"), (1, 1, port, ""), (1, 1, port, "alias.test")];
                dns.set("_http._tcp.app.test", Answer::Services(1, mixed));
                let again = proxy.stderr.wait_for(|line| line.contains("answered again"));
                assert!(again.is_some(), "{what}: a good answer was not taken");
                assert_eq!(Client::get(proxy.edge(), "/").text(), "here", "{what}");
                assert_eq!(count(&proxy, "endpoint is gone"), 0, "{what}: {:#?}", proxy.stderr.all());
            });
        }
    });
}

/// Of a thousand targets 64 are asked for, and the rest told of.
#[test]
fn a_huge_service_is_bounded() {
    let (dns, origin) = (Dns::start(), Origin::saying("here"));
    // The last that is taken has an address.
    dns.addresses("h63.test", &["127.0.0.1"]);
    dns.addresses("h64.test", &[FORGED]);
    dns.set("_http._tcp.app.test", Answer::HugeServices(1000, origin.address.port()));
    let proxy = start(&dns, "srv:_http._tcp.app.test");
    let told = proxy
        .stderr
        .wait_for(|line| line.contains("936 are left out of more than 256 addresses or 64 targets"));
    assert!(told.is_some(), "{:?}", proxy.stderr.all());
    eventually("it came", || Client::get(proxy.edge(), "/").status == 200);
    assert_eq!(count(&proxy, FORGED), 0, "{:#?}", proxy.stderr.all());
}

/// An answer of a thousand addresses comes over TCP; some of them are taken, and the rest told of.
#[test]
fn a_huge_answer_is_bounded() {
    let (dns, origin) = (Dns::start(), Origin::saying("here"));
    dns.addresses("app.test", &["127.0.0.1"]);
    let proxy = start(&dns, &format!("app.test:{}", origin.address.port()));
    dns.set("app.test", Answer::Huge(1000));
    let told = proxy
        .stderr
        .wait_for(|line| line.contains("744 are left out of more than 256 addresses or 64 targets"));
    assert!(told.is_some(), "{:?}", proxy.stderr.all());
    let came = || count(&proxy, "endpoint came");
    eventually("they came", || came() >= 256);
    dns.addresses("app.test", &["127.0.0.1"]);
    eventually("and went", || Client::get(proxy.edge(), "/").status == 200);
    assert_eq!(count(&proxy, "=127.1.1.1:"), 0, "the 257th is not taken");
}
