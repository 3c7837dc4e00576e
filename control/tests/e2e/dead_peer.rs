//! Peers that vanish without a word, downstream and upstream, while silent and while being sent to: found in time.

use crate::support::client::Client;
use crate::support::namespace::{FAR, NEAR, Namespaces};
use crate::support::origin::Origin;
use crate::support::pause;
use crate::support::proxy::Proxy;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The shortest that may be configured.
const DEAD_PEER: Duration = Duration::from_secs(5);

/// Greets, and where it is asked to goes on sending for as long as somebody takes it.
fn origin() -> Origin {
    Origin::scripted(|connection| {
        let asked = connection.raw();
        connection.send(b"!");
        if asked == b"talk" {
            while connection.send(b".") {
                pause(Duration::from_millis(50));
            }
        }
        connection.until_closed();
    })
}

fn configuration(near: SocketAddr, far: SocketAddr) -> String {
    let listener = |name: &str, address: String, cluster: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\nprotocol = \"tcp\"\ncluster = \"{cluster}\"\n\
             [listener.timeouts]\ndead_peer = \"5s\"\n"
        )
    };
    let cluster = |name: &str, endpoint: SocketAddr| {
        format!(
            "[[cluster]]\nname = \"{name}\"\nendpoints = [\"{endpoint}\"]\n[cluster.timeouts]\ndead_peer = \"5s\"\n"
        )
    };
    [
        "[runtime]\nshards = 1\n[[access_log]]\nto = \"stdout\"\n".to_owned(),
        listener("in", format!("{NEAR}:0"), "near"),
        listener("out", "127.0.0.1:0".to_owned(), "far"),
        cluster("near", near),
        cluster("far", far),
    ]
    .concat()
}

fn greeted(to: SocketAddr, asks: &[u8]) -> TcpStream {
    let mut stream = Client::connect(to).stream;
    stream.write_all(asks).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

#[test]
fn a_peer_that_vanished_is_found_on_both_legs() {
    let Some(network) = Namespaces::new() else { return };
    let near = network.near(origin);
    let listener = network.far(|| TcpListener::bind((FAR, 0)).unwrap());
    let text = configuration(near.address, listener.local_addr().unwrap());
    let proxy = network.near(|| Proxy::start(&text));
    let silent = network.far(|| greeted(proxy.address("in"), b"idle"));
    let talked_to = network.far(|| greeted(proxy.address("in"), b"talk"));
    let mut waiting = network.near(|| Client::connect(proxy.address("out")).stream);
    waiting.write_all(b"hello").unwrap();
    let (mut taken, _) = listener.accept().unwrap();
    taken.read_exact(&mut [0; 5]).unwrap();

    network.vanish();
    let begun = Instant::now();
    let clients =
        [silent.local_addr().unwrap(), talked_to.local_addr().unwrap(), waiting.local_addr().unwrap()];
    for (client, word) in clients.into_iter().zip(["dead_peer", "dead_peer", "dead_origin"]) {
        let line = proxy.log_line(|line| line["client"] == client.to_string());
        let after = begun.elapsed();
        assert_eq!(line["close"], word, "{line}");
        let in_time = Duration::from_secs(2)..DEAD_PEER + Duration::from_secs(1);
        assert!(in_time.contains(&after), "after {after:?}: {line}");
    }
    // The other side sees a cut, not an end.
    let end = waiting.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}
