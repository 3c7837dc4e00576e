//! Drains by the API and by `ringway drain`: what is asked for, and how the answer is shown.

use super::commands::Where;
use super::{Answer, Name};
use crate::config::{Environment, parse_duration};
use crate::exit::Exit;
use crate::ready;
use dataplane::spec::Reason;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// Who is to drain, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Asked {
    /// The whole node: /ready fails, then no new connections are taken, then connections leave. So it is without any of these
    #[arg(long, conflicts_with_all = ["listener", "cluster", "endpoint"])]
    pub node: bool,
    /// A listener: it takes no new connections, and those that it has leave
    #[arg(long, value_name = "NAME", conflicts_with_all = ["cluster", "endpoint"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// A cluster: no request is sent there any more; what runs ends by itself
    #[arg(long, value_name = "NAME", conflicts_with = "endpoint")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// An endpoint: it keeps its sticky clients and gets no others, as by `ringway set CLUSTER/NAME drain`
    #[arg(long, value_name = "CLUSTER/NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Of the node: shutdown and deploy end the process when nothing is left, rebalance leaves it there [default: rebalance]
    #[arg(long, value_name = "REASON")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of the node or a listener: by when what still runs is closed, as 30s [default: that of the reason, in the file]
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// It does not drain any longer: connections that are left stay, and new ones are taken again
    #[arg(long, conflicts_with_all = ["reason", "window"])]
    pub abort: bool,
}

/// The same, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    Node(Reason),
    Listener(String),
    Cluster(String),
    Endpoint(Name),
}

impl Asked {
    /// # Errors
    /// What makes no sense, in words.
    pub(crate) fn read(&self) -> Result<(Scope, Option<Duration>), String> {
        let reason = self.reason.as_ref().map(|word| {
            let found = Reason::ALL.into_iter().find(|reason| reason.name() == word);
            found.ok_or_else(|| {
                format!("no reason to drain is called {word:?}: shutdown, deploy or rebalance")
            })
        });
        let reason = reason.transpose()?;
        let window = self.window.as_ref().map(|text| {
            let bound = dataplane::limits::DRAIN_TIMEOUT;
            match parse_duration(text) {
                Ok(window) if (bound.min..=bound.max).contains(&window) => Ok(window),
                Ok(_) => Err("window: at most 24h".to_owned()),
                Err(what) => Err(format!("window: {what}")),
            }
        });
        let window = window.transpose()?;
        if self.abort && (reason.is_some() || window.is_some()) {
            return Err("what is called off has neither a reason nor a window".to_owned());
        }
        let scope = match (self.node, &self.listener, &self.cluster, &self.endpoint) {
            (_, None, None, None) => Scope::Node(reason.unwrap_or(Reason::Rebalance)),
            (false, Some(name), None, None) => Scope::Listener(name.clone()),
            (false, None, Some(name), None) => Scope::Cluster(name.clone()),
            (false, None, None, Some(name)) => {
                let name = Name::parse(name).ok_or("an endpoint is named as CLUSTER/ENDPOINT")?;
                Scope::Endpoint(name)
            }
            _ => return Err("one of node, listener, cluster and endpoint".to_owned()),
        };
        match &scope {
            Scope::Listener(_) if reason.is_some_and(|reason| reason != Reason::Rebalance) => {
                Err("only a node drains for shutdown or deploy".to_owned())
            }
            Scope::Cluster(_) | Scope::Endpoint(_) if reason.is_some() || window.is_some() => {
                Err("a cluster or endpoint has neither reason nor window: what runs there ends by itself"
                    .to_owned())
            }
            _ => Ok((scope, window)),
        }
    }

