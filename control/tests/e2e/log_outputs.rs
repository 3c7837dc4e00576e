//! Where the access log goes and what its lines look like; and outputs that do not take them, which stop nobody (threat D09).

use crate::support::client::Client;
use crate::support::proxy::{Lines, Proxy, exit_code, file, ringway};
use crate::support::{eventually, skip};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::Read as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A listener that answers by itself, and these access logs.
fn configuration(logs: &str) -> String {
    format!(
        "[runtime]\nshards = 2\n[admin]\naddress = \"127.0.0.1:0\"\n{logs}\n[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"other\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"all\"\nrespond = {{ status = 200, body = \"ok\" }}\n"
    )
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What the API answers.
fn ask(proxy: &Proxy, path: &str) -> Value {
    let admin: SocketAddr = proxy.ready["admin"].as_str().unwrap().parse().unwrap();
    let response =
        Client::once(admin, &format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"));
    serde_json::from_slice(&response.body).expect("JSON")
}

fn numbers(proxy: &Proxy) -> Value {
    ask(proxy, "/v1/logs")["logs"].clone()
}

fn lost(proxy: &Proxy) -> u64 {
    numbers(proxy)["access_logs"][0]["lost"].as_u64().expect("a count")
}

/// So many requests with long paths, each answered.
fn requests(to: SocketAddr, count: usize) {
    let path = "p".repeat(1800);
    let mut client = Client::connect(to);
    for _ in 0..count {
        assert_eq!(client.exchange(&format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 200);
    }
}

#[test]
fn each_log_has_its_own_listeners_and_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let log =
        |name: &str, keys: &str| format!("[[access_log]]\nto = \"file:{}\"\n{keys}\n", path(name).display());
    let logs = [
        log("json", ""),
        log("combined", "format = \"combined\""),
        log(
            "own",
            "format = '${listener} ${route} \"${request}\" ${status} ${end} ${duration_s} ${cluster}'\nlisteners = [\"other\"]",
        ),
    ];
    let proxy = Proxy::start(&configuration(&logs.concat()));
    let get = "GET /a?b HTTP/1.1\r\nHost: a\r\nReferer: http://r/\r\nUser-Agent: \"me\" \x01\r\nConnection: close\r\n\r\n";
    Client::once(proxy.edge(), &get.replace('\x01', "\u{e9}"));
    Client::once(proxy.address("other"), &get.replace('\x01', "x"));
    eventually("all lines", || {
        text(&path("combined")).lines().count() == 2 && text(&path("own")).lines().count() == 1
    });
    let combined = text(&path("combined"));
    // Two listeners may be of two shards.
    let line = combined.lines().find(|line| line.contains("\\xC3")).unwrap();
    assert!(
        line.starts_with("127.0.0.1 - - [") && line.contains(" +0000] \"GET /a?b HTTP/1.1\" 200 2 "),
        "{line}"
    );
    assert!(line.ends_with(" \"http://r/\" \"\\x22me\\x22 \\xC3\\xA9\""), "{line}");
    let own = text(&path("own"));
    assert!(own.starts_with("other all \"GET /a?b HTTP/1.1\" 200 LR 0.") && own.ends_with(" -\n"), "{own}");
    eventually("both", || text(&path("json")).lines().count() == 2);
    for line in text(&path("json")).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["referer"], &line["end"]), (&"http://r/".into(), &"LR".into()), "{line}");
    }
}

#[test]
fn syslog_over_udp() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    let proxy = Proxy::start(&configuration(&format!(
        "[[access_log]]\nto = \"syslog:localhost:{}\"\n",
        address.port()
    )));
    let next = |socket: &UdpSocket| {
        let mut piece = [0; 65536];
        let n = socket.recv(&mut piece).expect("a datagram");
        String::from_utf8(piece[..n].to_vec()).expect("UTF-8")
    };
    Client::get(proxy.edge(), "/first");
    let message = next(&socket);
    let mut words = message.splitn(8, ' ');
    let mut word = || words.next().unwrap_or_default();
    assert_eq!(word(), "<134>1");
    assert!(word().ends_with('Z') && !word().is_empty());
    assert_eq!((word(), word()), ("ringway", proxy.child.id().to_string().as_str()));
    assert_eq!((word(), word()), ("access", "-"));
    let line: Value = serde_json::from_str(word()).unwrap();
    assert_eq!(line["path"], "/first", "{message}");

    // Nobody listens: requests go on, and what is known to be lost is counted.
    drop(socket);
    let mut client = Client::connect(proxy.edge());
    eventually("a loss", || {
        assert_eq!(client.exchange("GET /down HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
        lost(&proxy) > 0
    });
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    Client::get(proxy.edge(), "/again");
    while !next(&socket).contains("\"path\":\"/again\"") {}
}

#[test]
fn a_syslog_socket_that_is_not_read_and_then_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let proxy =
        Proxy::start(&configuration(&format!("[[access_log]]\nto = \"syslog:unix:{}\"\n", path.display())));
    eventually("more than may wait", || {
        requests(proxy.edge(), 200);
        lost(&proxy) > 0
    });
    let limits = ask(&proxy, "/v1/limits");
    let of = format!("syslog:unix:{}", path.display());
    let mut all = limits["limits"].as_array().unwrap().iter();
    let limit = all.find(|limit| limit["limit"] == "LOG_WAITING_BYTES" && limit["of"] == *of).expect("it");
    // Whole lines wait: the last of them may go beyond.
    assert!(limit["percent"].as_f64().unwrap() > 99.0 && limit["lost"].as_u64().unwrap() > 0, "{limit}");
    // Every message that arrives is whole; and those of new requests come again.
    let (told, last) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut piece = [0; 65536];
        for whole in 1.. {
            let n = socket.recv(&mut piece).expect("a datagram");
            let message = std::str::from_utf8(&piece[..n]).expect("UTF-8");
            let line: Value = serde_json::from_str(message.splitn(8, ' ').nth(7).unwrap()).expect("JSON");
            if line["path"] == "/last" {
                let _ = told.send(whole);
                return;
            }
        }
    });
    let mut whole = 0;
    eventually("a line of a new request", || {
        Client::get(proxy.edge(), "/last");
        whole = last.try_recv().unwrap_or(whole);
        whole > 0
    });
    reading.join().unwrap();
    assert!(whole > 300, "{whole}");
}

