//! System calls and allocations per request of the real binary under a fixed load, held to `control/tests/counts.txt`.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests may lock, look at the clock, and print what failed"
)]
#![allow(unreachable_pub, missing_debug_implementations, reason = "a test binary has no users")]

mod load;
#[path = "../../../dataplane/benches/counts/record.rs"]
mod record;
#[path = "../e2e/support/mod.rs"]
#[allow(dead_code, reason = "the end-to-end tests need more of it")]
mod support;

use load::{CLIENTS, Load};
use record::Margin;
use rustix::process::Signal;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use support::PATIENCE;
use support::proxy::{Proxy, Setup};

/// Rounds before the steady state, and of the shorter of two runs.
const WARM_UP: usize = 20;
const ROUNDS: usize = 100;
/// Pairs of such runs.
const PAIRS: usize = 5;

fn exists(tool: &str) -> bool {
    let version = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// One shard whose start is changed by `change`.
fn start(origin: &support::origin::Origin, change: impl FnOnce(&mut Command)) -> Proxy {
    let endpoints = [origin.address];
    let setup =
        Setup { runtime: "shards = 1", pool: "idle = 256", endpoints: &endpoints, ..Setup::default() };
    Proxy::start_with(&setup.text(), change)
}

/// (io_uring_enter, all others) of a process from its start to its end, over so many rounds.
fn system_calls(rounds: usize) -> (f64, f64) {
    let (dir, origin) = (tempfile::tempdir().unwrap(), load::origin());
    let table = dir.path().join("calls");
    let mut proxy = start(&origin, |command| {
        let mut traced = Command::new("strace");
        traced
            .args(["-D", "-f", "-qq", "-c", "-U", "calls,name", "-o"])
            .arg(&table)
            .arg(command.get_program());
        traced.args(command.get_args().map(OsStr::to_owned).collect::<Vec<_>>());
        traced.env_remove("NOTIFY_SOCKET").env_remove("RINGWAY_INJECT").env_remove("RINGWAY_ADMIN");
        traced.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        *command = traced;
    });
    let mut load = Load::connect(proxy.edge());
    load.run(WARM_UP + rounds);
    drop(load);
    // With -D ringway itself is the child, and strace a process beside it that writes its table last.
    proxy.signal(Signal::INT);
    proxy.exit_code(PATIENCE);
    let read = || std::fs::read_to_string(&table).unwrap_or_default();
    support::eventually("strace's table", || read().trim_end().ends_with("total"));
    let (mut enters, mut others) = (0.0, 0.0);
    for line in read().lines() {
        let mut words = line.split_whitespace();
        let (Some(Ok(calls)), Some(name)) = (words.next().map(str::parse::<f64>), words.next()) else {
            continue;
        };
        match name {
            "io_uring_enter" => enters += calls,
            "total" => {}
            _ => others += calls,
        }
    }
    (enters, others)
}

/// Compiled anew for each run: a second or less.
fn compile(to: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counts/allocations.c");
    let mut cc = Command::new("cc");
    let done = cc.args(["-O2", "-shared", "-fPIC", "-o"]).arg(to).arg(source).status().unwrap();
    assert!(done.success(), "cc failed");
}

/// Allocations so far of the shard, and of all other threads.
fn allocations(file: &Path) -> (u64, u64) {
    let (mut shard, mut others) = (0, 0);
    for place in std::fs::read(file).unwrap().chunks_exact(24) {
        let name = String::from_utf8_lossy(&place[..16]);
        let count = u64::from_ne_bytes(place[16..].try_into().unwrap());
        *(if name.starts_with("shard") { &mut shard } else { &mut others }) += count;
    }
    (shard, others)
}

#[test]
fn counts_per_request_are_as_recorded() {
    let missing: Vec<_> = ["strace", "cc"].into_iter().filter(|tool| !exists(tool)).collect();
    if !missing.is_empty() {
        return support::skip(&format!("no {}", missing.join(", no ")));
    }
    let per_request = |count: f64| (count / (ROUNDS * CLIENTS) as f64 * 1000.0).round() / 1000.0;
    // What starting, warming up and ending cost is in both runs, and in no difference. How many events meet in a turn depends
    // on what else the machine does: the middle one of some differences.
    let mut differences = [(); PAIRS].map(|()| {
        let ((enters, others), (enters_2, others_2)) = (system_calls(ROUNDS), system_calls(2 * ROUNDS));
        (enters_2 - enters, others_2 - others)
    });
    let mut middle = |of: fn(&(f64, f64)) -> f64| {
        differences.sort_by(|one, other| of(one).total_cmp(&of(other)));
        of(&differences[PAIRS / 2])
    };
    let (enters, others) = (middle(|pair| pair.0), middle(|pair| pair.1));

    let (dir, origin) = (tempfile::tempdir().unwrap(), load::origin());
    let (library, file) = (dir.path().join("allocations.so"), dir.path().join("counts"));
    compile(&library);
    std::fs::write(&file, [0; 64 * 24]).unwrap();
    let proxy = start(&origin, |command| {
        command.env("LD_PRELOAD", &library).env("RINGWAY_ALLOCATIONS", &file);
    });
    let mut load = Load::connect(proxy.edge());
    load.run(WARM_UP);
    let before = allocations(&file);
    assert!(before.0 > 0, "the shard's thread was not seen to allocate, not even at its start");
    load.run(ROUNDS);
    let after = allocations(&file);

    let counted = [
        ("enters_per_request", per_request(enters)),
        ("other_calls_per_request", per_request(others)),
        ("allocations_of_the_shard", (after.0 - before.0) as f64),
        ("allocations_of_others", per_request((after.1 - before.1) as f64)),
    ]
    .map(|(name, count)| (name.to_owned(), count));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counts.txt");
    let verdict = record::hold(&file, &counted, Margin::Absolute(0.1)).unwrap();
    verdict.table.iter().for_each(|line| println!("{line}"));
    let how = "if the growth is worth it, record it: UPDATE_COUNTS=1 cargo test -p control --test counts";
    assert!(verdict.wrong.is_empty(), "\n{}\n{how}\n", verdict.wrong.join("\n"));
}
