//! `ringway-bench load`: offers load to one address and says what came of it.
//!
//! * `plan`: what was asked for, checked. `report`: what is said about it.
//! * `shard`: one executor on one CPU: its desk (what its connections share), its clock, its end.
//! * `pace`: the schedule of an open loop. `drive`: one connection's requests. `bulk`, `idle`: the other modes.
//! * `line`: a connection as bytes, with a deadline. `response`: where a response ends.

mod bulk;
mod drive;
mod idle;
mod line;
mod pace;
mod plan;
mod report;
mod response;
mod shard;

pub(crate) use plan::Args;

use crate::net;
use plan::{Mode, Plan};
use report::{Report, Validation};
use std::sync::Arc;

/// What a validation takes.
const VALIDATION_SECONDS: f64 = 2.0;
/// Above this share of what the generator reaches against the origin alone, the generator is the limit.
const LIMIT_SHARE: f64 = 0.9;

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    net::raise_descriptors();
    let validate = args.validate;
    let plan = Plan::new(args)?;
    let direct = match validate {
        Some(origin) => Some(measure(&plan.direct(origin, VALIDATION_SECONDS))?.rps()),
        None => None,
    };
    let report = measure(&plan)?;
    let validation = direct.map(|direct_rps| Validation {
        direct_rps,
        generator_is_limit: report.rps() > LIMIT_SHARE * direct_rps,
    });
    report.print(validation)?;
    anyhow::ensure!(report.any(), "nothing succeeded");
    Ok(())
}

/// Runs one plan to its end.
fn measure(plan: &Plan) -> anyhow::Result<Report> {
    let plan = Arc::new(plan.clone());
    let shared = Arc::new(shard::Shared::new(&plan));
    if plan.mode == Mode::Idle {
        shared.end_with_stdin();
    }
    let mut threads = Vec::new();
    for index in 0..plan.cpus.len() {
        threads.push(shard::spawn(Arc::clone(&plan), Arc::clone(&shared), index)?);
    }
    let mut report = Report::new(&plan)?;
    for thread in threads {
        let tally = thread.join().map_err(|error| anyhow::anyhow!("an executor failed: {error}"))?;
        report.add(&tally)?;
    }
    Ok(report)
}