/// Standard output is not read for a while: that is told on standard error meanwhile, and then lines go on, none torn.
#[test]
fn a_stopped_reader_is_told_of_and_goes_on_without_a_torn_line() {
    let (_dir, path) = file(&configuration("[[access_log]]\n"));
    let mut child = ringway().arg("run").arg("-c").arg(&path).spawn().unwrap();
    let stderr = Lines::read(child.stderr.take().unwrap());
    let mut out = child.stdout.take().unwrap();
    let mut ready = Vec::new();
    while ready.last() != Some(&b'\n') {
        let mut byte = [0];
        out.read_exact(&mut byte).unwrap();
        ready.push(byte[0]);
    }
    let ready: Value = serde_json::from_slice(&ready).unwrap();
    let edge = ready["listeners"][0]["address"].as_str().unwrap().parse().unwrap();
    requests(edge, 1000);
    let told = stderr.wait_for(|line| line.contains("log entries were lost"));
    assert!(told.is_some_and(|line| line.contains("not_written")), "{:?}", stderr.all());
    let lines = Lines::read(out);
    // What waits makes room.
    assert!(lines.wait_for(|_| true).is_some());
    eventually("the last line", || {
        Client::get(edge, "/last");
        lines.all().last().is_some_and(|line| line.contains("\"path\":\"/last\""))
    });
    for line in lines.all() {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("torn: {e}: {line}"));
        assert_eq!(line["status"], 200);
    }
    assert!(lines.all().len() < 1000, "some were lost");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(exit_code(&mut child, Duration::from_secs(4)), 0);
}

/// A file system of 256 KiB, while this lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "ringway-test"])
            .arg(dir.path())
            .status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        skip("no file system can be mounted");
        None
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_of_and_goes_on_without_a_torn_line() {
    let Some(disk) = SmallDisk::new() else { return };
    let (log, filler) = (disk.path("access.log"), disk.path("filler"));
    std::fs::write(&filler, vec![0; 200 << 10]).unwrap();
    let proxy = Proxy::start(&configuration(&format!("[[access_log]]\nto = \"file:{}\"\n", log.display())));
    eventually("more than may wait", || {
        requests(proxy.edge(), 200);
        lost(&proxy) > 0
    });
    assert_eq!(numbers(&proxy)["access_logs"][0]["failing"], true);
    let told = proxy.stderr.wait_for(|line| line.contains("the log cannot be written"));
    assert!(told.is_some_and(|line| line.contains("os error 28")), "{:?}", proxy.stderr.all());
    // Half a line may stand at its end; the rest of it comes first.
    std::fs::remove_file(&filler).unwrap();
    let before = text(&log).len();
    eventually("more of it", || text(&log).len() > before + 8192);
    // Somebody makes room for all.
    let size = Command::new("mount").args(["-o", "remount,size=8m"]).arg(disk.0.path()).status();
    assert!(size.unwrap().success());
    eventually("the last line", || {
        Client::get(proxy.edge(), "/last");
        text(&log).contains("\"path\":\"/last\"")
    });
    assert!(proxy.stderr.wait_for(|line| line.contains("the log is written again")).is_some());
    let whole = text(&log);
    for line in whole[..whole.rfind('\n').unwrap()].lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("torn: {e}: {line}"));
        assert_eq!(line["status"], 200);
    }
    assert_eq!(numbers(&proxy)["access_logs"][0]["failing"], false);
}

#[test]
fn a_log_that_cannot_be_opened_is_named() {
    let text = configuration("[[access_log]]\nto = \"syslog:unix:/nonexistent/log\"\n");
    let (_dir, path) = file(&text);
    let ended = crate::support::proxy::call(ringway().arg("run").arg("-c").arg(&path));
    assert_eq!(ended.code, 3);
    assert!(ended.stderr.contains("syslog:unix:/nonexistent/log"), "{}", ended.stderr);
}
