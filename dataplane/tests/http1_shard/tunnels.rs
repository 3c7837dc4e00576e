//! Tunnels: copied while they talk, spliced while they pour, and every way in which they end.

use crate::bed::{Answer, Bed, millis, say, seconds, wait};
use dataplane::limits;
use dataplane::sim::Fault;
use dataplane::sim::peers::Act;
use dataplane::sim::random::ALWAYS;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
pub(crate) const LEN: usize = 3_000_000;
/// The origin's end of the first link.
pub(crate) const LINK: usize = 1;

/// Bytes of one direction; never a blank line.
pub(crate) fn bytes(first: u8) -> Vec<u8> {
    (0..LEN).map(|n| first + u8::try_from(n % 23).unwrap()).collect()
}

pub(crate) fn pour(bytes: &[u8]) -> Vec<Act> {
    bytes.chunks(200_000).flat_map(|piece| [say(piece), wait(millis(1))]).collect()
}

/// A tunnel of which nothing was said yet. The client may be deaf to what comes behind the head.
pub(crate) fn open(bed: &mut Bed, deaf: bool) -> usize {
    bed.io.world.answer = Answer::Script(vec![say(SWITCH)]);
    let client = if deaf { bed.deaf_client([say(UPGRADE)]) } else { bed.client([say(UPGRADE)]) };
    let others = bed.shard.core.tunnels.len();
    bed.run_until("the tunnel stands", |bed| bed.shard.core.tunnels.len() > others);
    client
}

fn spliced(bed: &Bed) -> usize {
    usize::try_from(bed.stats.spliced_bytes.get()).unwrap()
}

/// What came up the first tunnel, and down to a client.
pub(crate) fn arrived(bed: &Bed, client: usize) -> (&[u8], &[u8]) {
    let head = bed.end(client).received.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
    (bed.end(LINK).unfinished(), &bed.end(client).received[head..])
}

fn leaves_nothing(mut bed: Bed, client: usize, counted: &str) {
    bed.leave(client);
    bed.check_empty().unwrap();
    assert_eq!(bed.io.pipes_out(), 0);
    assert_eq!(bed.counted(), counted);
}

#[test]
fn both_directions_pour_and_are_closed_one_after_the_other() {
    let mut bed = Bed::new(|_, _| {});
    let client = open(&mut bed, false);
    bed.stay(LINK);
    let mut up = pour(&bytes(b'a'));
    up.push(Act::Finish);
    bed.tell(client, up);
    bed.tell(LINK, pour(&bytes(b'B')));
    bed.run_script(client);
    bed.run_for(seconds(1));
    assert!(arrived(&bed, client) == (&bytes(b'a')[..], &bytes(b'B')[..]));
    assert!(spliced(&bed) > 2 * LEN - 1_000_000, "{} bytes were spliced", spliced(&bed));
    // Half-closed: the other direction goes on.
    assert_eq!(bed.shard.core.tunnels.len(), 1);
    bed.tell(LINK, [say("last words"), Act::Close]);
    bed.run_for(seconds(1));
    assert!(bed.end(client).received.ends_with(b"last words"));
    let counted = (bed.stats.tunnel_bytes_up.get(), bed.stats.tunnel_bytes_down.get());
    assert_eq!(counted, (LEN as u64, LEN as u64 + 10));
    leaves_nothing(bed, client, "tunnel_ended");
}

#[test]
fn talk_is_copied_and_a_pour_that_becomes_talk_is_copied_again() {
    let mut bed = Bed::new(|_, _| {});
    let client = open(&mut bed, false);
    let talk = |bed: &mut Bed, turns: usize| {
        for _ in 0..turns {
            bed.tell(client, [say([b'q'; 64])]);
            bed.run_for(millis(1));
            bed.tell(LINK, [say([b'r'; 64])]);
            bed.run_for(millis(1));
        }
    };
    talk(&mut bed, 20);
    assert_eq!(spliced(&bed), 0, "64 bytes at a time");
    bed.tell(client, pour(&bytes(b'a')));
    bed.run_script(client);
    let poured = spliced(&bed);
    assert!(poured > LEN / 2);
    talk(&mut bed, 40);
    let talked = spliced(&bed) - poured;
    assert!(talked <= 64 * usize::from(limits::DEMOTE_SPLICES), "{talked} bytes of talk were spliced");
    let (up, down) = arrived(&bed, client);
    assert_eq!((up.len(), down.len()), (LEN + 60 * 64, 60 * 64));
    bed.leave(client);
    bed.run_for(seconds(1));
    bed.tell(LINK, [Act::Close]);
    leaves_nothing(bed, client, "tunnel_ended");
}

