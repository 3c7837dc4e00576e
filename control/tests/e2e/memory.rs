//! The kernel has no memory: strace stands in for it and lets system calls fail. New work is shed with a reason, what is
//! established goes on, nothing spins. What the ring itself is told is tested in dataplane (sys/later.rs, the simulator).

use crate::exhaustion::cpu;
use crate::support::client::Client;
use crate::support::origin::{Origin, sized};
use crate::support::programs::program;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{assert_same, eventually, pattern, pause, skip};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// strace, attached to every thread of a process.
struct Starving(Child);

impl Starving {
    /// `None` where nothing may be traced.
    fn of(proxy: &Proxy, injections: &[&str]) -> Option<Self> {
        let mut command = Command::new(program(&["strace"])?);
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=socket,pipe2,io_uring_enter"]);
        injections.iter().for_each(|injection| _ = command.args(["-e", &format!("inject={injection}")]));
        command.arg("-p").arg(proxy.child.id().to_string());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let tasks = format!("/proc/{}/task", proxy.child.id());
        let is_traced = || {
            std::fs::read_dir(&tasks).expect("its threads").flatten().all(|task| {
                let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
                status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
            })
        };
        let mut refused = false;
        eventually("strace to be attached", || {
            refused = child.try_wait().is_ok_and(|ended| ended.is_some());
            refused || is_traced()
        });
        (!refused).then_some(Self(child))
    }
}

impl Drop for Starving {
    fn drop(&mut self) {
        // It lets go of the process and ends.
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}

#[test]
fn without_memory_new_work_is_shed_and_what_is_established_goes_on() {
    let body = pattern(1 << 20, 5);
    let long = body.clone();
    let origin = Origin::answering(move |request| match request.target.as_str() {
        "/long" => sized(200, &long),
        _ => sized(200, b"ok"),
    });
    let echo = Origin::scripted(|connection| {
        loop {
            let bytes = connection.raw();
            if bytes.is_empty() || !connection.send(bytes) {
                break;
            }
        }
    });
    let tables = format!(
        "[[cluster]]\nname = \"other\"\nendpoints = [\"{}\"]\n[[route]]\nmatch = {{ path_prefix = \"/other\" }}\n\
         cluster = \"other\"\n[[listener]]\nname = \"flows\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\ncluster = \
         \"echo\"\n[[cluster]]\nname = \"echo\"\nendpoints = [\"{}\"]\n",
        origin.address, echo.address
    );
    let endpoints = &[origin.address];
    let proxy = Setup { runtime: "shards = 1", endpoints, tables: &tables, ..Setup::default() }.start();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    // One link waits idle, one flow is open.
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(proxy.edge())).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.exchange(&get("/")).status, 200));
    let mut flow = Client::connect(proxy.address("flows")).stream;
    let mut say = |bytes: &[u8]| {
        flow.write_all(bytes).expect("the flow takes bytes");
        let mut back = vec![0; bytes.len()];
        flow.read_exact(&mut back).expect("the flow gives them back");
        assert_eq!(back, bytes);
    };
    say(b"before");
    // Of the submissions two of three fail, with what a kernel says that has no memory for them.
    let Some(starving) = Starving::of(
        &proxy,
        &[
            "socket:error=ENOBUFS",
            "pipe2:error=ENOMEM",
            "io_uring_enter:error=ENOMEM:when=1+3",
            "io_uring_enter:error=EAGAIN:when=2+3",
        ],
    ) else {
        return skip("strace is not there, or may not trace");
    };
    for round in 0..10_u8 {
        for client in &mut clients {
            assert_eq!(client.exchange(&get("/")).status, 200, "a link was there");
        }
        say(&[round; 100]);
    }
    assert_same(&clients[0].exchange(&get("/long")).body, &body, "a body without pipes");
    // New work: a request that needs a link of its own, and a flow. The client's connection stays.
    let refused = clients[1].exchange(&get("/other"));
    assert_eq!((refused.status, refused.reason()), (503, "memory_exhausted"));
    Client::connect(proxy.address("flows")).expect_closed();
    let line = proxy.log_line(|line| line["close"] == "no_link");
    assert_eq!(line["reason"], "memory_exhausted", "{line}");
    assert!(proxy.stderr.wait_for(|line| line.contains("short of memory")).is_some());
    let (before, began) = (cpu(&proxy), Instant::now());
    pause(Duration::from_secs(1));
    let (used, took) = (cpu(&proxy) - before, began.elapsed());
    assert!(used * 5 < took, "{used:?} of CPU in {took:?}: it spins");
    drop(starving);
    say(b"after");
    eventually("all to be as before", || Client::get(proxy.edge(), "/other").status == 200);
    clients[2..].iter_mut().for_each(|client| assert_eq!(client.exchange(&get("/")).status, 200));
}
