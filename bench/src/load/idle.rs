//! Connections that asked once and are then held.

use super::drive;
use super::line;
use super::plan::Mode;
use super::report::Error;
use super::shard::Desk;
use crate::clock::{self, MILLISECOND};
use glommio::net::TcpStream;
use std::cell::Cell;
use std::io::Write as _;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Connections that an executor opens at a time: fewer than a listener's queue holds.
const OPENERS: u32 = 64;

/// Opens this executor's idle connections, asks once on each and reads the answer.
pub(super) async fn open(desk: &Rc<Desk>) -> Vec<TcpStream> {
    let wanted = desk.plan.share(desk.plan.idle, desk.index);
    let left = Rc::new(Cell::new(wanted));
    let mut openers = Vec::new();
    for _ in 0..OPENERS.min(wanted) {
        openers.push(desk.spawn(opener(Rc::clone(desk), Rc::clone(&left))));
    }
    let mut held = Vec::new();
    for opener in openers {
        held.append(&mut opener.await);
    }
    desk.shared.held.fetch_add(u32::try_from(held.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    held
}

async fn opener(desk: Rc<Desk>, left: Rc<Cell<u32>>) -> Vec<TcpStream> {
    let (mut held, watch) = (Vec::new(), desk.watch());
    while left.get() > 0 {
        left.set(left.get() - 1);
        let began = clock::now();
        watch.began.set(began);
        let Ok(mut stream) = line::connect(&desk, desk.source()) else {
            desk.tally.borrow_mut().fail_many(Error::Connect, 1);
            continue;
        };
        let asked = line::write_all(&watch, &mut stream, &desk.plan.idle_request).await;
        let answered = match asked {
            Ok(()) => drive::answer(&desk, &watch, &mut stream).await,
            Err(error) => Err(error),
        };
        watch.began.set(0);
        let counts = desk.plan.mode == Mode::Idle;
        match answered {
            Ok((response, down)) if response.status < 400 => {
                let sent = desk.plan.idle_request.len();
                desk.tally.borrow_mut().succeed(counts, clock::now() - began, down, sent);
                held.push(stream);
            }
            Ok(_) => desk.tally.borrow_mut().fail_many(Error::Status, 1),
            Err(error) => {
                watch.aborted.set(false);
                let timeout = error.kind() == std::io::ErrorKind::TimedOut;
                desk.tally.borrow_mut().fail_many(if timeout { Error::Timeout } else { Error::Reset }, 1);
            }
        }
    }
    held
}

/// Says that all are open, and holds them until the run is over.
#[expect(clippy::print_stdout, reason = "whoever started the generator waits for this line")]
pub(super) async fn hold(desk: &Desk) {
    if desk.index == 0 {
        println!("{}", serde_json::json!({ "idle": desk.shared.held.load(Ordering::Relaxed) }));
        // Who cannot be told will end us all the same.
        let _ = std::io::stdout().flush();
    }
    // The watchdog moves the end to now when standard input closes.
    while clock::now() < desk.until.get() {
        glommio::timer::sleep(Duration::from_nanos(20 * MILLISECOND)).await;
    }
}
