//! A connection on its way from one process to the next: by the names of things, as the next one has other numbers.

use dataplane::io::SocketAddress;
use dataplane::plane::moved::{self, Moved, MovedExchange, MovedSide, MovedTunnel};
use dataplane::spec::{Cluster, Snapshot};
use rustix::net::sockopt::set_socket_linger;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// What the message says; bytes stand behind its line, and numbers say how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conn {
    listener: String,
    /// None of a unix socket's.
    peer: Option<SocketAddr>,
    announced: Option<Announced>,
    age_us: u64,
    requests: u32,
    wait_left_us: Option<u64>,
    received: usize,
    tunnel: Option<Tunnel>,
}

/// What a PROXY header said: where the client had connected to, and how many bytes of TLVs go on to endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Announced {
    destination: SocketAddr,
    tlvs: usize,
}

/// As [`MovedTunnel`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tunnel {
    route: Option<String>,
    cluster: Option<String>,
    /// Its address, as the configuration writes it.
    endpoint: Option<String>,
    sides: [Side; 2],
    idle_left_us: Option<u64>,
    up_bytes: u64,
    down_bytes: u64,
    reached: Option<Reached>,
    was: Option<Exchange>,
    name: usize,
    head_us: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Side {
    eof: bool,
    finished: bool,
    queued: usize,
    /// Two descriptors, of a pipe that holds so many bytes.
    pipe: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reached {
    attempts: u8,
    queue_us: Option<u32>,
    connect_us: u32,
    at_us: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Exchange {
    send_us: Option<u64>,
    age_us: u64,
    record: Option<usize>,
}

/// What comes from the process before this one, once all that listens is this one's.
#[derive(Debug)]
pub(crate) enum Arrival {
    Conn(Travelling),
    /// It accepts no more.
    Sockets,
    /// It gives nothing more and takes nothing back.
    Alone,
}

/// A connection between two processes.
#[derive(Debug)]
pub(crate) struct Travelling {
    pub(super) conn: Box<Conn>,
    /// The client's; of a tunnel the link's too, then the pipes' of the client's side and of the other, readers first.
    pub(super) sockets: Vec<OwnedFd>,
    pub(super) bytes: Vec<u8>,
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Travelling {
    /// None where its listener is not known.
    pub(crate) fn of(moved: Moved<OwnedFd>, snapshot: &Snapshot) -> Option<Self> {
        let mut sockets = Vec::with_capacity(2);
        let moved = moved.map(|socket| sockets.push(socket));
        let Some(listener) = snapshot.listener(moved.listener).map(|listener| listener.name.to_string())
        else {
            cut(&sockets, moved.tunnel.is_some());
            return None;
        };
        let Moved { peer, announced, age, requests, wait_left, bytes: mut all, tunnel, .. } = moved;
        let received = all.len();
        let announced = announced.map(|(destination, tlvs)| {
            all.extend_from_slice(&tlvs);
            Announced { destination: destination.into(), tlvs: tlvs.len() }
        });
        let tunnel = tunnel.map(|tunnel| Tunnel::of(*tunnel, snapshot, &mut all));
        let peer = (!peer.is_unix()).then(|| peer.into());
        let wait_left_us = wait_left.map(us);
        let age_us = us(age);
        let conn = Conn { listener, peer, announced, age_us, requests, wait_left_us, received, tunnel };
        Some(Self { conn: Box::new(conn), sockets, bytes: all })
    }

    /// What there is of it here.
    ///
    /// # Errors
    /// Its listener is not known, or it has lost something on the way: it is closed, and nobody takes that for its end.
    pub(crate) fn into_moved(self, snapshot: &Snapshot) -> Result<Moved<OwnedFd>, String> {
        let Self { conn, sockets, bytes } = self;
        let is_tunnel = conn.tunnel.is_some();
        let listener = match snapshot.listener_called(&conn.listener) {
            Some(listener) if conn.sockets() == sockets.len() && conn.bytes() == Some(bytes.len()) => {
                listener.id
            }
            found => {
                cut(&sockets, is_tunnel);
                return Err(match found {
                    None => format!("there is no listener {:?} any more", conn.listener),
                    Some(_) => "descriptors have run out".to_owned(),
                });
            }
        };
        let Conn { peer, announced, age_us, requests, wait_left_us, received, tunnel, .. } = *conn;
        let mut rest = Rest { sockets: sockets.into_iter(), bytes: &bytes };
        let moved = (|| {
            let (socket, received) = (rest.sockets.next()?, rest.take(received)?.to_vec());
            let announced = match announced {
                Some(said) => Some((said.destination.into(), rest.take(said.tlvs)?.into())),
                None => None,
            };
            let tunnel = match tunnel {
                Some(tunnel) => Some(Box::new(tunnel.into_moved(snapshot, &mut rest)?)),
                None => None,
            };
            let peer = peer.map_or(SocketAddress::UNIX, SocketAddress::from);
            let (age, wait_left) = (Duration::from_micros(age_us), wait_left_us.map(Duration::from_micros));
            let bytes = received;
            Some(Moved { socket, listener, peer, announced, age, requests, wait_left, bytes, tunnel })
        })();
        moved.ok_or_else(|| "it is not whole".to_owned())
    }
}

/// Closes what cannot go on: a tunnel by resets, so that what has come does not look like all of it.
fn cut(sockets: &[OwnedFd], is_tunnel: bool) {
    for socket in sockets.iter().take(2).filter(|_| is_tunnel) {
        // Where the option cannot be set the socket is gone already.
        let _ = set_socket_linger(socket, Some(Duration::ZERO));
    }
}

impl Conn {
    /// How many descriptors belong to it.
    fn sockets(&self) -> usize {
        let of_tunnel =
            |tunnel: &Tunnel| 1 + 2 * tunnel.sides.iter().filter(|side| side.pipe.is_some()).count();
        1 + self.tunnel.as_ref().map_or(0, of_tunnel)
    }
    /// How many bytes do; none where that is no number.
    fn bytes(&self) -> Option<usize> {
        let tlvs = self.announced.as_ref().map_or(0, |said| said.tlvs);
        let of_tunnel = self.tunnel.as_ref().map_or([0; 4], |tunnel| {
            let record = tunnel.was.as_ref().and_then(|was| was.record).unwrap_or(0);
            let [one, other] = &tunnel.sides;
            [one.queued, other.queued, record, tunnel.name]
        });
        let all = of_tunnel.iter().chain([&tlvs]);
        all.copied().try_fold(self.received, usize::checked_add)
    }
}

/// What of a message was not taken yet.
struct Rest<'a> {
    sockets: std::vec::IntoIter<OwnedFd>,
    bytes: &'a [u8],
}

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(taken)
    }
}

