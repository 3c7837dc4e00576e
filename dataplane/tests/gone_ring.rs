//! A message to a ring that is gone fails. Alone in its process, where nobody else opens a ring under the descriptor's number.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use dataplane::buf::{Pool, PoolSize};
use dataplane::io::{Errno, Fd, Io, Kind, Message, Mono, Outcome, Token};
use dataplane::spec::ListenerId;
use dataplane::sys::{Ring, RingOptions, probe};

#[test]
fn a_message_to_a_ring_that_is_gone_fails() {
    let options = RingOptions { submission_entries: 8, completion_entries: 64 };
    let mut pool = Pool::new(PoolSize { tiny: 8, small: 16, large: 8 });
    let ring = || Ring::new(probe().unwrap(), options).unwrap();
    let (mut ours, gone) = (ring(), ring());
    ours.connect_shards([ours.fd(), gone.fd()].into());
    drop(gone);
    // The second of them was never there.
    for (shard, errnos) in [(1, [libc::EBADF, libc::EBADFD, libc::EOWNERDEAD]), (2, [libc::EBADF; 3])] {
        let message = Message::Conn { listener: ListenerId(7), fd: Fd(1) };
        ours.post(shard, message, Token::new(Kind::Post, u32::from(shard), 1));
        let mut out = Vec::new();
        ours.turn(&mut pool, Mono::MAX, &mut out).unwrap();
        let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(Errno(e)) if errnos.contains(e));
        assert!(out.len() == 1 && failed(&out[0].outcome), "shard {shard}: {out:?}");
    }
    assert!(ours.reclaim(&mut pool));
}
