//! Going over to another configuration without a restart.
//!
//! `changes` is what was changed at run time beside the file, `ids` says which name has which id, `configured` is a file in those ids, `next` is what runs after it, `plan` what
//! changes between two of them, `show` tells that, `watch` looks at the file. What then happens to the running process is in `run::reload`.

mod changes;
mod configured;
mod ids;
mod next;
mod plan;
mod show;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use changes::{Changes, Edit, Made, Read, Refused, Target, Wanted};
pub(crate) use configured::put;
pub(crate) use next::{Next, Present};
pub(crate) use plan::{Object, Plan, What, addresses};
pub(crate) use show::lines;
pub(crate) use watch::Watch;
