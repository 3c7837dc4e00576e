//! A next process that dies: what it was given comes back, and only what it had taken is lost with it.

use crate::reload::command;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::proxy::{Ended, Proxy};
use crate::upgrade::{LIMIT, Next};
use crate::upgrade_conns::{GET, Origins, say, upgrade, websocket};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

/// A process whose next ones die at that moment; with a file, the first of them does.
fn with_a_fault(text: &str, fault: &str, notify: Option<&Path>) -> Proxy {
    Proxy::start_with(text, |command| {
        command.env("RINGWAY_INJECT", fault);
        if let Some(path) = notify {
            command.env("NOTIFY_SOCKET", path);
        }
    })
}

/// An upgrade that fails because its process was killed.
#[track_caller]
fn fails(proxy: &Proxy, why: &str) -> Ended {
    fails_by(proxy, why, "SIGKILL")
}

/// One that fails because its process ended so.
#[track_caller]
fn fails_by(proxy: &Proxy, why: &str, end: &str) -> Ended {
    let ended = command(proxy, &["upgrade"]);
    let told = &ended.stderr;
    assert!(ended.code == 1 && told.contains(why) && told.contains(end), "{} {told}", ended.code);
    ended
}

/// A listener on a unix socket.
fn local(path: &Path) -> String {
    format!("[[listener]]\nname = \"local\"\naddress = \"unix:{}\"\ncluster = \"app\"\n", path.display())
}

/// New connections are served at every address.
fn serves(edge: SocketAddr, raw: SocketAddr, local: &Path) {
    for _ in 0..4 {
        assert_eq!(Client::get(edge, "/n").text(), "1");
        say(&mut Client::connect(raw), 1);
        let mut stream = UnixStream::connect(local).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"GET /n HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\n1"), "{answer}");
    }
}

/// The next process has everything, and dies before it says so: it never was.
#[test]
fn one_that_dies_at_the_last_moment_changes_nothing() {
    let origins = Origins::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.sock");
    let proxy = with_a_fault(&(origins.configuration(2, 1) + &local(&path)), "upgrade", None);
    let (edge, raw) = (proxy.edge(), proxy.address("raw"));
    let (mut kept, mut talk) = (Client::connect(edge), Client::connect(raw));
    assert_eq!(kept.exchange(GET).status, 200);
    say(&mut talk, 1);
    for n in 0..3 {
        fails(&proxy, "nothing changed");
        // What was given up is accepted on again.
        assert_eq!(kept.exchange(GET).status, 200);
        say(&mut talk, 2 + n);
        serves(edge, raw, &path);
    }
    proxy.signal(Signal::TERM);
}

