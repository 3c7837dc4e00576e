//! Links to origins: dying origins, stale and polluted pooled links, what is tried again and what is not.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::origin::{Origin, sized};
use crate::support::proxy::Setup;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Threat B01, B02: requests that can be replayed do not notice.
#[test]
fn an_origin_killed_in_mid_load_costs_no_get_its_answer() {
    let origins = ["one", "two", "three"].map(Origin::saying);
    let endpoints = origins.each_ref().map(|origin| origin.address);
    let proxy = Setup { runtime: "shards = 4", endpoints: &endpoints, ..Setup::default() }.start();
    let edge = proxy.edge();
    let done = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                let mut client = Client::connect(edge);
                for n in 0..250 {
                    let response = client.exchange(&format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
                    assert_eq!(response.status, 200, "request {n}: {}", response.reason());
                    done.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    eventually("some load", || done.load(SeqCst) > 200);
    origins[1].kill();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(done.load(SeqCst), 1000);
}

#[test]
fn a_failed_connect_goes_to_the_next_endpoint() {
    let origin = Origin::saying("alive");
    let dead = [crate::support::closed_port(), crate::support::closed_port()];
    let proxy = Setup { endpoints: &[dead[0], dead[1], origin.address], ..Setup::default() }.start();
    for n in 0..9 {
        // A POST too: nothing of it was written.
        let request =
            format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        assert_eq!(Client::once(proxy.edge(), &request).text(), "alive");
    }
    let line = proxy.log_line(|line| line["attempts"].as_u64() > Some(1));
    assert_eq!(line["status"], 200);
    assert_eq!(line["endpoint"], origin.address.to_string());
}

/// Threat B03: an origin that closes each idle link without saying so.
#[test]
fn stale_pooled_links_cost_no_get_its_answer() {
    let origin = Origin::scripted(|connection| {
        if connection.request().is_some() {
            connection.send(sized(200, b"ok"));
        }
    });
    let proxy = Setup { runtime: "shards = 1", endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for n in 0..200 {
        let response = client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(response.status, 200, "request {n}: {}", response.reason());
    }
    assert_eq!(origin.request_count(), 200);
}

/// Threat R12: a request that is not idempotent is sent once, whatever happens.
#[test]
fn a_post_is_never_sent_twice() {
    let origin = Origin::scripted(|connection| {
        // Every second request of a link is read and left without an answer.
        if connection.request().is_some() {
            connection.send(sized(200, b"ok"));
        }
        let _ = connection.request();
    });
    let proxy = Setup { runtime: "shards = 1", endpoints: &[origin.address], ..Setup::default() }.start();
    let mut lost = 0;
    for n in 0..20 {
        let request =
            format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        let response = Client::once(proxy.edge(), &request);
        lost += usize::from(response.status == 502);
        assert!(matches!(response.status, 200 | 502), "{response:?}");
    }
    assert_eq!(lost, 10, "the second of each link");
    let mut targets: Vec<_> = origin.requests().iter().map(|request| request.target.clone()).collect();
    assert_eq!(targets.len(), 20);
    targets.sort();
    targets.dedup();
    assert_eq!(targets.len(), 20, "each exactly once");
}

/// The same origin, and GETs: the second of a link is tried again on a fresh one.
#[test]
fn a_get_on_a_link_that_dies_is_tried_once_more() {
    let origin = Origin::scripted(|connection| {
        if connection.request().is_some() {
            connection.send(sized(200, b"ok"));
        }
        let _ = connection.request();
    });
    let proxy = Setup { runtime: "shards = 1", endpoints: &[origin.address], ..Setup::default() }.start();
    for _ in 0..10 {
        assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    }
}

/// Invariant 19: what an idle link says unasked discards it.
#[test]
fn unsolicited_bytes_discard_an_idle_link() {
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let (said, heard) = std::sync::mpsc::channel::<()>();
    let said = std::sync::Mutex::new(said);
    let origin = Origin::scripted(move |connection| {
        if connection.request().is_none() {
            return;
        }
        connection.send(sized(200, b"ok"));
        if connection.number == 0 {
            let _ = gate.lock().unwrap().recv();
            connection.send(sized(200, b"evil"));
            // The peer closes for it.
            connection.until_closed();
            let _ = said.lock().unwrap().send(());
        } else {
            while connection.request().is_some() {
                connection.send(sized(200, b"ok"));
            }
        }
    });
    let proxy = Setup { runtime: "shards = 1", endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    let ask = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(client.exchange(ask).text(), "ok");
    go.send(()).unwrap();
    heard.recv_timeout(crate::support::PATIENCE).expect("the link's end");
    for _ in 0..3 {
        assert_eq!(client.exchange(ask).text(), "ok");
    }
    assert_eq!(origin.connection_count(), 2);
}

#[test]
fn a_link_is_kept_for_its_idle_timeout_and_its_number_of_requests() {
    let origin = Origin::saying("ok");
    let proxy = Setup {
        runtime: "shards = 1",
        pool: "requests_per_connection = 3",
        endpoints: &[origin.address],
        ..Setup::default()
    }
    .start();
    for _ in 0..9 {
        assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    }
    assert_eq!(origin.connection_count(), 3);

    let (ended, end) = std::sync::mpsc::channel::<()>();
    let ended = std::sync::Mutex::new(ended);
    let origin = Origin::scripted(move |connection| {
        while connection.request().is_some() {
            connection.send(sized(200, b"ok"));
        }
        let _ = ended.lock().unwrap().send(());
    });
    let proxy =
        Setup { pool: "idle_timeout = \"100ms\"", endpoints: &[origin.address], ..Setup::default() }.start();
    assert_eq!(Client::get(proxy.edge(), "/").status, 200);
    end.recv_timeout(std::time::Duration::from_secs(3)).expect("the idle link's end");
}

#[test]
fn an_origin_that_says_close_is_believed() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    let proxy = Setup { runtime: "shards = 1", endpoints: &[origin.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for _ in 0..5 {
        // The link's fate is not the client's.
        let response = client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((response.status, response.field("connection")), (200, None));
    }
    assert_eq!(origin.connection_count(), 5);
}

/// Threat B02: an endpoint that accepts, reads and dies must not get the repeated request as well.
#[test]
fn the_second_try_avoids_an_endpoint_that_dies_under_requests() {
    let dying = Origin::scripted(|connection| {
        // One good answer on each connection, so that links of it are pooled; then death under the request.
        if connection.head().is_some() {
            connection.send(sized(200, b"once"));
            let _ = connection.head();
        }
    });
    let sound = Origin::saying("sound");
    let proxy = Setup { endpoints: &[dying.address, sound.address], ..Setup::default() }.start();
    let mut client = Client::connect(proxy.edge());
    for n in 0..60 {
        let response = client.exchange(&format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(response.status, 200, "request {n}: {}", response.reason());
    }
}

/// Threat D04: clients that reset before, while and after they speak cost nothing but themselves.
#[test]
fn storms_of_resets_are_weathered() {
    let origin = Origin::saying("one");
    let proxy = Setup { endpoints: &[origin.address], ..Setup::default() }.start();
    for text in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        for _ in 0..300 {
            let mut client = Client::connect(proxy.edge());
            client.send_anyway(text);
            client.reset();
        }
    }
    assert_eq!(Client::get(proxy.edge(), "/").status, 200);
}

/// Threat D06: a source address that is not ours, asked for by many requests at once.
#[test]
fn sources_that_cannot_be_bound_are_refused_each() {
    let origin = Origin::saying("one");
    // TEST-NET-3: nobody's address.
    let cluster = "source_addresses = [\"203.0.113.1\"]";
    let proxy = Setup { endpoints: &[origin.address], cluster, ..Setup::default() }.start();
    let mut clients: Vec<_> = (0..50).map(|_| Client::connect(proxy.edge())).collect();
    clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    for mut client in clients {
        let response = client.response("GET");
        assert_eq!((response.status, response.reason()), (503, "ports_exhausted"));
    }
}
