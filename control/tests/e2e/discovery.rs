//! Endpoints by name and by file: what is found serves, what changes is followed, and what runs notices nothing.

use crate::support::client::Client;
use crate::support::dns::{Answer, Dns};
use crate::support::origin::Origin;
use crate::support::programs::{Ours, program};
use crate::support::proxy::{Proxy, call, ringway};
use crate::support::{eventually, skip};
use std::net::SocketAddr;
use std::process::Command;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A configuration of one cluster, whose names are resolved at `dns`.
fn configuration(dns: SocketAddr, cluster: &str) -> String {
    format!(
        "[runtime]\nshards = 2\nresolver = \"{dns}\"\n[[access_log]]\n[[listener]]\nname = \"edge\"\n\
         address = \"127.0.0.1:0\"\ncluster = \"app\"\n[[cluster]]\nname = \"app\"\n{cluster}\n"
    )
}

/// Two origins on one port of two addresses, each saying which it is.
fn origins() -> [Origin; 2] {
    loop {
        let one = Origin::saying("one");
        let other = SocketAddr::from(([127, 0, 0, 2], one.address.port()));
        // Somebody may have that port there.
        if std::net::TcpListener::bind(other).is_ok() {
            return [one, Origin::saying_at(other, "two")];
        }
    }
}

/// Threat B05, ask 3.5: a restart under another address.
#[test]
fn traffic_follows_a_name_to_its_other_address() {
    let (dns, [one, two]) = (Dns::start(), origins());
    dns.addresses("app.test", &["127.0.0.1"]);
    let port = one.address.port();
    let proxy = Proxy::start(&configuration(dns.address, &format!("endpoints = [\"app.test:{port}\"]")));
    let mut client = Client::connect(proxy.edge());
    assert_eq!(client.exchange(GET).text(), "one", "it was found before the start was told");
    dns.addresses("app.test", &["127.0.0.2"]);
    let mut requests = 0;
    eventually("traffic at the other address", || {
        let response = client.exchange(GET);
        assert_eq!(response.status, 200, "{}", response.reason());
        requests += 1;
        response.text() == "two"
    });
    one.kill();
    for _ in 0..50 {
        assert_eq!(client.exchange(GET).text(), "two");
    }
    assert!(requests >= 1 && two.request_count() >= 51);
    let line = proxy.log_line(|line| line["upstream_local"].is_string() && line["endpoint"].is_string());
    assert_eq!(line["endpoint"], format!("app.test:{port}"), "one address has the name's own name");
}

/// More than one address of a name share its traffic; weight and host of the entry hold for each.
#[test]
fn every_address_of_a_name_is_an_endpoint() {
    let (dns, [one, two]) = (Dns::start(), origins());
    dns.addresses("app.test", &["127.0.0.1", "127.0.0.2"]);
    let port = one.address.port();
    let cluster = format!(
        "host = \"endpoint\"\nendpoints = [{{ name = \"x\", address = \"app.test:{port}\", weight = 3 }}]"
    );
    let proxy = Proxy::start(&configuration(dns.address, &cluster));
    (0..20).for_each(|_| assert_eq!(Client::get(proxy.edge(), "/").status, 200));
    assert_eq!((one.request_count(), two.request_count()), (10, 10));
    assert_eq!(one.requests()[0].field("host"), Some(&*format!("app.test:{port}")));
    let line = proxy.log_line(|line| line["endpoint"] == "x/127.0.0.2");
    assert_eq!(line["status"], 200);
}

/// Ask 14: 1 unresolvable name among 100 clusters.
#[test]
fn a_name_that_is_not_found_holds_nobody_up() {
    let (dns, origin) = (Dns::start(), Origin::saying("here"));
    let mut text = format!(
        "[runtime]\nshards = 2\nresolver = \"{}\"\n[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n",
        dns.address
    );
    for n in 0..100 {
        let endpoint =
            if n == 7 { format!("bogus.test:{}", origin.address.port()) } else { origin.address.to_string() };
        text += &format!(
            "[[route]]\nmatch = {{ path = \"/{n}\" }}\ncluster = \"c{n}\"\n[[cluster]]\nname = \"c{n}\"\n\
             endpoints = [\"{endpoint}\"]\n"
        );
    }
    let proxy = Proxy::start(&text);
    for n in 0..100 {
        let response = Client::get(proxy.edge(), &format!("/{n}"));
        let expected = if n == 7 { 503 } else { 200 };
        assert_eq!(response.status, expected, "cluster {n}: {}", response.reason());
        if n == 7 {
            assert_eq!(response.reason(), "no_endpoint");
        }
    }
    assert!(proxy.stderr.wait_for(|line| line.contains("bogus.test") && line.contains("NXDOMAIN")).is_some());
    dns.addresses("bogus.test", &["127.0.0.1"]);
    eventually("the name is found at last", || Client::get(proxy.edge(), "/7").status == 200);
}

