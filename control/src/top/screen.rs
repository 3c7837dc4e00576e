//! The terminal: made a screen, drawn on, and given back as it was, however this ends.

use super::ask::{Seen, Source};
use super::state::{Next, State};
use super::{Looks, draw};
use crate::cli::complain;
use crate::exit::Exit;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// What the other threads tell the one that draws.
enum Told {
    Event(Event),
    Answer(Instant, Result<Seen, String>),
    /// A signal, or the end of the terminal.
    End,
}

/// What may wait to be drawn.
const WAITING: usize = 64;
/// How long a screen stands at most: the seconds since the last answer are on it.
const REDRAW: Duration = Duration::from_millis(500);

/// The terminal is as it was before once this is dropped; where the thread panics, ratatui's hook does it before the panic's words.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to restore.
        let _ = ratatui::try_restore();
    }
}

/// Shows what `source` says until somebody leaves.
pub(super) fn show(source: Source, every: Duration, looks: Looks) -> Exit {
    let mut state = State::new(source.address(), every);
    let restore = Restore;
    let shown = ratatui::try_init().and_then(|mut terminal| {
        let (tell, told) = mpsc::sync_channel(WAITING);
        let (_asks_no_more, go_on) = mpsc::channel();
        let asking = start("top-ask", &tell, move |tell| ask(&source, every, &go_on, tell))?;
        start("top-keys", &tell, keys)?;
        start("top-signals", &tell, signals)?;
        run(&mut terminal, &mut state, looks, &told, || asking.is_finished())
    });
    drop(restore);
    match shown {
        Ok(exit) => exit,
        Err(error) => {
            complain(&format!("the terminal: {error}"));
            Exit::Machine
        }
    }
}

fn start(
    name: &str,
    tell: &SyncSender<Told>,
    work: impl FnOnce(&SyncSender<Told>) + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let tell = tell.clone();
    thread::Builder::new().name(name.to_owned()).spawn(move || work(&tell))
}

fn run(
    terminal: &mut DefaultTerminal,
    state: &mut State,
    looks: Looks,
    told: &Receiver<Told>,
    asks_no_more: impl Fn() -> bool,
) -> io::Result<Exit> {
    let injects_panic = std::env::var("RINGWAY_INJECT").is_ok_and(|asked| asked == "panic");
    loop {
        terminal.draw(|frame| draw::draw(frame, state, looks, Instant::now()))?;
        // For the test of what a panic leaves behind, as a shard's (`run`).
        assert!(state.numbers.is_none() || !injects_panic, "a panic was injected");
        let mut next = told.recv_timeout(REDRAW);
        // All that waits is drawn once.
        loop {
            match next {
                Ok(Told::Event(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if state.key(key) == Next::Leave {
                        return Ok(Exit::Clean);
                    }
                }
                // A resize is seen by the next drawing.
                Ok(Told::Event(_)) => {}
                Ok(Told::Answer(at, answer)) => state.took(at, answer),
                Ok(Told::End) | Err(RecvTimeoutError::Disconnected) => return Ok(Exit::Clean),
                Err(RecvTimeoutError::Timeout) => break,
            }
            next = told.try_recv().map_err(|_| RecvTimeoutError::Timeout);
        }
        if asks_no_more() {
            return Ok(Exit::Internal);
        }
    }
}

/// Asks, waits, and asks again, until nobody listens any more.
fn ask(source: &Source, every: Duration, go_on: &Receiver<()>, tell: &SyncSender<Told>) {
    loop {
        let answer = source.ask();
        let told = tell.send(Told::Answer(Instant::now(), answer));
        if told.is_err() || go_on.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn keys(tell: &SyncSender<Told>) {
    while let Ok(event) = event::read() {
        if tell.send(Told::Event(event)).is_err() {
            return;
        }
    }
    let _ = tell.send(Told::End);
}

/// Whoever ends us from outside gets the terminal back too.
fn signals(tell: &SyncSender<Told>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let came = runtime.block_on(async {
        let (mut term, mut hup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        let (mut int, mut quit) = (signal(SignalKind::interrupt())?, signal(SignalKind::quit())?);
        tokio::select! {
            _ = term.recv() => {}
            _ = hup.recv() => {}
            _ = int.recv() => {}
            _ = quit.recv() => {}
        }
        io::Result::Ok(())
    });
    if came.is_ok() {
        let _ = tell.send(Told::End);
    }
}
