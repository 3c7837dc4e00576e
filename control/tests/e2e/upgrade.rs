//! A binary upgrade: another process goes on with everything that listens, or nothing changes.

use crate::reload::{command, configuration};
use crate::sockets::pass;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
pub const LIMIT: Duration = Duration::from_secs(10);

/// A process that is not our child: it ends with the test.
pub struct Next(pub Pid);

impl Next {
    /// One that has ended and waits for whoever inherited it does not live any more (proc_pid_stat(5)).
    pub fn lives(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.as_raw_nonzero()));
        stat.is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

pub fn cluster(origin: &Origin) -> String {
    format!("endpoints = [\"{}\"]", origin.address)
}

/// Upgrades; what is answered, and who serves then.
#[track_caller]
pub fn upgraded(proxy: &Proxy) -> (Value, Next) {
    let ended = command(proxy, &["upgrade", "--json"]);
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let pid = i32::try_from(answer["pid"].as_i64().unwrap()).unwrap();
    (answer, Next(Pid::from_raw(pid).unwrap()))
}

fn upgrade(proxy: &Proxy) -> Next {
    upgraded(proxy).1
}

/// The child that a process has started, once it has.
fn child_of(parent: Pid) -> Next {
    let pid = parent.as_raw_nonzero();
    let path = format!("/proc/{pid}/task");
    let mut found = None;
    eventually("the next process", || {
        let tasks = std::fs::read_dir(&path).unwrap().flatten();
        let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        found = children.filter_map(|all| all.split_whitespace().next()?.parse().ok()).next();
        found.is_some()
    });
    Next(Pid::from_raw(found.unwrap()).unwrap())
}

#[test]
fn all_that_listens_goes_on() {
    let origin = Origin::saying("one");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.sock");
    let more = format!(
        "[[listener]]\nname = \"local\"\naddress = \"unix:{}\"\ncluster = \"app\"\n[[listener]]\nname = \"old\"\naddress = \
         \"127.0.0.1:0\"\ncluster = \"app\"\n",
        path.display()
    );
    let text = configuration("", &cluster(&origin), &more);
    let mut proxy = Proxy::start(&text);
    let (edge, old) = (proxy.edge(), proxy.address("old"));
    let endpoint = format!("app/{}", origin.address);
    assert_eq!(command(&proxy, &["set", &endpoint, "drain"]).code, 0);
    // Accepted by the process before, and served by it.
    let mut early = Client::connect(edge);
    assert_eq!(early.exchange(GET).status, 503, "its only endpoint drains");
    assert_eq!(command(&proxy, &["set", &endpoint, "ready"]).code, 0);
    let mut early = Client::connect(edge);
    early.send("GET / HTTP/1.1\r\n");
    assert_eq!(command(&proxy, &["set", &endpoint, "maint"]).code, 0);
    // What the file says by then holds: fewer shards, one listener less.
    let after = text.replace("shards = 2", "shards = 1").replace(
        "[[listener]]\nname = \"old\"\naddress = \"127.0.0.1:0\"\ncluster = \"app\"\n",
        "[[route]]\nmatch = { path = \"/new\" }\nrespond = { status = 299 }\n",
    );
    std::fs::write(&proxy.file, after).unwrap();
    let next = upgrade(&proxy);
    assert_eq!(Client::get(edge, "/new").status, 299);
    assert_eq!(Client::get(edge, "/").status, 503, "what an operator said still holds");
    let status = command(&proxy, &["status", "--json"]);
    assert!(status.stdout.contains("\"maint\""), "the API is the next process's: {}", status.stdout);
    assert_eq!(command(&proxy, &["set", &endpoint, "ready"]).code, 0);
    assert_eq!(Client::get(edge, "/").text(), "one");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("200"), "{answer}");
    early.send("Host: a\r\n\r\n");
    let answer = early.response("GET");
    assert_eq!((answer.status, answer.field("connection")), (503, Some("close")));
    assert_eq!(proxy.exit_code(LIMIT), 0);
    assert!(next.lives());
    assert!(path.exists(), "its file is the next process's");
    assert!(std::net::TcpStream::connect(old).is_err(), "nobody wanted it any more");
    // And once more: the next of the next, by a signal.
    kill_process(next.0, Signal::USR2).unwrap();
    let last = child_of(next.0);
    eventually("the end of the one before", || !next.lives());
    assert_eq!(Client::get(edge, "/").text(), "one");
    assert!(last.lives());
}

/// Of each thread of a process, its name and the CPUs that it may run on. The kernel's own threads for a ring are none of ours.
fn threads(pid: Pid) -> Vec<(String, Vec<usize>)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap().flatten();
    let of_task = |task: std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let id = Pid::from_raw(task.file_name().to_str()?.parse().ok()?)?;
        let set = rustix::thread::sched_getaffinity(Some(id)).ok()?;
        let cpus = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
        Some((name.trim().to_owned(), cpus))
    };
    tasks.filter_map(of_task).filter(|(name, _)| !name.starts_with("iou-")).collect()
}