/// Services say ports, weights and tiers.
#[test]
fn a_service_leads_to_its_targets() {
    let (dns, origins) = (Dns::start(), ["one", "two", "backup"].map(Origin::saying));
    let [one, two, backup] = origins.each_ref().map(|origin| origin.address.port());
    let names = ["one.test", "two.test", "backup.test"];
    names.iter().for_each(|name| dns.addresses(name, &["127.0.0.1"]));
    let services = vec![(10, 1, one, names[0]), (10, 3, two, names[1]), (20, 1, backup, names[2])];
    dns.set("_http._tcp.app.test", Answer::Services(1, services));
    let proxy = Proxy::start(&configuration(dns.address, "endpoints = [\"srv:_http._tcp.app.test\"]"));
    (0..20).for_each(|_| assert_eq!(Client::get(proxy.edge(), "/").status, 200));
    assert_eq!(origins.each_ref().map(Origin::request_count), [5, 15, 0]);
    dns.set("_http._tcp.app.test", Answer::Services(1, vec![(5, 0, backup, names[2])]));
    eventually("the other target", || Client::get(proxy.edge(), "/").text() == "backup");
}

/// A tcp listener's connections go where its name leads; one that is established stays when the name leads elsewhere.
#[test]
fn a_connection_outlives_its_endpoint() {
    let (dns, [one, _two]) = (Dns::start(), origins());
    dns.addresses("app.test", &["127.0.0.1"]);
    let port = one.address.port();
    let text = configuration(dns.address, &format!("endpoints = [\"app.test:{port}\"]"));
    let proxy = Proxy::start(&text.replace("cluster = \"app\"\n", "cluster = \"app\"\nprotocol = \"tcp\"\n"));
    let mut stays = Client::connect(proxy.edge());
    assert_eq!(stays.exchange(GET).text(), "one");
    dns.addresses("app.test", &["127.0.0.2"]);
    eventually("new connections at the other address", || Client::get(proxy.edge(), "/").text() == "two");
    assert_eq!(stays.exchange(GET).text(), "one");
}

/// The file is another source, together with what the configuration lists.
#[test]
fn a_file_of_endpoints_is_followed() {
    let [one, two] = origins();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list");
    let write = |text: &str| {
        std::fs::write(dir.path().join("new"), text).unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
    };
    write(&format!("# ours\n{} name=first\n", one.address));
    let cluster = format!("endpoints_file = {:?}", path.display().to_string());
    let proxy = Proxy::start(&configuration(closed(), &cluster));
    assert_eq!(Client::get(proxy.edge(), "/").text(), "one");
    write(&format!("{} name=second weight=2\n", two.address));
    eventually("the other list", || Client::get(proxy.edge(), "/").text() == "two");
    write(&format!("{} name=first\nthree\n", one.address));
    let told = proxy.stderr.wait_for(|line| line.contains("line 2")).expect("the mistake is told");
    assert!(told.contains("list") && told.contains("three"), "{told}");
    assert_eq!(Client::get(proxy.edge(), "/").text(), "two", "the last good list stays");
    std::fs::remove_file(&path).unwrap();
    proxy.stderr.wait_for(|line| line.contains("cannot be read")).expect("that it is gone is told");
    assert_eq!(Client::get(proxy.edge(), "/").text(), "two");
    write(&format!("{}\n", one.address));
    eventually("a good list again", || Client::get(proxy.edge(), "/").text() == "one");
}

