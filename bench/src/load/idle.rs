//! Connections that asked once and are then held.

use super::drive;
use super::line::{self, Watch};
use super::plan::Mode;
use super::report::Error;
use super::shard::Desk;
use crate::clock::{self, MILLISECOND};
use glommio::net::TcpStream;
use std::cell::Cell;
use std::io::{self, Write as _};
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
        let Ok(mut stream) = line::open(&desk, &watch).await else {
            watch.aborted.set(false);
            desk.tally.borrow_mut().fail_many(Error::Connect, 1);
            continue;
        };
        let answered = ask(&desk, &watch, &mut stream).await;
        watch.began.set(0);
        let counts = desk.plan.mode == Mode::Idle;
        match answered {
            Ok(Some(down)) => {
                let sent = desk.plan.idle_request.len();
                desk.tally.borrow_mut().succeed(counts, clock::now() - began, down, sent);
                held.push(stream);
            }
            Ok(None) => desk.tally.borrow_mut().fail_many(Error::Status, 1),
            Err(error) => {
                watch.aborted.set(false);
                let timeout = error.kind() == io::ErrorKind::TimedOut;
                desk.tally.borrow_mut().fail_many(if timeout { Error::Timeout } else { Error::Reset }, 1);
            }
        }
    }
    held
}

/// One exchange: the bytes that came back, or `None` for a response that says no.
async fn ask(desk: &Desk, watch: &Watch, stream: &mut TcpStream) -> io::Result<Option<u64>> {
    line::write_all(watch, stream, &desk.plan.idle_request).await?;
    if desk.plan.echoes {
        return drive::echo(desk, watch, stream).await.map(Some);
    }
    let (response, down) = drive::answer(desk, watch, stream).await?;
    Ok((response.status < 400).then_some(down))
}

/// Says that all are open, and holds them until the run is over.
#[expect(clippy::print_stdout, reason = "whoever started the generator waits for this line")]
pub(super) async fn hold(desk: &Desk) {
    if desk.index == 0 {
        println!("{}", serde_json::json!({ "idle": desk.shared.held.load(Ordering::Relaxed) }));
        // Who cannot be told will end us all the same.
        let _ = io::stdout().flush();
    }
    // The watchdog moves the end to now when standard input closes.
    while clock::now() < desk.until.get() {
        glommio::timer::sleep(Duration::from_nanos(20 * MILLISECOND)).await;
    }
}