/// A tunnel whose client takes nothing, with bytes in a pipe.
fn stuck(change: impl FnOnce(&mut dataplane::spec::Listener, &mut dataplane::spec::Cluster)) -> (Bed, usize) {
    let mut bed = Bed::new(change);
    let client = open(&mut bed, true);
    bed.tell(LINK, pour(&bytes(b'B')));
    bed.run_until("a pipe holds what the client does not take", |bed| bed.io.pipes_out() == 1);
    (bed, client)
}

#[test]
fn a_reset_of_either_side_ends_both() {
    for (side, word) in [(0, "tunnel_reset"), (LINK, "origin_reset")] {
        let (mut bed, client) = stuck(|_, _| {});
        // A side that is not read from is noticed once the other moves.
        bed.tell(side, [Act::Reset]);
        if side == LINK {
            bed.hear(client);
        }
        bed.run_until("the conn is gone", |bed| bed.conn().is_none());
        assert_eq!(bed.io.pipes_out(), 0);
        leaves_nothing(bed, client, word);
    }
}

#[test]
fn a_tunnel_in_which_nothing_moves_is_closed() {
    let (mut bed, client) = stuck(|listener, _| listener.timeouts.tunnel_idle = seconds(3));
    let since = bed.now();
    let ended = bed.run_until("the conn is gone", |bed| bed.conn().is_none());
    let waited = ended.since(since);
    assert!((2_900_000_000..3_100_000_000).contains(&waited), "after {waited} ns, not after 3 s");
    leaves_nothing(bed, client, "tunnel_idle");
}

#[test]
fn draining_cuts_what_pours() {
    let (mut bed, client) = stuck(|_, _| {});
    bed.drain(seconds(2));
    let since = bed.now();
    let ended = bed.run_until("the conn is gone", |bed| bed.conn().is_none());
    assert!((1_900_000_000..2_100_000_000).contains(&ended.since(since)));
    bed.leave(client);
    assert_eq!((bed.io.pipes_out(), bed.counted().as_str()), (0, "drain_cut"));
}

/// Those that stall hold all pipes but the last; one that moves goes on by splice.
#[test]
fn flows_that_stall_leave_a_pipe_to_those_that_move() {
    let mut bed = Bed::new(|_, _| {});
    bed.io.limit_pipes(3);
    let mut clients = Vec::new();
    for n in 0..4 {
        clients.push(open(&mut bed, true));
        bed.tell(2 * n + 1, pour(&bytes(b'B')));
        bed.run_for(millis(200));
        assert_eq!(bed.io.pipes_out(), (n + 1).min(2));
    }
    let before = spliced(&bed);
    let moving = open(&mut bed, false);
    bed.tell(2 * 4 + 1, pour(&bytes(b'M')));
    bed.run_for(seconds(1));
    assert!(bed.end(moving).received.ends_with(&bytes(b'M')));
    assert!(spliced(&bed) - before > LEN / 2, "it was copied");
    for client in clients {
        bed.hear(client);
        bed.run_for(seconds(1));
        assert!(bed.end(client).received.ends_with(&bytes(b'B')));
    }
    assert_eq!(bed.io.pipes_out(), 0);
}

#[test]
fn without_pipes_all_is_copied() {
    let mut bed = Bed::new(|_, _| {});
    bed.io.net.faults = bed.io.net.faults.clone().with(Fault::NoPipe, ALWAYS);
    let client = open(&mut bed, false);
    let mut up = pour(&bytes(b'a'));
    up.push(Act::Finish);
    bed.tell(client, up);
    let mut down = pour(&bytes(b'B'));
    down.push(Act::Close);
    bed.tell(LINK, down);
    bed.run_script(client);
    bed.run_for(seconds(1));
    assert!(arrived(&bed, client) == (&bytes(b'a')[..], &bytes(b'B')[..]));
    assert_eq!(spliced(&bed), 0);
    assert!(bed.io.net.faults.count(Fault::NoPipe) > 2, "it is tried again");
    leaves_nothing(bed, client, "tunnel_ended");
}
