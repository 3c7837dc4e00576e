//! The load: wrk, or the bench's own generator, and what they say at their end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::child::{self, Running, pause_checked};
use super::machine::Cpus;
use super::peer::Proxy;
use super::probe::{self, Cost};

/// What each connection of a load does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Requests,
    /// 64 bytes that come back, again and again.
    Messages,
    /// Reads as fast as bytes come.
    Bytes,
}

/// What is asked of the load.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) connections: u32,
    pub(super) what: What,
    /// Each connection begins with a WebSocket handshake.
    pub(super) upgrade: bool,
    pub(super) path: String,
    /// One request per connection.
    pub(super) close: bool,
    /// Requests per second, sent by the clock; `None`: as fast as answers come.
    pub(super) rate: Option<f64>,
    pub(super) seconds: f64,
    pub(super) warm_up: f64,
}

impl Load {
    pub(super) fn new(connections: u32, what: What) -> Self {
        let path = "/".to_owned();
        Self { connections, what, upgrade: false, path, close: false, rate: None, seconds: 0.0, warm_up: 0.0 }
    }

    /// Who can offer it: the one that was chosen, if it speaks this.
    pub(super) fn generator(&self, chosen: Generator) -> Generator {
        let only_own = self.what != What::Requests || self.upgrade || self.rate.is_some();
        if only_own { Generator::Own } else { chosen }
    }
}

/// What came of it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) requests: f64,
    pub(super) rps: f64,
    /// Received, where no request was asked for.
    pub(super) bytes: f64,
    pub(super) latency_us: BTreeMap<String, f64>,
    /// Share of its own time that the generator was busy, and requests it sent late, where it knows.
    pub(super) generator_busy: Option<f64>,
    pub(super) late: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Generator {
    Wrk,
    Own,
}

impl Generator {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Wrk => "wrk",
            Self::Own => "ringway-bench load",
        }
    }

    /// Offers the load and returns what came of it with what the proxy spent meanwhile.
    pub(super) fn run(self, load: &Load, proxy: &Proxy, cpus: Cpus) -> anyhow::Result<(Outcome, Cost)> {
        match self {
            Self::Wrk => wrk(load, proxy, cpus),
            Self::Own => own(load, None, proxy, cpus),
        }
    }
}

/// Warm-up and measured time are two runs of wrk, and the cost is taken around the second: its count begins when it does.
fn wrk(load: &Load, proxy: &Proxy, cpus: Cpus) -> anyhow::Result<(Outcome, Cost)> {
    if load.rate.is_some() {
        bail!("wrk offers no rate");
    }
    let once = |seconds: f64| {
        let mut command = child::pinned(&PathBuf::from("wrk"), cpus.load, None);
        command.args(["-t1", "--latency", "--timeout", "30s"]);
        command.arg(format!("-c{}", load.connections)).arg(format!("-d{}s", seconds.ceil().max(1.0)));
        if load.close {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(format!("http://{}{}", proxy.address(), load.path));
        child::output(command, Duration::from_secs_f64(seconds + 60.0))
    };
    // Never shorter than wrk's second, so none at all where none is wanted: a counter may be running.
    if load.warm_up > 0.0 {
        once(load.warm_up)?;
    }
    // Its connections are opened within the time that is measured: that must stay a small part of it.
    let seconds = load.seconds.max(f64::from(load.connections) / 1000.0);
    let before = probe::Sample::of(proxy, cpus.proxy)?;
    let text = once(seconds)?;
    let cost = probe::Sample::of(proxy, cpus.proxy)?.since(&before);
    Ok((parse_wrk(&text)?, cost))
}

pub(super) fn parse_wrk(text: &str) -> anyhow::Result<Outcome> {
    if let Some(line) = text.lines().find(|l| l.contains("Socket errors") || l.contains("Non-2xx")) {
        bail!("the load met errors: {}", line.trim());
    }
    let line =
        text.lines().find(|l| l.contains(" requests in ")).with_context(|| format!("wrk said: {text}"))?;
    let requests: f64 =
        line.split_whitespace().next().unwrap_or_default().parse().context("requests of wrk")?;
    let rate = text.lines().find_map(|l| l.strip_prefix("Requests/sec:")).context("wrk named no rate")?;
    let mut latency_us = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some(share), Some(time), None) = (words.next(), words.next(), words.next())
            && let (Some(share), Some(us)) = (share.strip_suffix('%'), wrk_time(time))
        {
            latency_us.insert(format!("p{share}"), us);
        }
    }
    if requests == 0.0 {
        bail!("no request was answered");
    }
    let rps = rate.trim().parse().context("rate of wrk")?;
    Ok(Outcome { requests, rps, latency_us, ..Outcome::default() })
}

