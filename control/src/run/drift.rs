//! What the process runs that its file does not say: the file with it, and a list of it.

use super::Running;
use crate::admin::{Answer, Name};
use crate::endpoints;
use crate::reload::Target;
use axum::http::StatusCode;
use dataplane::cluster::eligible::Admin;
use serde_json::{Value, json};
use std::fmt::Write as _;

impl Running<'_> {
    /// A file with which another process would run what this one does. What operators said of endpoints is no part of a
    /// configuration: it stands there as comments.
    pub(super) fn export(&self) -> String {
        let mut text = self.reloads.present.configured.text.to_string();
        for (cluster, endpoint, state) in self.watch.all_said() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n# ringway set {cluster}/{endpoint} {}", state.name());
        }
        text
    }

    /// What was changed at run time and is not in the file.
    pub(super) fn drift(&self) -> Answer {
        let reloads = &self.reloads;
        let change = |(target, what): (&Target, &'static str)| -> Value {
            let (kind, name) = match target {
                Target::Cluster(name) => ("cluster", name.clone()),
                Target::Endpoint(cluster, name) => ("endpoint", format!("{cluster}/{name}")),
                Target::Route(name) => ("route", name.clone()),
            };
            json!({ "kind": kind, "name": name, "change": what })
        };
        let changes: Vec<Value> = reloads.changes.told(&reloads.file).into_iter().map(change).collect();
        let said = |(cluster, endpoint, state): (&str, &str, Admin)| {
            let name = Name { cluster: cluster.to_owned(), endpoint: endpoint.to_owned() };
            let gone = endpoints::find(&self.loaded.snapshot, &name).is_err();
            json!({ "endpoint": format!("{cluster}/{endpoint}"), "state": state.name(), "gone": gone })
        };
        let states: Vec<Value> = self.watch.all_said().map(said).collect();
        Answer::json(StatusCode::OK, &json!({ "changes": changes, "states": states }))
    }
}
