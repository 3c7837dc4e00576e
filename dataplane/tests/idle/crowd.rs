//! A shard with many idle connections, in the simulator: each asked once and was answered.

use crate::bed::{Answer, Bed, say};
use crate::counting::weight;
use dataplane::buf::{Class, PoolSize};
use dataplane::limits;
use dataplane::spec::Protocol;
use std::time::Duration;

/// Clients that ask at a time: fewer than the bed's pool has buffers.
const AT_ONCE: usize = 10;
/// No idle connection is closed before this.
pub(crate) const IDLE: Duration = Duration::from_secs(3600);

/// What the connections are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Kept alive after one exchange.
    KeepAlive,
    /// A client and a link each, of a tcp listener.
    Tunnel,
    /// The same, joined by an Upgrade.
    Upgraded,
}

impl Kind {
    fn request(self) -> &'static str {
        match self {
            Self::KeepAlive => "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Self::Tunnel => "",
            Self::Upgraded => {
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            }
        }
    }
    /// How the answer ends.
    fn answer_end(self) -> &'static [u8] {
        match self {
            Self::KeepAlive => b"\r\n\r\nok",
            Self::Tunnel => b"",
            Self::Upgraded => b"\r\n\r\n",
        }
    }
}

/// A shard that holds `count` of them, at rest, and could hold `most`.
pub(crate) fn crowd(kind: Kind, count: usize, most: usize) -> Bed {
    let most = u32::try_from(most).expect("a number of clients");
    let pool = PoolSize { tiny: 2 * most + 64, small: 64, large: 16 };
    let mut bed = Bed::with_pool(pool, |listener, cluster| {
        listener.max_connections = most;
        if kind == Kind::Tunnel {
            listener.protocol = Protocol::Tcp;
        }
        listener.timeouts.idle = IDLE;
        listener.timeouts.tunnel_idle = IDLE;
        // One address has some 28,000 ports for one endpoint.
        cluster.source_addresses.ranges = vec![([127, 0, 1, 0].into(), [127, 0, 1, 255].into())];
    });
    bed.io.descriptor_limit = usize::MAX;
    if kind == Kind::Upgraded {
        let switches =
            say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        bed.io.world.answer = Answer::Script(vec![switches]);
    }
    let mut left = count;
    while left > 0 {
        let script = || (!kind.request().is_empty()).then(|| say(kind.request()));
        let clients: Vec<usize> = (0..AT_ONCE.min(left)).map(|_| bed.client(script())).collect();
        left -= clients.len();
        let opened = count - left;
        bed.run_until("everybody is answered", |bed| {
            (kind == Kind::KeepAlive || bed.shard.core.tunnels.len() as usize == opened)
                && clients.iter().all(|at| bed.end(*at).received.ends_with(kind.answer_end()))
        });
        // What the origin recorded is of no use here, and would outweigh the rest.
        bed.io.world.requests.clear();
    }
    bed.run_for(limits::PARK_AFTER * 2);
    let core = &bed.shard.core;
    let held = if kind == Kind::KeepAlive { core.conns.len() } else { core.tunnels.len() };
    assert_eq!(held as usize, count, "{}", bed.counted());
    bed
}

/// Heap bytes of a shard, and bytes of its pool that are leased: both pools are as large, only one is used.
fn weigh(bed: Bed) -> (u64, u64) {
    let Bed { shard, .. } = bed;
    let pool = &shard.core.pool;
    let leased = Class::ALL.iter().map(|class| u64::from(pool.leased(*class)) * class.stride() as u64).sum();
    (weight(shard), leased)
}

/// Bytes of a shard for each of its `count` connections or tunnels, beyond those of a shard with one: of its tables, and
/// of leases that they hold.
pub(crate) fn bytes_each(kind: Kind, full: Bed, count: usize) -> (f64, f64) {
    let (full, one) = (weigh(full), weigh(crowd(kind, 1, count)));
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let each = |full: u64, one: u64| full.saturating_sub(one) as f64 / (count - 1) as f64;
    (each(full.0, one.0), each(full.1, one.1))
}
