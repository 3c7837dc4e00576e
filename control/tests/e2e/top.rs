//! `ringway top` against the real process: once as text, and on a terminal of ours.

use crate::admin::command;
use crate::health::{Subject, configuration};
use crate::support::client::Client;
use crate::support::proxy::{Proxy, call, exit_code, file, ringway};
use crate::support::{PATIENCE, closed_port, eventually};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

#[test]
fn every_view_is_printed_once() {
    let one = Subject::new("one");
    let gone = closed_port();
    let proxy = Proxy::start(&configuration(&[one.address(), gone.to_string()], "", ""));
    for _ in 0..10 {
        Client::get(proxy.edge(), "/");
    }
    let ended = command(&proxy, &["top", "--once", "--every", "100ms"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let text = &ended.stdout;
    let line = |begins: &str| {
        text.lines().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("{begins} in {text}"))
    };
    let version = env!("CARGO_PKG_VERSION");
    let admin = proxy.ready["admin"].as_str().unwrap();
    assert_eq!(line("ringway "), format!("ringway {version} at {admin}, every 100ms"));
    for title in ["Traffic", "Clusters", "Endpoints", "Errors", "Shards", "Limits", "Events"] {
        assert!(text.lines().any(|line| line == title), "{title} in {text}");
    }
    let words = |begins: &str| line(begins).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    // All were answered before the first question, so that there is a rate, and it is zero.
    assert_eq!(words("edge")[..2], ["edge", "0"]);
    assert_eq!(words("app ")[1], "2/2");
    assert_eq!(words(&format!("app/{}", one.address()))[1..4], ["yes", "ready", "unchecked"]);
    assert_eq!(words("listener.max_connections")[1], "edge");
    // Two shards, by their numbers.
    let shards = text.lines().skip_while(|line| *line != "Shards").skip(2).take(2);
    assert_eq!(shards.filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>(), ["0", "1"]);
    // Every second attempt went where nobody listens.
    let failed = line("attempt");
    assert!(failed.contains("connect_failed"), "{text}");
}

#[test]
fn nobody_to_ask_and_no_terminal_have_their_exit_codes() {
    let nobody = closed_port().to_string();
    let ended = call(ringway().args(["top", "--once", "--admin", &nobody]));
    assert_eq!((ended.code, ended.stdout.as_str()), (69, ""));
    assert!(ended.stderr.contains(&nobody), "{}", ended.stderr);
    // Standard output is a pipe here.
    let ended = call(ringway().args(["top", "--admin", &nobody]));
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("--once"), "{}", ended.stderr);
    let (_dir, path) = file("[[listener]]\n");
    assert_eq!(call(ringway().args(["top", "--once", "-c"]).arg(path)).code, 1);
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// What a terminal makes of the bytes that it gets: as much of ECMA-48 as `ringway top` uses.
struct Screen {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// A sequence that is not whole yet, its ESC included.
    sequence: Option<String>,
    /// Everything, as it came.
    bytes: Vec<u8>,
}

impl Screen {
    fn new(columns: u16, rows: u16) -> Self {
        let cells = vec![vec![' '; columns.into()]; rows.into()];
        Self { cells, row: 0, column: 0, sequence: None, bytes: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        for byte in bytes.iter().copied().map(char::from) {
            match (&mut self.sequence, byte) {
                (None, '\u{1b}') => self.sequence = Some(String::new()),
                (None, c) => {
                    if let Some(cell) = self.cells.get_mut(self.row).and_then(|row| row.get_mut(self.column))
                    {
                        *cell = c;
                    }
                    self.column += 1;
                }
                (Some(sequence), '@'..='~') if sequence.starts_with('[') => {
                    let codes = std::mem::take(sequence).split_off(1);
                    self.sequence = None;
                    self.obey(&codes, byte);
                }
                (Some(sequence), c) => sequence.push(c),
            }
        }
    }

    fn obey(&mut self, codes: &str, ends: char) {
        match ends {
            'H' => {
                let mut places = codes.split(';').map(|place| place.parse::<usize>().unwrap_or(1) - 1);
                (self.row, self.column) = (places.next().unwrap_or(0), places.next().unwrap_or(0));
            }
            'J' => self.cells.iter_mut().flatten().for_each(|cell| *cell = ' '),
            _ => {}
        }
    }

    fn text(&self) -> String {
        self.cells.iter().map(|row| row.iter().collect::<String>() + "\n").collect()
    }
}

/// A terminal of ours with `ringway top` on it.
struct Terminal {
    child: Child,
    keys: File,
    /// Where the program's end is, so that it can be looked at behind the program's death.
    tty: OwnedFd,
    screen: Arc<Mutex<Screen>>,
}

impl Terminal {
    fn start(admin: &str, change: impl FnOnce(&mut Command)) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let tty = ioctl_tiocgptpeer(&ours, flags).unwrap();
        tcsetwinsize(&ours, size(100, 24)).unwrap();
        let end = || Stdio::from(tty.try_clone().unwrap());
        let mut command = ringway();
        command.args(["top", "--every", "100ms", "--admin", admin]).env("TERM", "xterm").env("LC_ALL", "C");
        command.env_remove("NO_COLOR").stdin(end()).stdout(end()).stderr(end());
        change(&mut command);
        let child = command.spawn().unwrap();
        let (screen, mut from) =
            (Arc::new(Mutex::new(Screen::new(100, 24))), File::from(ours.try_clone().unwrap()));
        let theirs = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut piece) {
                theirs.lock().unwrap().take(&piece[..n]);
            }
        });
        Self { child, keys: File::from(ours), tty, screen }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().text()
    }

    /// Everything that was sent to it.
    fn sent(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap().bytes).into_owned()
    }

    #[track_caller]
    fn shows(&self, what: &str) {
        eventually(what, || self.text().contains(what));
    }

    /// Has another size from now on. The program has no controlling terminal that would tell it so: it is told by hand.
    fn size(&self, columns: u16, rows: u16) {
        *self.screen.lock().unwrap() = Screen::new(columns, rows);
        tcsetwinsize(&self.keys, size(columns, rows)).unwrap();
        kill_process(Pid::from_child(&self.child), Signal::WINCH).unwrap();
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// Waits for its end; what was sent. The terminal is as it was: lines are edited and echoed, and the screen from before is back.
    #[track_caller]
    fn ends(mut self, code: i32) -> String {
        assert_eq!(exit_code(&mut self.child, PATIENCE), code);
        let modes = tcgetattr(&self.tty).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG), "{modes:?}");
        eventually("the screen from before", || self.sent().contains("\u{1b}[?1049l"));
        self.sent()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with_socket(dir: &Path) -> (String, String) {
    let admin = format!("unix:{}/admin.sock", dir.display());
    let text = configuration(&[closed_port().to_string()], "", "")
        .replace("[admin]\naddress = \"127.0.0.1:0\"", &format!("[admin]\naddress = \"{admin}\""));
    (admin, text)
}