/// wrk's "1.20ms" in microseconds.
fn wrk_time(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)];
    units.iter().find_map(|(unit, us)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * us))
}

/// The last line that `ringway-bench load` prints.
#[derive(Debug, Deserialize)]
struct OwnLine {
    requests: f64,
    #[serde(default)]
    errors: BTreeMap<String, f64>,
    rps: f64,
    #[serde(default)]
    bytes_down: f64,
    #[serde(default)]
    latency_us: BTreeMap<String, f64>,
    generator_busy: Option<f64>,
    late: Option<f64>,
}

/// The generator counts within its own window; the cost is sampled inside that window, as a rate, so that neither the
/// opening nor the closing of connections is in it. `beside`: another load on the same proxy meanwhile.
pub(super) fn own(
    load: &Load,
    beside: Option<&Load>,
    proxy: &Proxy,
    cpus: Cpus,
) -> anyhow::Result<(Outcome, Cost)> {
    let began = Instant::now();
    let own = std::env::current_exe()?;
    let mut running = start(child::pinned(&own, cpus.load, None), load, proxy, cpus)?;
    // It lasts as long, and its end is seen, so that a load that never was is no quiet neighbour. It has what the others leave
    // of their CPU (SCHED_IDLE): what is asked is how long the proxy lets requests wait, not how long it does.
    let mut idle = child::pinned(Path::new("chrt"), cpus.load, None);
    idle.args(["--idle", "0"]).arg(&own);
    let beside = beside.map(|load| start(idle, load, proxy, cpus)).transpose()?;
    let margin = 0.1 * load.seconds;
    pause_checked(Duration::from_secs_f64(load.warm_up + margin))?;
    let before = probe::Sample::of(proxy, cpus.proxy)?;
    let inside = began + Duration::from_secs_f64(load.warm_up + load.seconds - margin);
    pause_checked(inside.saturating_duration_since(Instant::now()))?;
    let cost = probe::Sample::of(proxy, cpus.proxy)?.since(&before);
    let outcome = running.outcome(load.seconds)?;
    if let Some(mut beside) = beside {
        beside.outcome(load.seconds).context("the load beside")?;
    }
    // Requests of the sampled part of the window, so that cost and count cover the same time.
    let requests = outcome.rps * cost.seconds;
    let bytes = outcome.bytes / load.seconds * cost.seconds;
    Ok((Outcome { requests, bytes, ..outcome }, cost))
}

/// A generator of ours that runs.
struct Started {
    running: Running,
    out: std::fs::File,
}

impl Started {
    /// What it says at its end.
    fn outcome(&mut self, seconds: f64) -> anyhow::Result<Outcome> {
        self.running.wait(Duration::from_secs_f64(seconds + 60.0))?;
        std::io::Seek::rewind(&mut self.out)?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.out, &mut text)?;
        parse_own(&text)
    }
}

