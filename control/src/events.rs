//! What happened to endpoints and clusters: each event is a line of the process log, and the last of them are kept for the
//! admin API.

use crate::log::Format;
use crate::log::access::write_time;
use dataplane::limits;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much it matters, as in the process log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Nothing serves any more.
    Alert,
    Warning,
    Notice,
}

/// One event.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    /// Counts up from 1 since the start; those between the oldest kept and 1 are gone.
    pub(crate) number: u64,
    /// UTC, RFC 3339.
    time: String,
    /// A word for programs: `endpoint_down`.
    event: &'static str,
    cluster: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<Arc<str>>,
    /// The line for people.
    message: String,
    /// What the line says, for programs.
    #[serde(flatten)]
    details: Details,
}

/// The numbers and words of an event's line; each event has some of them.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Details {
    /// A class of check or of failure, for programs: `layer4_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<&'static str>,
    /// The same in full, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) check_ms: Option<u64>,
    /// What is left of the cluster: usable endpoints that are no backup, and those that are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) active: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backup: Option<u64>,
    /// Requests, or connections of a tcp listener, that run on the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) running: Option<u64>,
    /// Those that waited for this endpoint and wait for any now: none, for a queue is its cluster's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requeued: Option<u64>,
    /// Those that wait for a place at the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queued: Option<u64>,
    /// The administrative state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<&'static str>,
    /// How long it will last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) for_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failures: Option<u64>,
}

/// Whom an event is about, and what it is called.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) event: &'static str,
    pub(crate) cluster: Arc<str>,
    pub(crate) endpoint: Option<Arc<str>>,
}

/// The last events.
#[derive(Debug)]
pub(crate) struct Events {
    kept: VecDeque<Event>,
    count: u64,
    format: Format,
}

impl Events {
    /// `format` is that of the process log: its text says all in the line, its JSON in fields too.
    pub(crate) fn new(format: Format) -> Self {
        Self { kept: VecDeque::with_capacity(limits::EVENTS_KEPT), count: 0, format }
    }
    /// The process log has another format from now on.
    pub(crate) fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// Tells of an event; `message` is its line.
    pub(crate) fn tell(&mut self, weight: Weight, about: About, message: String, details: Details) {
        self.count += 1;
        let About { event, cluster, endpoint } = about;
        let event = Event { number: self.count, time: time(), event, cluster, endpoint, message, details };
        self.log(weight, &event);
        if self.kept.len() == limits::EVENTS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
    }

    fn log(&self, weight: Weight, event: &Event) {
        let message = &event.message;
        macro_rules! line {
            ($level:ident) => {
                match self.format {
                    Format::Text => tracing::$level!("{message}"),
                    Format::Json => {
                        let (d, endpoint) = (&event.details, event.endpoint.as_deref());
                        tracing::$level!(
                            event = event.event,
                            cluster = &*event.cluster,
                            endpoint,
                            class = d.class,
                            reason = d.reason.as_deref(),
                            check_ms = d.check_ms,
                            active = d.active,
                            backup = d.backup,
                            running = d.running,
                            requeued = d.requeued,
                            queued = d.queued,
                            state = d.state,
                            for_ms = d.for_ms,
                            failures = d.failures,
                            "{message}"
                        );
                    }
                }
            };
        }
        match weight {
            Weight::Alert => line!(error),
            Weight::Warning => line!(warn),
            Weight::Notice => line!(info),
        }
    }

    /// Those kept, oldest first.
    pub(crate) fn kept(&self) -> &VecDeque<Event> {
        &self.kept
    }
}

/// Now, as events say it.
pub(crate) fn time() -> String {
    #[allow(clippy::disallowed_methods, reason = "control is no shard; an event says when it was")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    written(now)
}

/// A time since 1970, as events say it.
pub(crate) fn written(time: Duration) -> String {
    let mut text = Vec::with_capacity(24);
    write_time(&mut text, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_events_are_kept_in_order() {
        let mut events = Events::new(Format::Text);
        for n in 0..limits::EVENTS_KEPT + 3 {
            let details = Details { active: u64::try_from(n).ok(), ..Details::default() };
            let about = About { event: "endpoint_down", cluster: "app".into(), endpoint: Some("one".into()) };
            events.tell(Weight::Warning, about, format!("number {n}"), details);
        }
        assert_eq!(events.kept().len(), limits::EVENTS_KEPT);
        let first = serde_json::to_value(&events.kept()[0]).unwrap();
        assert_eq!(
            (&first["number"], &first["active"], &first["message"]),
            (&json!(4), &json!(3), &json!("number 3"))
        );
        assert_eq!((&first["cluster"], &first["endpoint"]), (&json!("app"), &json!("one")));
        assert!(first.get("backup").is_none());
        assert!(first["time"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 24));
    }
}
