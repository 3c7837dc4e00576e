//! What is told of a start and of a reload: that it went well, or why not.

use super::Running;
use crate::admin::{Answer, Api};
use crate::config::{Loaded, Report};
use crate::locked;
use crate::ready;
use crate::reload::Refused;
use axum::http::StatusCode;
use dataplane::io::Address;
use dataplane::plane::{Plane, StartError};
use serde_json::{Value, json};

/// Why the plane did not start, in one line that says what to change.
pub(super) fn explain(error: &StartError) -> String {
    match error {
        StartError::Bind { listener, address: address @ Address::Unix(_), errno } => {
            let hint = match errno.0 {
                libc::EADDRINUSE => "; somebody listens there: end it, or change the path",
                libc::ENOTSOCK => "; a file is there that is no socket: it is not touched",
                libc::ENOENT => "; its directory does not exist",
                libc::EACCES => "; the directory must be writable, and a socket there to be replaced too",
                _ => "",
            };
            format!("cannot listen on {address} (listener {listener}): {errno}{hint}")
        }
        StartError::Inherited { listener, fd, why } => {
            format!("cannot listen on fd:{fd} (listener {listener}): it {why}")
        }
        StartError::Bind { listener, address, errno } => {
            let hint = match errno.0 {
                libc::EADDRINUSE => "; something else listens there: end it, or change the address",
                libc::EACCES => "; ports below 1024 need CAP_NET_BIND_SERVICE",
                libc::EADDRNOTAVAIL => "; this machine has no such address",
                _ => "",
            };
            format!("cannot listen on {address} (listener {listener}): {errno}{hint}")
        }
        StartError::Machine(why) => why.clone(),
    }
}

/// Why the admin API does not listen, likewise.
pub(super) fn explain_api(to: &Address, error: &std::io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "; something else listens there: end it, or change the address",
        Some(libc::EADDRNOTAVAIL) => "; this machine has no such address",
        Some(libc::ENOTSOCK) => "; a file is there that is no socket: it is not touched",
        Some(libc::ENOENT) => "; its directory does not exist",
        Some(libc::EACCES) => "; this process may not",
        _ => "",
    };
    format!("cannot listen on {to} (admin): {error}{hint}")
}

impl Running<'_> {
    /// Every bound address.
    pub(super) fn bound(&self) -> Value {
        let entry = |bound: dataplane::plane::Bound| {
            let name = self.loaded.snapshot.listener(bound.listener).map_or("", |listener| &listener.name);
            json!({ "name": name, "address": bound.address.to_string() })
        };
        self.plane.bound().into_iter().map(entry).collect()
    }

    pub(super) fn bound_of(&self, name: &str) -> String {
        let all = self.plane.bound();
        let is_its = |bound: &&dataplane::plane::Bound| {
            self.loaded.snapshot.listener(bound.listener).is_some_and(|listener| *listener.name == *name)
        };
        all.iter().filter(is_its).map(|bound| bound.address.to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// Why nothing was read, in words and in the problems of a file.
pub(super) fn wrong(refused: &Refused) -> (String, Option<&Report>) {
    match refused {
        Refused::Wrong(report) => ("the file is wrong".to_owned(), Some(report)),
        Refused::Unknown(what) => (what.clone(), None),
        Refused::Clash(report, names) => {
            let names = names.join(", ");
            let why = format!(
                "the file is right, but not with what was changed at run time ({names}); `ringway drift --forget` ends that"
            );
            (why, Some(report))
        }
    }
}

/// That a change at run time is over.
pub(super) fn ended(name: &str) -> String {
    format!("the file is another where {name} was changed at run time: the file holds")
}

pub(super) fn unprocessable(why: &str, report: Option<&Report>) -> Answer {
    let problems = report.map(Report::to_json).unwrap_or_default();
    Answer::json(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "error": why, "problems": problems }))
}

/// Tells the world that every shard listens.
pub(super) fn announce(plane: &Plane, loaded: &Loaded, api: Option<&Api>, demo: bool) {
    let snapshot = &loaded.snapshot;
    let name = |id| snapshot.listener(id).map_or("", |listener| &listener.name);
    let bound = plane.bound();
    let bound: Vec<_> = bound.iter().map(|bound| (name(bound.listener), &bound.address)).collect();
    let shards = usize::from(snapshot.runtime.shards);
    let admin = api.map(|api| api.address().to_string());
    if demo {
        ready::print(&ready::demo_text(&bound, admin.as_deref(), shards));
    } else {
        ready::print(&ready::line(&bound, admin.as_deref(), shards));
    }
    ready::notify("READY=1");
}

/// Says so where the rings are not as they should be.
pub(super) fn warn_of_shortage(plane: &Plane) {
    if let Some(shortage) = locked::shortage(&plane.ring_memory()) {
        tracing::warn!("{shortage}; mend: {}", locked::MEND);
    }
}