    /// What is left of it in an answer: its phase, and what it says; none where it does not drain.
    fn find<'a>(&self, shown: &'a Value) -> Option<&'a Value> {
        let called = |kind: &str, name: &str| {
            shown[kind].as_array().into_iter().flatten().find(|one| one["name"] == name)
        };
        match (&self.listener, &self.cluster, &self.endpoint) {
            (Some(name), _, _) => called("listeners", name),
            (_, Some(name), _) => called("clusters", name),
            (_, _, Some(name)) => called("endpoints", name),
            _ => Some(&shown["node"]).filter(|node| !node.is_null()),
        }
    }
    /// Why the node drains, where that is not why it was asked to.
    fn other_reason<'a>(&self, shown: &'a Value) -> Option<&'a str> {
        let of_node = self.title() == "node";
        let is_other =
            |reason: &&str| *reason != self.reason.as_deref().unwrap_or_else(|| Reason::Rebalance.name());
        shown["node"]["reason"].as_str().filter(is_other).filter(|_| of_node)
    }
    fn title(&self) -> String {
        match (&self.listener, &self.cluster, &self.endpoint) {
            (Some(name), _, _) => format!("listener {name}"),
            (_, Some(name), _) => format!("cluster {name}"),
            (_, _, Some(name)) => format!("endpoint {name}"),
            _ => "node".to_owned(),
        }
    }
}

/// `GET /v1/drain` and `POST /v1/drain`.
pub(super) mod paths {
    use super::super::api::Door;
    use super::{Answer, Asked};
    use crate::admin::Question;
    use axum::body::Bytes;
    use axum::extract::State;
    use axum::http::StatusCode;

    pub(in crate::admin) async fn show(State(door): State<Door>) -> Answer {
        door.ask(Question::Drains).await
    }

    pub(in crate::admin) async fn begin(State(door): State<Door>, body: Bytes) -> Answer {
        match serde_json::from_slice::<Asked>(&body) {
            Ok(asked) => door.ask(Question::Drain(asked)).await,
            Err(error) => Answer::refused(StatusCode::BAD_REQUEST, &error.to_string()),
        }
    }
}

/// Between two looks of `--wait`.
const LOOK: Duration = Duration::from_millis(500);

/// `ringway drain --abort`: whether there was anything to call off.
fn call_off(asked: &Asked, at: &Where, environment: &Environment) -> Result<(), Exit> {
    let before = at.ask_json(environment, "GET", "/v1/drain", None)?;
    let after = at.ask_json(environment, "POST", "/v1/drain", Some(&json!(asked).to_string()))?;
    let title = asked.title();
    ready::print(&match (asked.find(&before), asked.find(&after)) {
        // As a listener that a reload took away.
        (_, Some(still)) => line(&title, still),
        (None, None) => format!("{title} does not drain: there is nothing to call off"),
        (Some(was), None) if was["by_signal"] == true => format!(
            "{title} does not drain any more; a signal had asked for its end, and who sent it may kill the process yet"
        ),
        (Some(_), None) => format!("{title} does not drain any more"),
    });
    Ok(())
}

/// `ringway drain`. With `wait`, until nothing is left, or the process is gone.
pub fn command(asked: &Asked, wait: bool, at: &Where, environment: &Environment) -> Exit {
    if asked.abort {
        return call_off(asked, at, environment).err().unwrap_or(Exit::Clean);
    }
    let body = json!(asked).to_string();
    let mut shown = match at.ask_json(environment, "POST", "/v1/drain", Some(&body)) {
        Ok(shown) => shown,
        Err(exit) => return exit,
    };
    let title = asked.title();
    let mut said = String::new();
    let other = asked.other_reason(&shown).map(str::to_owned);
    if let Some(reason) = other {
        ready::print(&format!("{title} drains for {reason} already: the process ends when nothing is left"));
    }
    loop {
        let Some(one) = asked.find(&shown) else {
            ready::print(&format!("{title} does not drain"));
            return Exit::Clean;
        };
        let line = line(&title, one);
        if line != said {
            ready::print(&line);
            said = line;
        }
        if !wait || one["phase"] == "drained" {
            return Exit::Clean;
        }
        std::thread::park_timeout(LOOK);
        let ends = one["reason"].as_str().is_some_and(|reason| reason != Reason::Rebalance.name());
        shown = match at.try_json(environment, "/v1/drain") {
            Some(shown) => shown,
            None if ends => {
                ready::print(&format!("{title}: the process has ended"));
                return Exit::Clean;
            }
            None => return Exit::Unreachable,
        };
    }
}

