//! Answers that are no good: refused, empty, cut, forged, looped, huge. What was known stands, and the process stays well.

use crate::support::client::Client;
use crate::support::dns::{Answer, Dns};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;

fn start(dns: &Dns, origin: &Origin) -> Proxy {
    Proxy::start(&format!(
        "[runtime]\nshards = 1\nresolver = \"{}\"\n[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n\
         cluster = \"app\"\n[[cluster]]\nname = \"app\"\nendpoints = [\"app.test:{}\"]\n",
        dns.address,
        origin.address.port()
    ))
}

/// Threat B05: after a good answer each of these changes nothing, and a good one is followed again.
#[test]
fn bad_answers_change_nothing() {
    let origin = Origin::saying("here");
    let bad = [
        ("servfail", Answer::ServFail, "Server Failure"),
        ("nxdomain", Answer::NxDomain, "NXDOMAIN"),
        ("nothing", Answer::Nothing, "no address"),
        ("truncated", Answer::Truncated, ""),
        ("loop", Answer::Loop, ""),
        ("other", Answer::OtherName("127.0.0.9".parse().unwrap()), ""),
        ("garbage", Answer::Garbage, ""),
        ("torn", Answer::Torn, ""),
        ("silence", Answer::Silence, ""),
        (
            "unusable",
            Answer::Addresses(1, vec!["0.0.0.0".parse().unwrap(), "224.0.0.1".parse().unwrap()]),
            "connected",
        ),
    ];
    std::thread::scope(|scope| {
        for (what, answer, said) in bad {
            let origin = &origin;
            scope.spawn(move || {
                let dns = Dns::start();
                dns.addresses("app.test", &["127.0.0.1"]);
                let proxy = start(&dns, origin);
                assert_eq!(Client::get(proxy.edge(), "/").text(), "here", "{what}");
                dns.set("app.test", answer);
                let told = proxy.stderr.wait_for(|line| line.contains("app.test") && line.contains("stands"));
                let told = told.unwrap_or_else(|| panic!("{what}: nothing was told"));
                assert!(told.contains(said), "{what}: {told}");
                assert_eq!(Client::get(proxy.edge(), "/").text(), "here", "{what}");
                dns.addresses("app.test", &["127.0.0.1"]);
                let again = proxy.stderr.wait_for(|line| line.contains("answered again"));
                assert!(again.is_some(), "{what}: a good answer was not taken");
                let gone = proxy.stderr.all().iter().any(|line| line.contains("endpoint is gone"));
                assert!(!gone, "{what}: the endpoint went");
            });
        }
    });
}

/// An answer of a thousand addresses comes over TCP; some of them are taken, and the rest told of.
#[test]
fn a_huge_answer_is_bounded() {
    let (dns, origin) = (Dns::start(), Origin::saying("here"));
    dns.addresses("app.test", &["127.0.0.1"]);
    let proxy = start(&dns, &origin);
    dns.set("app.test", Answer::Huge(1000));
    let told = proxy
        .stderr
        .wait_for(|line| line.contains("744 addresses or targets beyond the first 256 are left out"));
    assert!(told.is_some(), "{:?}", proxy.stderr.all());
    let came = || proxy.stderr.all().iter().filter(|line| line.contains("endpoint came")).count();
    eventually("they came", || came() >= 256);
    dns.addresses("app.test", &["127.0.0.1"]);
    eventually("and went", || Client::get(proxy.edge(), "/").status == 200);
}