/// It has confirmed that it has everything, and dies before anything moves: the process before it is the service again.
#[test]
fn one_that_dies_when_it_has_taken_over_gives_everything_back() {
    let origins = Origins::new();
    let dir = tempfile::tempdir().unwrap();
    let [path, notify, once] = ["edge.sock", "notify", "once"].map(|name| dir.path().join(name));
    let notices = UnixDatagram::bind(&notify).unwrap();
    notices.set_read_timeout(Some(LIMIT)).unwrap();
    std::fs::write(&once, "").unwrap();
    let text = origins.configuration(2, 1) + &local(&path);
    let fault = format!("upgrade-mine={}", once.display());
    let mut proxy = with_a_fault(&text, &fault, Some(&notify));
    let (edge, raw) = (proxy.edge(), proxy.address("raw"));
    // With another number of shards it has sockets that this one has not.
    std::fs::write(&proxy.file, text.replace("shards = 2", "shards = 3")).unwrap();
    // Nothing is to move: that nobody is there is seen all the same.
    fails(&proxy, "this one serves again");
    serves(edge, raw, &path);
    let told: Vec<String> = proxy.stderr.all().into_iter().filter(|line| line.contains("ERROR")).collect();
    assert!(told.len() == 1 && told[0].contains("had taken over and died"), "{told:?}");
    assert_eq!(command(&proxy, &["status"]).code, 0);
    let admin = proxy.ready["admin"].as_str().unwrap();
    let ready = format!("GET /ready HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    assert_eq!(Client::once(admin.parse().unwrap(), &ready).status, 200);
    std::fs::write(&proxy.file, &text).unwrap();
    assert_eq!(command(&proxy, &["reload"]).code, 0);
    let drain = command(&proxy, &["drain", "--listener", "local"]);
    assert_eq!(drain.code, 0, "{}", drain.stderr);
    assert_eq!(command(&proxy, &["drain", "--listener", "local", "--abort"]).code, 0);
    serves(edge, raw, &path);
    let (mut kept, mut talk) = (Client::connect(edge), websocket(edge));
    assert_eq!(kept.exchange(GET).status, 200);
    say(&mut talk, 1);
    let (answer, next) = upgrade(&proxy);
    // Those that were served before may not have ended at their origin.
    assert!(answer["moved"].as_u64() >= Some(2) && answer["finishing"] == 0, "{answer}");
    assert_eq!(kept.exchange(GET).status, 200);
    say(&mut talk, 2);
    serves(edge, raw, &path);
    assert_eq!(proxy.exit_code(LIMIT), 0);
    // The supervisor never heard of the one that died.
    let mut notice = [0; 64];
    let mut heard = || {
        let n = notices.recv(&mut notice).expect("a notice");
        String::from_utf8_lossy(&notice[..n]).into_owned()
    };
    let ready = ["READY=1", "READY=1", "READY=1"].map(str::to_owned);
    assert_eq!([heard(), heard(), heard()], ready, "of all three, of which the second died");
    assert_eq!(heard(), format!("MAINPID={}", next.0.as_raw_nonzero()));
}

/// It dies as the first connection comes: nothing of those that it did not take is lost.
#[test]
fn one_that_dies_when_connections_come_takes_none_along() {
    let origins = Origins::new();
    let proxy = with_a_fault(&origins.configuration(2, 1), "upgrade-conns", None);
    let raw = proxy.address("raw");
    let mut talks: Vec<Client> = (0..500).map(|_| Client::connect(raw)).collect();
    talks.iter_mut().for_each(|talk| say(talk, 1));
    for n in 2..4 {
        fails(&proxy, "and with it 0 connections");
        talks.iter_mut().for_each(|talk| say(talk, n));
        say(&mut Client::connect(raw), 1);
    }
}

/// It dies when it has some: these are lost with it, and the others go on where they were.
#[test]
fn one_that_dies_with_half_of_the_connections_takes_only_those_along() {
    let origins = Origins::new();
    let dir = tempfile::tempdir().unwrap();
    let once = dir.path().join("once");
    std::fs::write(&once, "").unwrap();
    let mut proxy =
        with_a_fault(&origins.configuration(2, 1), &format!("upgrade-half={}", once.display()), None);
    let raw = proxy.address("raw");
    let mut talks: Vec<Client> = (0..500).map(|_| Client::connect(raw)).collect();
    talks.iter_mut().for_each(|talk| say(talk, 1));
    let ended = fails(&proxy, "this one serves again");
    let words: Vec<&str> = ended.stderr.split(' ').collect();
    let at = words.iter().position(|word| *word == "connections").expect("how many");
    let lost: usize = words[at - 1].parse().unwrap();
    assert!((250..500).contains(&lost), "{}", ended.stderr);
    talks.retain_mut(|talk| {
        talk.send_anyway(2_u32.to_be_bytes());
        let mut answer = [0; 4];
        let lives = talk.stream.read_exact(&mut answer).is_ok();
        assert!(!lives || answer == 2_u32.to_be_bytes(), "{answer:?}");
        lives
    });
    assert_eq!(talks.len(), 500 - lost);
    let edge = proxy.edge();
    assert_eq!(Client::get(edge, "/n").text(), "1");
    let (answer, _next) = upgrade(&proxy);
    assert_eq!(answer["moved"], talks.len(), "{answer}");
    talks.iter_mut().for_each(|talk| say(talk, 3));
    assert_eq!(Client::get(edge, "/n").text(), "1");
    assert_eq!(proxy.exit_code(LIMIT), 0);
}

/// A next process that ends by itself, before or after it has taken over, leaves the files of unix sockets: the one that goes on listens
/// there.
#[test]
fn one_that_ends_by_itself_leaves_files_of_sockets() {
    let origins = Origins::new();
    let dir = tempfile::tempdir().unwrap();
    let [path, admin] = ["edge.sock", "admin.sock"].map(|name| dir.path().join(name));
    let text = origins.configuration(1, 1) + &local(&path);
    let of_admin = format!("[admin]\naddress = \"unix:{}\"", admin.display());
    let text = text.replace("[admin]\naddress = \"127.0.0.1:0\"", &of_admin);
    let mut proxy = with_a_fault(&text, "upgrade-panic", None);
    let (edge, raw) = (proxy.edge(), proxy.address("raw"));
    let serves = || {
        serves(edge, raw, &path);
        assert_eq!(command(&proxy, &["status"]).code, 0);
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let more = local(Path::new("x")).replace("local", "more");
    let more = more.replace("unix:x", &taken.local_addr().unwrap().to_string());
    std::fs::write(&proxy.file, text.clone() + &more).unwrap();
    fails_by(&proxy, "nothing changed", "exit status: 3");
    serves();
    std::fs::write(&proxy.file, &text).unwrap();
    for _ in 0..2 {
        fails_by(&proxy, "this one serves again", "exit status: 70");
        serves();
    }
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(LIMIT), 0);
    assert!(!path.exists() && !admin.exists(), "they are its own");
}

/// Upgrades; when the next process has taken over, this one is stopped, so that nothing of that is over, until `meanwhile` has ended and
/// the next one was killed.
#[track_caller]
fn dies_after(proxy: &Proxy, taken_over: usize, meanwhile: impl FnOnce(&Next)) -> Ended {
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| command(proxy, &["upgrade"]));
        let mut pid = None;
        eventually("the next process has taken over", || {
            let all = proxy.stderr.all();
            let mut told = all.iter().filter(|line| line.contains("has taken over"));
            pid = told
                .nth(taken_over)
                .and_then(|line| line.split("process ").nth(1)?.split(' ').next()?.parse().ok());
            pid.is_some()
        });
        proxy.signal(Signal::STOP);
        let next = Next(Pid::from_raw(pid.unwrap()).unwrap());
        meanwhile(&next);
        drop(next);
        proxy.signal(Signal::CONT);
        asks.join().unwrap()
    })
}

