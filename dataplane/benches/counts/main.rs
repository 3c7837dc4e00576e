//! Instructions per head, route, pick and exchange, counted by callgrind and held to `benches/counts.txt`.
//!
//! `cargo bench -p dataplane --bench counts` runs itself under valgrind, once for each case, and fails where a count grew
//! beyond its bound. No clock is involved: the same binary gives the same counts on a busy machine and an idle one.
//! Valgrind answers CPUID itself, so the libraries' choice of SIMD depends only on whether the machine knows AVX2.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test equipment: it prints what it counted, and a broken expectation must end the run"
)]

#[path = "../../tests/http1_shard/bed.rs"]
#[allow(dead_code, reason = "its tests need more of it")]
mod bed;
mod cases;
mod cluster;
mod exchange;
#[path = "../../tests/http1_shard/message.rs"]
#[allow(dead_code, reason = "its tests need more of it")]
mod message;
mod record;

use record::Margin;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// How often a case does its work while it is counted.
pub(crate) const ROUNDS: usize = 100;

const CASES: &[(&str, fn())] = &[
    ("parse_request_small", cases::parse_request_small),
    ("parse_request_browser", cases::parse_request_browser),
    ("parse_response", cases::parse_a_response),
    ("route_of_1000", cases::route_of_1000),
    ("pick_round_robin", cases::pick_round_robin),
    ("pick_least_connections", cases::pick_least_connections),
    ("pick_random", cases::pick_random),
    ("pick_peak_ewma", cases::pick_peak_ewma),
    ("pick_hash", cases::pick_hash),
    ("pick_least_connections_1000", cases::pick_least_connections_of_1000),
    ("pick_random_1000", cases::pick_random_of_1000),
    ("pick_round_robin_1000", cases::pick_round_robin_of_1000),
    ("pick_peak_ewma_1000", cases::pick_peak_ewma_of_1000),
    ("pick_first_1000", cases::pick_first_of_1000),
    ("pick_hash_1000", cases::pick_hash_of_1000),
    ("encode_request", cases::encode_a_request),
    ("encode_response", cases::encode_a_response),
    ("exchange_kept", exchange::exchange_kept),
    ("exchange_busy", exchange::exchange_busy),
    ("exchange_fresh", exchange::exchange_fresh),
];

/// Callgrind counts what runs in here: it switches at this function's name, on entry and on return.
#[inline(never)]
pub(crate) fn count_this(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

/// Instructions per round of one case.
fn count(case: &str) -> Result<f64, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.args(["--toggle-collect=*count_this*"]);
    let output =
        command.arg(own).arg(case).stdin(Stdio::null()).output().map_err(|e| format!("valgrind: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected =
        said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<f64>().ok());
    match collected.filter(|count| output.status.success() && *count > 0.0) {
        Some(count) => Ok((count / ROUNDS as f64).round()),
        None => Err(format!("{case}: no count; valgrind said\n{said}")),
    }
}

fn guard() -> Result<Vec<String>, String> {
    let counted = CASES.iter().map(|(name, _)| Ok(((*name).to_owned(), count(name)?)));
    let counted = counted.collect::<Result<Vec<_>, String>>()?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/counts.txt");
    let verdict = record::hold(&file, &counted, Margin::Percent(3.0))?;
    verdict.table.iter().for_each(|line| println!("{line}"));
    Ok(verdict.wrong)
}

fn main() -> ExitCode {
    // `cargo bench` passes its own flags; a name runs that case and nothing else.
    let name = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    if let Some(name) = name {
        let case = CASES.iter().find(|case| case.0 == name);
        case.expect("a case of that name").1();
        return ExitCode::SUCCESS;
    }
    let there = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        let fails = std::env::var_os("RINGWAY_NO_SKIP").is_some();
        eprintln!("{}: no valgrind", if fails { "may not be skipped here" } else { "skipped" });
        return if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let wrong = guard().unwrap_or_else(|why| vec![why]);
    for line in &wrong {
        eprintln!("{line}");
    }
    if wrong.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "If the growth is worth it, record it: UPDATE_COUNTS=1 cargo bench -p dataplane --bench counts"
    );
    ExitCode::FAILURE
}
