//! The real binary: started with a configuration, read from, signalled, and ended by its process id.

use super::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The binary under test, ready for arguments: quiet surroundings, nothing inherited that it heeds.
pub fn ringway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.env_remove("NOTIFY_SOCKET").env_remove("RINGWAY_INJECT").env_remove("RINGWAY_ADMIN");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a test's configuration differs in. Texts are lines of TOML.
#[derive(Default)]
pub struct Setup<'a> {
    /// Keys of `[runtime]`; `shards` is 2 unless given here.
    pub runtime: &'a str,
    /// Keys of the listener `edge`.
    pub listener: &'a str,
    pub limits: &'a str,
    pub timeouts: &'a str,
    pub forwarded: &'a str,
    /// Whole `[[route]]`, `[[listener]]` and `[[cluster]]` tables.
    pub tables: &'a str,
    /// Keys of the cluster `app`.
    pub cluster: &'a str,
    pub cluster_timeouts: &'a str,
    pub pool: &'a str,
    /// The endpoints of `app`; where empty there is no such cluster.
    pub endpoints: &'a [SocketAddr],
}

impl Setup<'_> {
    pub fn text(&self) -> String {
        let shards = if self.runtime.contains("shards") { "" } else { "shards = 2\n" };
        let mut text = format!(
            "[runtime]\n{shards}{}\n[[access_log]]\nto = \"stdout\"\n[[listener]]\nname = \"edge\"\n\
             address = \"127.0.0.1:0\"\n{}\n",
            self.runtime, self.listener
        );
        let mut table = |name: &str, keys: &str| {
            if !keys.is_empty() {
                text.push_str(&format!("[{name}]\n{keys}\n"));
            }
        };
        table("listener.limits", self.limits);
        table("listener.timeouts", self.timeouts);
        table("listener.forwarded", self.forwarded);
        if !self.endpoints.is_empty() {
            let endpoints: Vec<_> = self.endpoints.iter().map(|address| format!("\"{address}\"")).collect();
            let endpoints = endpoints.join(", ");
            table("[cluster]", &format!("name = \"app\"\nendpoints = [{endpoints}]\n{}", self.cluster));
            table("cluster.timeouts", self.cluster_timeouts);
            table("cluster.pool", self.pool);
            // The listener's keys stand above; its cluster is said here.
            text = text.replacen("name = \"edge\"\n", "name = \"edge\"\ncluster = \"app\"\n", 1);
        }
        text + self.tables
    }

    pub fn start(&self) -> Proxy {
        Proxy::start(&self.text())
    }
}

/// A process of ringway that serves.
pub struct Proxy {
    pub child: Child,
    pub ready: Value,
    addresses: BTreeMap<String, SocketAddr>,
    pub stdout: Lines,
    pub stderr: Lines,
    /// The configuration's file, and its directory.
    pub file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Proxy {
    /// Starts with the configuration `text` and waits until it is ready.
    #[track_caller]
    pub fn start(text: &str) -> Self {
        Self::start_with(text, |_| ())
    }

    /// As [`Proxy::start`], with something changed about the command.
    #[track_caller]
    pub fn start_with(text: &str, change: impl FnOnce(&mut Command)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ringway.toml");
        std::fs::write(&file, text).unwrap();
        let mut command = ringway();
        command.arg("run").arg("-c").arg(&file);
        change(&mut command);
        let mut child = command.spawn().expect("start ringway");
        let stdout = Lines::read(child.stdout.take().unwrap());
        let stderr = Lines::read(child.stderr.take().unwrap());
        let mut proxy =
            Self { child, ready: Value::Null, addresses: BTreeMap::new(), stdout, stderr, file, _dir: dir };
        let Some(line) = proxy.stdout.wait_for(|line| line.contains("\"ready\"")) else {
            panic!("not ready; it said {:?}; configuration:\n{text}", proxy.stderr.all());
        };
        proxy.ready = serde_json::from_str(&line).expect("a ready line in JSON");
        for listener in proxy.ready["listeners"].as_array().expect("listeners") {
            // A unix socket's is a path.
            if let Ok(address) = listener["address"].as_str().expect("an address").parse() {
                proxy.addresses.insert(listener["name"].as_str().unwrap().to_owned(), address);
            }
        }
        proxy
    }

    /// Where the listener `edge` is.
    pub fn edge(&self) -> SocketAddr {
        self.address("edge")
    }
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("signal ringway");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for its end. Returns the exit code; fails on a death by signal or none within `limit`.
    #[track_caller]
    pub fn exit_code(&mut self, limit: Duration) -> i32 {
        exit_code(&mut self.child, limit)
    }

    /// The first access-log line that `wanted` accepts.
    #[track_caller]
    pub fn log_line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let parsed = |line: &str| serde_json::from_str::<Value>(line).expect("a log line in JSON");
        match self.stdout.wait_for(|line| wanted(&parsed(line))) {
            Some(line) => parsed(&line),
            None => panic!("no such access-log line among {:#?}", self.stdout.all()),
        }
    }

    /// All access-log lines so far.
    pub fn log_lines(&self) -> Vec<Value> {
        let lines = self.stdout.all();
        lines.iter().skip(1).map(|line| serde_json::from_str(line).expect("a log line in JSON")).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("ringway's standard error: {:#?}", self.stderr.all());
        }
    }
}

/// Waits for the end of `child` and returns its exit code; kills it and fails after `limit`.
#[track_caller]
pub fn exit_code(child: &mut Child, limit: Duration) -> i32 {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| panic!("it died by a signal: {status}"));
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it did not end within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How a short-lived call ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a call that should end by itself.
#[track_caller]
pub fn call(command: &mut Command) -> Ended {
    let mut child = command.spawn().expect("start ringway");
    let stdout = Lines::read(child.stdout.take().unwrap());
    let stderr = Lines::read(child.stderr.take().unwrap());
    let code = exit_code(&mut child, PATIENCE);
    Ended { code, stdout: stdout.to_end(), stderr: stderr.to_end() }
}

/// A configuration file in a directory of its own.
pub fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringway.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

/// Lines of a pipe as they come.
#[derive(Clone, Default)]
pub struct Lines(Arc<(Mutex<Held>, Condvar)>);

#[derive(Default)]
struct Held {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    pub fn read(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let theirs = lines.clone();
        std::thread::spawn(move || {
            let (state, changed) = &*theirs.0;
            for line in BufReader::new(from).lines() {
                let Ok(line) = line else { break };
                state.lock().unwrap().lines.push(line);
                changed.notify_all();
            }
            state.lock().unwrap().ended = true;
            changed.notify_all();
        });
        lines
    }

    pub fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().lines.clone()
    }

    /// The first line that `wanted` accepts; `None` when the pipe ends or patience does.
    pub fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let (state, changed) = &*self.0;
        let deadline = Instant::now() + PATIENCE;
        let mut state = state.lock().unwrap();
        let mut looked = 0;
        loop {
            if let Some(line) = state.lines[looked..].iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            looked = state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Everything, once the pipe has ended.
    fn to_end(&self) -> String {
        self.wait_for(|_| false);
        self.all().join("\n")
    }
}