/// What an operator said of a name holds for whoever has it next.
#[test]
fn maintenance_outlasts_a_change_of_address() {
    let (dns, [one, two]) = (Dns::start(), origins());
    dns.addresses("app.test", &["127.0.0.1"]);
    let port = one.address.port();
    let text = configuration(dns.address, &format!("endpoints = [\"app.test:{port}\"]"));
    let proxy = Proxy::start(&format!("[admin]\naddress = \"127.0.0.1:0\"\n{text}"));
    let set = |state: &str| {
        let admin = proxy.ready["admin"].as_str().unwrap();
        let name = format!("app/app.test:{port}");
        assert_eq!(call(ringway().args(["set", &name, state, "--admin", admin])).code, 0);
    };
    set("maint");
    assert_eq!(Client::get(proxy.edge(), "/").status, 503);
    dns.addresses("app.test", &["127.0.0.2"]);
    proxy
        .stderr
        .wait_for(|line| line.contains("endpoint came") && line.contains("127.0.0.2"))
        .expect("it came");
    // Its shards go over in the next tick.
    for _ in 0..20 {
        assert_eq!(Client::get(proxy.edge(), "/").status, 503);
        crate::support::pause(std::time::Duration::from_millis(20));
    }
    assert_eq!(two.request_count(), 0);
    set("ready");
    assert_eq!(Client::get(proxy.edge(), "/").text(), "two");
}

/// Nobody listens there.
fn closed() -> SocketAddr {
    crate::support::closed_port()
}

/// Under load, while endpoints come and go every second or so: no request notices.
#[test]
fn load_does_not_notice_endpoints_that_come_and_go() {
    let (dns, [one, _two]) = (Dns::start(), origins());
    let both = ["127.0.0.1", "127.0.0.2"];
    dns.addresses("app.test", &both);
    let port = one.address.port();
    let proxy = Proxy::start(&configuration(dns.address, &format!("endpoints = [\"app.test:{port}\"]")));
    let edge = proxy.edge();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let done = std::sync::Arc::clone(&done);
            std::thread::spawn(move || {
                let (mut client, mut requests) = (Client::connect(edge), 0);
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    let response = client.exchange(GET);
                    assert_eq!(response.status, 200, "request {requests}: {}", response.reason());
                    requests += 1;
                }
                requests
            })
        })
        .collect();
    for addresses in [&both[..1], &both[1..], &both[..], &both[1..]] {
        let asked = dns.asked();
        dns.addresses("app.test", addresses);
        // Two questions each time: what was asked before the change is answered by then.
        eventually("the name is asked for", || dns.asked() >= asked + 4);
    }
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    let requests: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(requests > 100, "{requests}");
    let gone = proxy.stderr.all().iter().filter(|line| line.contains("endpoint is gone")).count();
    assert!(gone >= 2, "{gone} endpoints went");
}

/// The resolver that many have at home: dnsmasq, restarted with another address, then not at all.
#[test]
fn dnsmasq_is_followed_and_its_death_survived() {
    let Some(dnsmasq) = program(&["dnsmasq"]) else { return skip("dnsmasq is not installed") };
    let [one, _two] = origins();
    let (dir, at) = (tempfile::tempdir().unwrap(), crate::support::programs::port());
    let hosts = dir.path().join("hosts");
    let start = |ip: &str| {
        std::fs::write(&hosts, format!("{ip} app.test\n")).unwrap();
        let mut command = Command::new(&dnsmasq);
        command.args([
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--local-ttl=1",
            "--bind-interfaces",
        ]);
        command.args(["--listen-address=127.0.0.1", "--conf-file=/dev/null", "--pid-file="]);
        command.arg(format!("--port={}", at.port())).arg(format!("--addn-hosts={}", hosts.display()));
        Ours::start(&mut command)
    };
    let first = start("127.0.0.1");
    let port = one.address.port();
    let text = configuration(at, &format!("endpoints = [\"app.test:{port}\"]"));
    let proxy = Proxy::start(&text);
    eventually("the name is found", || Client::get(proxy.edge(), "/").text() == "one");
    drop(first);
    let second = start("127.0.0.2");
    eventually("the other address", || Client::get(proxy.edge(), "/").text() == "two");
    drop(second);
    proxy.stderr.wait_for(|line| line.contains("what was known of it stands")).expect("the failure is told");
    (0..20).for_each(|_| assert_eq!(Client::get(proxy.edge(), "/").text(), "two"));
}