fn start(mut command: Command, load: &Load, proxy: &Proxy, cpus: Cpus) -> anyhow::Result<Started> {
    command.args(["load", "--target", &proxy.address().to_string(), "--cpus", &cpus.load.to_string()]);
    command.args(["--connections", &load.connections.to_string(), "--path", &load.path]);
    command.args(["--seconds", &load.seconds.to_string(), "--warm-up", &load.warm_up.to_string()]);
    let mode = match load.what {
        What::Requests if load.close => "close",
        What::Requests => "keepalive",
        What::Messages => "ping-pong",
        What::Bytes => "stream",
    };
    command.args(["--mode", mode]).args(load.upgrade.then_some("--upgrade"));
    if let Some(rate) = load.rate {
        command.args(["--rate", &format!("{rate:.0}")]);
    }
    let out = tempfile::tempfile()?;
    command.stdout(out.try_clone()?).stderr(out.try_clone()?);
    Ok(Started { running: Running::new(command)?, out })
}

fn parse_own(text: &str) -> anyhow::Result<Outcome> {
    let line = text.lines().rev().find(|l| l.starts_with('{')).with_context(|| {
        // A panic says what in one line among many.
        let why = text
            .lines()
            .find(|l| l.contains("panicked") || l.starts_with("Error"))
            .or_else(|| text.lines().last());
        format!("load said: {}", why.unwrap_or("nothing"))
    })?;
    let line: OwnLine = serde_json::from_str(line).context("the line of load")?;
    let errors: f64 = line.errors.values().sum();
    if errors > 0.0 || (line.requests == 0.0 && line.bytes_down == 0.0) {
        bail!("the load met errors: {:?}", line.errors);
    }
    let OwnLine { requests, rps, bytes_down: bytes, latency_us, generator_busy, late, .. } = line;
    Ok(Outcome { requests, rps, bytes, latency_us, generator_busy, late })
}

/// What was counted, for each request.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) all: f64,
    /// `io_uring_enter` alone.
    pub(super) enter: f64,
    /// Share of its CPU that the proxy used meanwhile: batches grow with it.
    pub(super) busy: f64,
    pub(super) rps: f64,
    /// Who counted.
    pub(super) by: &'static str,
}

/// System calls of the proxy while `load` runs; its warm-up is not in the count.
///
/// `perf stat` reads a tracepoint, which costs every call on the machine some tens of nanoseconds. Where it may not, `strace -c`
/// counts, which stops the proxy at each call and so makes batches larger than they would be.
pub(super) fn count_calls(load: &Load, proxy: &Proxy, cpus: Cpus) -> anyhow::Result<Calls> {
    let cold = Load { warm_up: 0.0, ..load.clone() };
    if load.warm_up > 0.0 {
        Generator::Wrk.run(&Load { seconds: load.warm_up, ..cold.clone() }, proxy, cpus)?;
    }
    let pids: Vec<String> = proxy.pids().iter().map(u32::to_string).collect();
    let mut perf = Command::new("perf");
    perf.args([
        "stat",
        "-x,",
        "-e",
        "raw_syscalls:sys_enter,syscalls:sys_enter_io_uring_enter",
        "-p",
        &pids.join(","),
    ]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-q"]).args(pids.iter().flat_map(|p| ["-p", p]));
    let count = |mut command: Command| -> anyhow::Result<(String, Outcome, Cost)> {
        let mut out = tempfile::tempfile()?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out.try_clone()?);
        let mut counter = Running::new(command)?;
        pause_checked(Duration::from_millis(500))?; // it attaches
        if let Some(status) = counter.ended() {
            bail!("the counter ended with {status}");
        }
        let (outcome, cost) = Generator::Wrk.run(&cold, proxy, cpus)?;
        counter.signal("INT");
        counter.wait(Duration::from_secs(10))?;
        let mut text = String::new();
        std::io::Seek::rewind(&mut out)?;
        std::io::Read::read_to_string(&mut out, &mut text)?;
        Ok((text, outcome, cost))
    };
    let calls = |(all, enter): (f64, f64), outcome: &Outcome, cost: &Cost, by| {
        let (all, enter) = (all / outcome.requests, enter / outcome.requests);
        Calls { all, enter, busy: cost.busy(), rps: outcome.rps, by }
    };
    if let Ok((text, outcome, cost)) = count(perf)
        && let Some(counted) = parse_perf(&text)
    {
        return Ok(calls(counted, &outcome, &cost, "perf stat"));
    }
    let (text, outcome, cost) = count(strace)?;
    let counted = parse_strace(&text).context("strace counted nothing")?;
    Ok(calls(counted, &outcome, &cost, "strace -c"))
}