#[test]
fn a_terminal_shows_who_goes_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (admin, text) = with_socket(dir.path());
    let mut terminal = Terminal::start(&admin, |_| ());
    // Nobody runs yet.
    terminal.shows("nobody has answered");
    terminal.shows("no answer for");
    let mut proxy = Proxy::start(&text);
    terminal.shows("LISTENER");
    terminal.shows("edge");
    terminal.shows("nothing stands out");
    terminal.press(b"3");
    terminal.shows("app/127.0.0.1");
    terminal.press(b"?");
    terminal.shows("Any key goes back.");
    terminal.press(b"x");
    terminal.shows("app/127.0.0.1");
    proxy.signal(Signal::KILL);
    proxy.child.wait().unwrap();
    terminal.shows("no answer for");
    let _proxy = Proxy::start(&text);
    terminal.shows("another process took over");
    // A narrow terminal has fewer columns, at once.
    terminal.press(b"1");
    terminal.shows("P99.9");
    terminal.size(40, 12);
    terminal.shows("LISTENER");
    assert!(!terminal.text().contains("P99.9"), "{}", terminal.text());
    terminal.press(b"q");
    terminal.ends(0);
}

#[test]
fn a_terminal_is_given_back_however_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (admin, text) = with_socket(dir.path());
    let _proxy = Proxy::start(&text);
    let ready = |change: fn(&mut Command)| {
        let terminal = Terminal::start(&admin, change);
        terminal.shows("LISTENER");
        terminal
    };
    let mut terminal = ready(|_| ());
    terminal.press(b"\x03");
    terminal.ends(0);
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let terminal = ready(|_| ());
        kill_process(Pid::from_child(&terminal.child), signal).unwrap();
        terminal.ends(0);
    }
    // A panic's words are there behind the screen's end, so that somebody can read them.
    let terminal = ready(|command| {
        command.env("RINGWAY_INJECT", "panic");
    });
    let sent = terminal.ends(70);
    let end = sent.find("\u{1b}[?1049l").unwrap();
    assert!(sent[end..].contains("injected"), "{sent:?}");
}

#[test]
fn no_colour_is_drawn_where_none_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let (admin, text) = with_socket(dir.path());
    let _proxy = Proxy::start(&text);
    for (variable, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let mut terminal = Terminal::start(&admin, |command| {
            command.env(variable, value);
        });
        terminal.shows("LISTENER");
        terminal.press(b"q");
        let sent = terminal.ends(0);
        // SGR 30 to 49 are colours; 39 and 49 put back the terminal's own.
        let colours =
            sent.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m').map(|(codes, _)| codes));
        let coloured = colours.flat_map(|codes| codes.split(';')).filter_map(|code| code.parse::<u8>().ok());
        assert_eq!(coloured.filter(|code| (30..=48).contains(code) && *code != 39).count(), 0, "{sent:?}");
    }
}
