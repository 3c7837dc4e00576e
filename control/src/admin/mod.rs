//! The admin API: how commands, people and other programs ask the running process, and tell it.
//!
//! `server` accepts and bounds, `places` are those of its connections, `guard` says who may ask what, `api` knows paths, `client`
//! is the other end for our commands (`commands`). None of them touches the plane: a question goes as an `Ask` to control's loop,
//! which alone has it, and the answer comes back ready to send. A new path is a row in `paths`, which `openapi` describes, a
//! function in `api` and a variant here.

mod api;
mod change;
pub(crate) mod client;
pub mod commands;
pub(crate) mod connections;
pub mod drain;
pub(crate) mod explain;
pub mod guard;
mod objects;
mod openapi;
pub(crate) mod page;
mod paths;
mod places;
mod query;
mod server;
mod table;
pub mod upgrade;
mod view;

pub(crate) use drain::{Asked as DrainAsked, Scope as DrainScope};
pub use explain::Asked;
pub(crate) use server::Api;
pub(crate) use view::Sight;

use crate::health::Task;
use crate::metrics::Format;
use crate::reload::Wanted;
use axum::http::StatusCode;
use connections::{Reply, Wants};
use dataplane::cluster::eligible::Admin;
use objects::LimitView;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// An endpoint by its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub cluster: String,
    pub endpoint: String,
}

impl Name {
    /// `CLUSTER/ENDPOINT`. A cluster's name has no "/", so the first one parts them.
    pub fn parse(text: &str) -> Option<Self> {
        let (cluster, endpoint) = text.split_once('/')?;
        let whole = !cluster.is_empty() && !endpoint.is_empty();
        whole.then(|| Self { cluster: cluster.to_owned(), endpoint: endpoint.to_owned() })
    }
}

/// A question to control's loop.
#[derive(Debug)]
pub(crate) enum Question {
    /// Whether new connections are taken.
    Ready,
    Clusters,
    /// By its name.
    Cluster(String),
    Endpoint(Name),
    Listeners,
    Routes,
    /// By its name.
    Route(String),
    Shards,
    /// With those that the API counts itself.
    Limits(Vec<LimitView>),
    SetState(Name, Admin),
    /// What the logs lost.
    Logs,
    /// The configuration that runs, as a file.
    Export,
    /// What was changed at run time.
    Drift,
    Events,
    /// Everything that drains.
    Drains,
    /// Somebody is to drain, or no longer.
    Drain(DrainAsked),
    Metrics(Format),
    Explain(Asked),
    Dashboard(Box<page::Asked>),
}

/// An answer, in JSON unless its kind says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Its Content-Type.
    pub(crate) kind: &'static str,
    pub(crate) body: Vec<u8>,
}

const JSON: &str = "application/json";

impl Answer {
    pub(crate) fn json(status: StatusCode, body: &impl serde::Serialize) -> Self {
        Self::long_json(status, body, 0)
    }

    /// The same of an answer that is expected to have so many bytes: one of megabytes would be copied again and again as its
    /// buffer grows.
    pub(crate) fn long_json(status: StatusCode, body: &impl serde::Serialize, bytes: usize) -> Self {
        let mut written = Vec::with_capacity(bytes);
        match serde_json::to_writer(&mut written, body) {
            Ok(()) => Self { status, kind: JSON, body: written },
            // What is sent is made of numbers, words and maps with string keys, which always can be written.
            Err(error) => {
                Self { status: StatusCode::INTERNAL_SERVER_ERROR, kind: JSON, body: error.to_string().into() }
            }
        }
    }

    /// Why a question has no other answer.
    pub(crate) fn refused(status: StatusCode, why: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": why }))
    }

    /// Text of a kind.
    pub(crate) fn text(kind: &'static str, text: String) -> Self {
        Self { status: StatusCode::OK, kind, body: text.into_bytes() }
    }
}

/// A text that a plan is made of.
#[derive(Debug)]
pub(crate) struct PlanAsked {
    /// Of its file, for its problems.
    pub(crate) name: String,
    pub(crate) text: String,
    /// One of those for plans, held for as long as it is read.
    pub(crate) place: OwnedSemaphorePermit,
}

/// Milliseconds as the API and the log say them: to the microsecond, as no clock here is read finer.
pub(crate) fn ms(time: Duration) -> f64 {
    // Of less than 285 years this is exact, and written with three digits at most.
    time.as_micros() as f64 / 1000.0
}

/// Seconds likewise, to the millisecond.
pub(crate) fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

/// A question and where its answer goes.
#[derive(Debug)]
pub(crate) enum Ask {
    Answer(Question, oneshot::Sender<Answer>),
    /// Reads the file anew; answered when it is in force, or why it is not.
    Reload(oneshot::Sender<Answer>),
    /// What a reload would change.
    Plan(PlanAsked, oneshot::Sender<Answer>),
    /// Starts the next process; answered when that has taken over, or why it has not.
    Upgrade(oneshot::Sender<Answer>),
    /// Changes something at run time; answered as a reload is.
    Change(Wanted, oneshot::Sender<Answer>),
    /// What a check of this endpoint would be; an error says which name is unknown.
    Probe(Name, oneshot::Sender<Result<Task, String>>),
    /// What a shard says of its connections.
    Connections(Wants, oneshot::Sender<Reply>),
    /// What is counted of the whole node now.
    Pulse(oneshot::Sender<page::Pulse>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_without_noise() {
        for (ns, text) in
            [(0, "0.0"), (1_234_567, "1.234"), (300_000, "0.3"), (86_400_000_001_000, "86400000.001")]
        {
            assert_eq!(serde_json::json!(ms(Duration::from_nanos(ns))).to_string(), text);
        }
    }

    #[test]
    fn endpoints_are_named_by_two_names() {
        let name = Name::parse("app/unix:/run/x.sock").unwrap();
        assert_eq!((name.cluster.as_str(), name.endpoint.as_str()), ("app", "unix:/run/x.sock"));
        for text in ["", "app", "app/", "/one", "/"] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }
}
