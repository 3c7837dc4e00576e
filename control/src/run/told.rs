//! What is told of a start and of a reload: that it went well, or why not.

use super::Running;
use super::reload::{Asker, answer_all};
use crate::admin::{Answer, Api, ms};
use crate::config::{Kind, Loaded, Report};
use crate::locked;
use crate::ready;
use crate::reload::{Object, Plan, Refused, What, addresses};
use axum::http::StatusCode;
use dataplane::io::Address;
use dataplane::plane::{Plane, StartError};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

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

    /// A reload is in force.
    pub(super) fn tell_reload(&self, told: Told, switched: Duration) {
        let Told { askers, plan, warnings, ended, forgotten, begun, read, prepared, .. } = told;
        for change in plan.changes.iter().take(LINES) {
            tracing::info!("reload: {}", change.line());
        }
        if plan.changes.len() > LINES {
            tracing::info!("reload: and {} more", plan.changes.len() - LINES);
        }
        for change in plan.changes.iter().filter(|change| change.what != What::Gone) {
            let Object::Of(Kind::Listener, name) = &change.object else { continue };
            let found = self.loaded.snapshot.listener_called(name);
            if let Some(listener) = found.filter(|one| !one.is_gone()) {
                let listens = self.bound_of(&listener.name);
                tracing::info!(
                    listener = &*listener.name,
                    asked = addresses(listener),
                    "listens on {listens}"
                );
            }
        }
        for name in &ended {
            tracing::warn!("reload: {}", self::ended(name));
        }
        for name in forgotten.iter().take(LINES) {
            tracing::info!("what was set of endpoint {name} is forgotten: it is gone");
        }
        let waits = &self.reloads.waits;
        if !waits.is_empty() {
            tracing::warn!("reload: these wait for an upgrade or a restart: {}", waits.join(", "));
        }
        let total = begun.elapsed();
        tracing::info!(
            read_ms = ms(read),
            prepare_ms = ms(prepared),
            switch_ms = ms(switched),
            total_ms = ms(total),
            "reloaded"
        );
        let took =
            json!({ "read": ms(read), "prepare": ms(prepared), "switch": ms(switched), "total": ms(total) });
        let body = json!({
            "changes": plan.to_json(),
            "waits": waits,
            "listeners": self.bound(),
            "warnings": warnings,
            "drift": self.reloads.changes.names(),
            "ended": ended,
            "forgotten": forgotten,
            "took_ms": took,
        });
        answer_all(askers, &Answer::json(StatusCode::OK, &body));
    }
}

/// Lines about single objects that a reload writes to the log at most.
const LINES: usize = 100;

/// What is told when all is done.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) askers: Vec<Asker>,
    pub(super) plan: Plan,
    pub(super) warnings: Value,
    /// Changes at run time that ended.
    pub(super) ended: Vec<String>,
    /// Whether what operators said of endpoints that are gone is to be forgotten, and of which it was.
    pub(super) forgets: bool,
    pub(super) forgotten: Vec<String>,
    pub(super) begun: Instant,
    pub(super) read: Duration,
    pub(super) prepared: Duration,
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