/// (all calls, io_uring_enter) of `perf stat -x,`.
fn parse_perf(text: &str) -> Option<(f64, f64)> {
    let count = |name: &str| {
        text.lines().find(|l| l.contains(name)).and_then(|l| l.split(',').next()?.parse::<f64>().ok())
    };
    Some((count("raw_syscalls:sys_enter")?, count("io_uring_enter")?))
}

/// (all calls, io_uring_enter) of the table of `strace -c`, whose columns are % time, seconds, usecs/call, calls, errors
/// (may be empty), name.
fn parse_strace(text: &str) -> Option<(f64, f64)> {
    let calls = |line: &str| line.split_whitespace().nth(3).and_then(|n| n.parse::<f64>().ok());
    let total = text.lines().rev().find(|l| l.trim_end().ends_with(" total")).and_then(calls)?;
    let enter = text.lines().find(|l| l.trim_end().ends_with(" io_uring_enter")).and_then(calls);
    Some((total, enter.unwrap_or(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 2s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  Thread Stats   Avg      \
        Stdev     Max   +/- Stdev\n    Latency   593.07us   82.36us   2.31ms   86.59%\n  Latency Distribution\n     50%  \
        576.00us\n     99%    1.20ms\n  210000 requests in 2.00s, 60.09MB read\nRequests/sec: 105000.50\n";

    #[test]
    fn wrk_is_read() {
        let outcome = parse_wrk(WRK).unwrap();
        assert_eq!((outcome.requests, outcome.rps), (210_000.0, 105_000.5));
        assert_eq!(outcome.latency_us["p99"], 1200.0);
        assert_eq!(outcome.latency_us["p50"], 576.0);
        assert_eq!(outcome.latency_us.len(), 2);
    }

    #[test]
    fn errors_void_a_run() {
        let wrk = format!("{WRK}  Socket errors: connect 0, read 1, write 0, timeout 0\n");
        parse_wrk(&wrk).unwrap_err();
        parse_wrk("").unwrap_err();
        parse_own(r#"{"requests":5,"errors":{"reset":1},"rps":5}"#).unwrap_err();
    }

    #[test]
    fn own_load_is_read() {
        let text = "note\n{\"requests\":10,\"errors\":{},\"bytes_down\":1,\"seconds\":2,\"rps\":5,\
            \"latency_us\":{\"p99.9\":7},\"generator_busy\":0.5,\"late\":0}\n";
        let outcome = parse_own(text).unwrap();
        assert_eq!((outcome.rps, outcome.latency_us["p99.9"], outcome.generator_busy), (5.0, 7.0, Some(0.5)));
    }

    #[test]
    fn counters_are_read() {
        let strace = "% time     seconds  usecs/call     calls    errors syscall\n------ ----------- ----------- \
            --------- --------- ----------------\n 99.00    0.100000          10     10000         5 io_uring_enter\n  \
            1.00    0.001000           1        10           write\n------ ----------- ----------- --------- --------- \
            ----------------\n100.00    0.101000          10     10010         5 total\n";
        assert_eq!(parse_strace(strace), Some((10_010.0, 10_000.0)));
        assert_eq!(parse_strace("strace: attach: no\n"), None);
        let perf =
            "1200,,raw_syscalls:sys_enter,1,100.00,,\n1100,,syscalls:sys_enter_io_uring_enter,1,100.00,,\n";
        assert_eq!(parse_perf(perf), Some((1200.0, 1100.0)));
        assert_eq!(parse_perf("<not supported>,,raw_syscalls:sys_enter\n"), None);
    }
}