/// What drains, line by line; empty where nothing does.
pub(crate) fn lines(shown: &Value) -> String {
    let mut out = String::new();
    let node = Some(&shown["node"]).filter(|node| node.is_object()).map(|node| ("node".to_owned(), node));
    let of = |kind: &'static str, title: &'static str| {
        let all = shown[kind].as_array().map_or(&[][..], Vec::as_slice);
        all.iter().map(move |one| (format!("{title} {}", one["name"].as_str().unwrap_or("-")), one))
    };
    let all = node.into_iter().chain(of("listeners", "listener")).chain(of("clusters", "cluster"));
    for (title, one) in all.chain(of("endpoints", "endpoint")) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "drains: {}", line(&title, one));
    }
    out
}

/// One thing that drains, in a line.
fn line(title: &str, one: &Value) -> String {
    let mut out = format!("{title}: {}", one["phase"].as_str().unwrap_or("-"));
    if let Some(reason) = one["reason"].as_str() {
        let _ = write!(out, ", for {reason}");
    }
    let counts = ["connections", "requests", "tunnels", "running", "links"];
    let counts = counts.iter().filter_map(|word| Some(format!("{} {word}", one[*word].as_u64()?)));
    let counts: Vec<String> = counts.collect();
    if !counts.is_empty() {
        let _ = write!(out, "; {} left", counts.join(", "));
    }
    if let Some(left) = one["left_s"].as_f64().filter(|left| *left > 0.0) {
        let _ = write!(out, ", {left:.0} s to go");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_one_thing_and_makes_sense() {
        let read = |text: &str| serde_json::from_str::<Asked>(text).unwrap().read();
        assert_eq!(read("{}"), Ok((Scope::Node(Reason::Rebalance), None)));
        let window = Some(Duration::from_secs(5));
        assert_eq!(
            read(r#"{"node": true, "reason": "shutdown", "window": "5s"}"#),
            Ok((Scope::Node(Reason::Shutdown), window))
        );
        assert_eq!(
            read(r#"{"listener": "edge", "window": "5s"}"#),
            Ok((Scope::Listener("edge".to_owned()), window))
        );
        for wrong in [
            r#"{"node": true, "cluster": "app"}"#,
            r#"{"listener": "edge", "cluster": "app"}"#,
            r#"{"listener": "edge", "reason": "shutdown"}"#,
            r#"{"cluster": "app", "window": "5s"}"#,
            r#"{"endpoint": "app"}"#,
            r#"{"reason": "boredom"}"#,
            r#"{"window": "5"}"#,
            r#"{"window": "25h"}"#,
            r#"{"abort": true, "window": "5s"}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_thing_that_drains_has_a_line() {
        let shown = json!({
            "node": { "phase": "leaving", "reason": "shutdown", "connections": 5, "requests": 2, "tunnels": 1, "left_s": 12.4 },
            "listeners": [{ "name": "edge", "phase": "drained", "reason": "rebalance", "connections": 0, "left_s": 0.0 }],
            "clusters": [{ "name": "app", "phase": "leaving", "running": 3, "links": 4 }],
            "endpoints": [],
        });
        assert_eq!(
            lines(&shown),
            "drains: node: leaving, for shutdown; 5 connections, 2 requests, 1 tunnels left, 12 s to go\n\
             drains: listener edge: drained, for rebalance; 0 connections left\n\
             drains: cluster app: leaving; 3 running, 4 links left\n"
        );
        assert_eq!(lines(&json!({ "node": null })), "");
    }
}
