//! Bytes in one direction, as fast as they go, on each connection.

use super::line;
use super::plan::Direction;
use super::report::Error;
use super::shard::Desk;
use crate::clock;
use std::rc::Rc;

const WRITE_BYTES: usize = 256 * 1024;
static BYTES: [u8; WRITE_BYTES] = [b'x'; WRITE_BYTES];

pub(super) async fn stream(desk: Rc<Desk>) {
    let watch = desk.watch();
    watch.began.set(clock::now());
    let Ok(mut stream) = line::open(&desk, &watch).await else {
        desk.tally.borrow_mut().fail_many(Error::Connect, 1);
        return;
    };
    loop {
        let began = clock::now();
        if began >= desk.until.get() {
            return;
        }
        watch.began.set(began);
        let moved = match desk.plan.direction {
            Direction::Down => line::read(&desk, &watch, &mut stream, <[u8]>::len).await,
            Direction::Up => line::write_all(&watch, &mut stream, &BYTES).await.map(|()| BYTES.len()),
        };
        let mut tally = desk.tally.borrow_mut();
        match moved {
            Ok(len @ 1..) if desk.counts(clock::now()) => match desk.plan.direction {
                Direction::Down => tally.move_bytes(len as u64, 0),
                Direction::Up => tally.move_bytes(0, len as u64),
            },
            Ok(1..) => {}
            Ok(0) => return tally.fail_many(Error::Reset, 1),
            Err(error) => {
                let timeout = error.kind() == std::io::ErrorKind::TimedOut;
                return tally.fail_many(if timeout { Error::Timeout } else { Error::Reset }, 1);
            }
        }
    }
}