/// Nobody gets a connection there any more.
fn is_deaf(raw: SocketAddr, local: &Path) {
    eventually("deaf sockets", || {
        let late = TcpStream::connect_timeout(&raw, Duration::from_millis(50));
        late.is_err() && UnixStream::connect(local).is_err()
    });
}

/// Sockets that the next process made deaf before it was killed are listened on again.
#[test]
fn deaf_sockets_hear_again() {
    let origins = Origins::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.sock");
    let text = origins.configuration(2, 1) + &local(&path);
    let text =
        text.replacen("[admin]", "[drain.shutdown]\naccept_for = \"0s\"\nwindow = \"60s\"\n[admin]", 1);
    let text = text.replace("drain_timeout = \"2s\"\n", "");
    let proxy = Proxy::start(&text);
    let (edge, raw) = (proxy.edge(), proxy.address("raw"));
    let ended = dies_after(&proxy, 0, |_| {
        let busy = command(&proxy, &["upgrade"]);
        let told = &busy.stderr;
        assert!(busy.code == 1 && told.contains("may still take everything back"), "{} {told}", busy.code);
        for listener in ["raw", "local"] {
            assert_eq!(command(&proxy, &["drain", "--listener", listener]).code, 0);
        }
        is_deaf(raw, &path);
    });
    assert!(ended.code == 1 && ended.stderr.contains("this one serves again"), "{}", ended.stderr);
    serves(edge, raw, &path);
    // By a signal: a conversation keeps it.
    let ended = dies_after(&proxy, 1, |next| {
        let mut talk = Client::connect(raw);
        say(&mut talk, 1);
        kill_process(next.0, Signal::TERM).unwrap();
        is_deaf(raw, &path);
    });
    assert!(ended.code == 1 && ended.stderr.contains("this one serves again"), "{}", ended.stderr);
    serves(edge, raw, &path);
    // What cannot be had again is not claimed.
    let ended = dies_after(&proxy, 2, |_| {
        assert_eq!(command(&proxy, &["drain", "--listener", "local"]).code, 0);
        eventually("a deaf socket", || UnixStream::connect(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a letter").unwrap();
    });
    let told = &ended.stderr;
    assert!(
        ended.code == 69 && told.contains("does not listen") && told.contains("restart"),
        "{} {told}",
        ended.code
    );
}
