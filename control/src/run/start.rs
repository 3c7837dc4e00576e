//! What is to run: the file or the demo, read with what the process before this one had changed at run time; and the commands that
//! only look at a file.

use super::reading::Reader;
use super::{cannot, serve, told};
use crate::cli::complain;
use crate::config::{self, Environment};
use crate::doctor;
use crate::exit::Exit;
use crate::inherited;
use crate::ports;
use crate::process;
use crate::ready;
use crate::reload::Refused;
use crate::upgrade::Former;
use dataplane::plane;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::path::Path;

/// `ringway`: the built-in demo.
pub fn demo() -> Exit {
    start(None)
}

/// `ringway run -c FILE`.
pub fn run(file: &Path) -> Exit {
    start(Some(file))
}

fn start(file: Option<&Path>) -> Exit {
    process::began();
    let mut former = match Former::hear() {
        Ok(former) => former,
        Err(why) => return cannot(&why),
    };
    let mut environment = environment(true);
    if let Some(former) = &former {
        environment.inherited = Some(former.inherited.clone());
        // The process before this one waits, and what it read out of a pipe is gone.
        environment.pipes = false;
        file.into_iter().for_each(|file| Reader::new().inject(&file.display().to_string()));
    }
    let made = former.as_mut().map(|former| std::mem::take(&mut former.made)).unwrap_or_default();
    let read = match file {
        Some(file) => made.changes.reload(file, &made.file, &environment),
        None => config::parse(config::DEMO, "demo", &environment)
            .map_err(Refused::Wrong)
            .and_then(|demo| made.changes.follow(demo, &made.file, "demo", &environment)),
    };
    match read {
        Ok(read) => {
            eprint_all(&read.loaded.warnings.to_string());
            serve(read, file, environment, former)
        }
        Err(refused) => {
            let (why, report) = told::wrong(&refused);
            eprint_all(&report.map(ToString::to_string).unwrap_or_default());
            // A report says by itself that a file is wrong.
            if !matches!(refused, Refused::Wrong(_)) {
                complain(&why);
            }
            if file.is_some() { Exit::Configuration } else { Exit::Internal }
        }
    }
}

/// `ringway check -c FILE`.
pub fn check(file: &Path, json: bool) -> Exit {
    let (report, exit) = match config::load(file, &environment(false)) {
        Ok(loaded) => (loaded.warnings, Exit::Clean),
        Err(report) => (report, Exit::Configuration),
    };
    if json {
        ready::print(&report.to_json().to_string());
    } else {
        eprint_all(&report.to_string());
    }
    exit
}

/// `ringway doctor`.
pub fn doctor(question: &doctor::Question) -> Exit {
    doctor::run(question, &environment(false))
}

fn eprint_all(lines: &str) {
    let end = if lines.is_empty() || lines.ends_with('\n') { "" } else { "\n" };
    let _ = std::io::stderr().lock().write_all(format!("{lines}{end}").as_bytes());
}

/// What a configuration's "auto" values follow. Raises the descriptor limit first, as far as the machine lets us.
pub(super) fn environment(serves: bool) -> Environment {
    let machine = plane::resources();
    Environment {
        cpus: machine.shards,
        descriptors: machine.descriptors,
        inherited: serves.then(inherited::names),
        random_node: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
        random_key: random_key(),
        local_ports: ports::range_of_machine(),
        is_source: plane::is_source,
        pipes: true,
    }
}

/// Drawn from what the standard library draws from the machine for its hash tables.
fn random_key() -> [u8; 16] {
    let half = || RandomState::new().hash_one(std::process::id());
    ((u128::from(half()) << 64) | u128::from(half())).to_le_bytes()
}