#[test]
fn control_keeps_off_the_shards_and_the_next_process_knows_all_cpus() {
    let origin = Origin::saying("one");
    let text = configuration("", &cluster(&origin), "").replace("shards = 2", "shards = 1");
    let mut proxy = Proxy::start(&text);
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    let all: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
    // A reload is read by a thread that is made for it.
    crate::reload::reload(&proxy, &text);
    let beside = if all.len() > 1 { &all[1..] } else { &all };
    for (name, cpus) in threads(proxy.pid()) {
        assert_eq!(cpus, if name == "shard-0" { &all[..1] } else { beside }, "{name}");
    }
    std::fs::write(&proxy.file, text.replace("shards = 1", &format!("shards = {}", all.len()))).unwrap();
    let next = upgrade(&proxy);
    let (shards, others): (Vec<_>, Vec<_>) =
        threads(next.0).into_iter().partition(|(name, _)| name.starts_with("shard-"));
    let mut of_shards: Vec<usize> = shards.into_iter().flat_map(|(_, cpus)| cpus).collect();
    of_shards.sort_unstable();
    assert_eq!(of_shards, all);
    assert!(!others.is_empty() && others.iter().all(|(_, cpus)| *cpus == all), "{others:?}");
    assert_eq!(proxy.exit_code(LIMIT), 0);
}

#[test]
fn a_next_process_that_fails_changes_nothing() {
    let origin = Origin::saying("one");
    let text = configuration("", &cluster(&origin), "");
    let proxy = Proxy::start_with(&text, |command| {
        command.env("RINGWAY_INJECT", "read");
    });
    let mut client = Client::connect(proxy.edge());
    assert_eq!(client.exchange(GET).text(), "one");
    std::fs::write(&proxy.file, text.replace("shards = 2", "shards = \"many\"")).unwrap();
    let ended = command(&proxy, &["upgrade"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("nothing changed") && ended.stderr.contains("exit status: 1"),
        "{}",
        ended.stderr
    );
    assert!(
        proxy.stderr.wait_for(|line| line.contains("wants a whole number")).is_some(),
        "the next process says why"
    );
    assert_eq!(client.exchange(GET).text(), "one", "on the same connection");
    assert_eq!(Client::get(proxy.edge(), "/").text(), "one");
    // One that is killed before it is ready: it reads a file that hangs.
    let maintenance = "[[route]]\nmatch = { path = \"/\" }\nrespond = { status = 299 }\n";
    std::fs::write(&proxy.file, text.clone() + maintenance).unwrap();
    let hangs = format!("{}.hangs", proxy.file.display());
    std::fs::write(&hangs, "").unwrap();
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| command(&proxy, &["upgrade"]));
        let next = child_of(proxy.pid());
        assert_eq!(Client::get(proxy.edge(), "/").text(), "one", "meanwhile");
        let busy = command(&proxy, &["upgrade"]);
        assert!(busy.code == 1 && busy.stderr.contains("under way"), "{}", busy.stderr);
        assert_eq!(command(&proxy, &["reload"]).code, 1);
        let set = command(&proxy, &["set", &format!("app/{}", origin.address), "drain"]);
        assert!(set.code == 1 && set.stderr.contains("under way"), "{}", set.stderr);
        drop(next);
        let ended = asks.join().unwrap();
        assert!(ended.code == 1 && ended.stderr.contains("nothing changed"), "{}", ended.stderr);
    });
    assert_eq!(client.exchange(GET).text(), "one");
    std::fs::remove_file(&hangs).unwrap();
    assert_eq!(command(&proxy, &["drain", "--cluster", "app"]).code, 0);
    let _next = upgrade(&proxy);
    assert_eq!(Client::get(proxy.edge(), "/").status, 299);
    let status = command(&proxy, &["status"]);
    assert!(status.stdout.contains("cluster app: drained"), "{}", status.stdout);
}

#[test]
fn a_process_that_nobody_upgrades_says_so() {
    let (_dir, path) = crate::support::proxy::file(&configuration("", "endpoints = [\"127.0.0.1:1\"]", ""));
    let mut command = crate::support::proxy::ringway();
    let ended =
        crate::support::proxy::call(command.arg("run").arg("-c").arg(path).env("RINGWAY_UPGRADE", "1"));
    assert_eq!(ended.code, 3);
    assert!(ended.stderr.contains("unset it"), "{}", ended.stderr);
}

#[test]
fn a_connection_between_two_requests_goes_along() {
    let origin = Origin::saying("one");
    let text = configuration("", &cluster(&origin), "");
    let mut proxy = Proxy::start(&text);
    let mut kept: Vec<Client> = (0..20).map(|_| Client::connect(proxy.edge())).collect();
    for client in &mut kept {
        assert_eq!(client.exchange(GET).text(), "one");
    }
    // One that has not asked yet goes along, too.
    kept.push(Client::connect(proxy.edge()));
    eventually("all are accepted", || {
        command(&proxy, &["connections", "--json"]).stdout.matches("\"id\"").count() == 21
    });
    std::fs::write(&proxy.file, text + "[[route]]\nmatch = { path = \"/\" }\nrespond = { status = 299 }\n")
        .unwrap();
    let (answer, _next) = upgraded(&proxy);
    assert_eq!((&answer["moved"], &answer["finishing"]), (&Value::from(21), &Value::from(0)), "{answer}");
    assert_eq!(proxy.exit_code(LIMIT), 0);
    for client in &mut kept {
        assert_eq!(client.exchange(GET).status, 299, "on the same connection");
    }
}

#[test]
fn sockets_that_systemd_passed_go_on() {
    let origin = Origin::saying("one");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    pass(&socket);
    let fd = socket.as_raw_fd();
    let more = format!("[[listener]]\nname = \"lent\"\naddress = \"fd:{fd}\"\ncluster = \"app\"\n");
    let proxy = Proxy::start(&configuration("", &cluster(&origin), &more));
    drop(socket);
    assert_eq!(Client::get(at, "/").text(), "one");
    let _next = upgrade(&proxy);
    assert_eq!(Client::get(at, "/").text(), "one");
}