impl Tunnel {
    fn of(moved: MovedTunnel<()>, snapshot: &Snapshot, all: &mut Vec<u8>) -> Self {
        let mut put = |bytes: &[u8]| {
            all.extend_from_slice(bytes);
            bytes.len()
        };
        let cluster = moved.cluster.and_then(|id| snapshot.cluster(id));
        let endpoint = moved.endpoint.and_then(|id| cluster?.endpoints.get(usize::from(id.0)));
        let route = moved.route.and_then(|id| snapshot.routes.named(id));
        let sides = moved.sides.map(|side| Side {
            eof: side.eof,
            finished: side.finished,
            queued: put(&side.queued),
            pipe: side.pipe.map(|(_, held)| held),
        });
        let was = moved.was.map(|was| Exchange {
            send_us: was.send.map(us),
            age_us: us(was.age),
            record: was.record.map(|record| put(&record)),
        });
        let reached = moved.reached.map(|reached| Reached {
            attempts: reached.attempts,
            queue_us: reached.queue_us.map(u32::from),
            connect_us: reached.connect_us,
            at_us: reached.at_us,
        });
        Self {
            route: route.map(|route| route.name.to_string()),
            cluster: cluster.map(|cluster| cluster.name.to_string()),
            endpoint: endpoint.map(|endpoint| endpoint.address.to_string()),
            sides,
            idle_left_us: moved.idle_left.map(us),
            up_bytes: moved.up_bytes,
            down_bytes: moved.down_bytes,
            reached,
            was,
            name: put(&moved.name),
            head_us: moved.head_us,
        }
    }

    fn into_moved(self, snapshot: &Snapshot, rest: &mut Rest<'_>) -> Option<MovedTunnel<OwnedFd>> {
        let cluster = self.cluster.and_then(|name| {
            snapshot.clusters.iter().flatten().find(|cluster| !cluster.gone && *cluster.name == *name)
        });
        let at = |cluster: &Arc<Cluster>, address: String| {
            let mut endpoints = cluster.endpoints.iter().filter(|endpoint| !endpoint.gone);
            endpoints.find(|endpoint| endpoint.address.to_string() == address).map(|endpoint| endpoint.id)
        };
        let route = self.route.and_then(|name| snapshot.routes.iter().find(|route| *route.name == *name));
        let link = rest.sockets.next()?;
        let [one, other] = self.sides;
        let mut side = |side: Side| {
            let queued = rest.take(side.queued)?.to_vec();
            let pipe = match side.pipe {
                Some(held) => Some(([rest.sockets.next()?, rest.sockets.next()?], held)),
                None => None,
            };
            Some(MovedSide { eof: side.eof, finished: side.finished, queued, pipe })
        };
        let sides = [side(one)?, side(other)?];
        let was = match self.was {
            Some(was) => Some(MovedExchange {
                send: was.send_us.map(Duration::from_micros),
                age: Duration::from_micros(was.age_us),
                record: match was.record {
                    Some(len) => Some(rest.take(len)?.to_vec()),
                    None => None,
                },
            }),
            None => None,
        };
        let reached = self.reached.map(|reached| moved::Reached {
            attempts: reached.attempts,
            queue_us: reached.queue_us.and_then(std::num::NonZeroU32::new),
            connect_us: reached.connect_us,
            at_us: reached.at_us,
        });
        Some(MovedTunnel {
            link,
            route: route.map(|route| route.id),
            endpoint: cluster.zip(self.endpoint).and_then(|(cluster, address)| at(cluster, address)),
            cluster: cluster.map(|cluster| cluster.id),
            sides,
            idle_left: self.idle_left_us.map(Duration::from_micros),
            up_bytes: self.up_bytes,
            down_bytes: self.down_bytes,
            reached,
            was,
            name: rest.take(self.name)?.into(),
            head_us: self.head_us,
        })
    }
}
