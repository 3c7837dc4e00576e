//! What `/metrics` counts, read from its text: the families that are shown, each by the values of its labels.

use std::collections::BTreeMap;

/// A family that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    Version,
    /// When the process began, seconds since 1970.
    Began,
    ListenerRequests,
    ListenerReceived,
    ListenerSent,
    ListenerConnections,
    ListenerOpen,
    ListenerTimes,
    ClusterRequests,
    ClusterRetries,
    ClusterTimes,
    EndpointAttempts,
    Refusals,
    Closes,
    Retries,
    LogLost,
    ShardTurns,
    ShardRequests,
    ShardOpen,
    ShardLinks,
    ShardQueued,
    ShardStarved,
    ShardBuffers,
    ShardBuffersFree,
    /// Of `/v1/shards`, in seconds.
    ShardCpu,
}

/// A family, its name and its labels, in the order in which [`Counts`] has their values.
const FAMILIES: &[(Family, &str, &[&str])] = &[
    (Family::Version, "ringway_build_info", &["version"]),
    (Family::Began, "process_start_time_seconds", &[]),
    (Family::ListenerRequests, "ringway_listener_requests_total", &["listener", "status"]),
    (Family::ListenerReceived, "ringway_listener_received_bytes_total", &["listener"]),
    (Family::ListenerSent, "ringway_listener_sent_bytes_total", &["listener"]),
    (Family::ListenerConnections, "ringway_listener_connections_total", &["listener"]),
    (Family::ListenerOpen, "ringway_listener_connections_open", &["listener"]),
    (Family::ListenerTimes, "ringway_listener_duration_seconds_bucket", &["listener", "le"]),
    (Family::ClusterRequests, "ringway_cluster_requests_total", &["cluster", "status"]),
    (Family::ClusterRetries, "ringway_cluster_retries_total", &["cluster", "reason"]),
    (Family::ClusterTimes, "ringway_cluster_duration_seconds_bucket", &["cluster", "le"]),
    (Family::EndpointAttempts, "ringway_endpoint_attempts_total", &["cluster", "endpoint", "result"]),
    (Family::Refusals, "ringway_refusals_total", &["reason"]),
    (Family::Closes, "ringway_closed_connections_total", &["reason"]),
    (Family::Retries, "ringway_retries_total", &["reason"]),
    (Family::LogLost, "ringway_log_lost_total", &["cause"]),
    (Family::ShardTurns, "ringway_shard_turns_total", &["shard"]),
    (Family::ShardRequests, "ringway_shard_requests_total", &["shard"]),
    (Family::ShardOpen, "ringway_shard_connections_open", &["shard"]),
    (Family::ShardLinks, "ringway_shard_links_open", &["shard"]),
    (Family::ShardQueued, "ringway_shard_queued", &["shard"]),
    (Family::ShardStarved, "ringway_shard_starved_receives", &["shard"]),
    (Family::ShardBuffers, "ringway_shard_buffers", &["shard", "size"]),
    (Family::ShardBuffersFree, "ringway_shard_buffers_free", &["shard", "size"]),
];

/// A family and the values of its labels.
type Key = (Family, Vec<String>);

/// Samples by family and labels.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(BTreeMap<Key, f64>);

impl Counts {
    /// Reads the text format of Prometheus (0.0.4). What is of no family that is shown, or makes no sense, is left out.
    pub(super) fn read(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(end) = line.find(['{', ' ']) else { continue };
            let Some((family, _, names)) = FAMILIES.iter().find(|(_, name, _)| *name == &line[..end]) else {
                continue;
            };
            let Some((labels, rest)) = labels(&line[end..]) else { continue };
            let Ok(value) = rest.trim().parse::<f64>() else { continue };
            let of = |name: &&str| {
                let found = labels.iter().find(|(label, _)| label == name);
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            };
            counts.0.insert((*family, names.iter().map(of).collect()), value);
        }
        counts
    }

    pub(super) fn put(&mut self, family: Family, labels: &[&str], value: f64) {
        self.0.insert((family, labels.iter().map(|label| (*label).to_owned()).collect()), value);
    }

    /// Samples of a family whose labels begin with these values, with all their labels.
    pub(super) fn of<'c>(
        &'c self,
        family: Family,
        labels: &'c [&str],
    ) -> impl Iterator<Item = (&'c [String], f64)> {
        let from: Key = (family, labels.iter().map(|label| (*label).to_owned()).collect());
        let ours =
            move |key: &Key| key.0 == family && key.1.iter().zip(labels).all(|(one, other)| one == other);
        self.0.range(from..).take_while(move |(key, _)| ours(key)).map(|(key, value)| (&*key.1, *value))
    }

    /// One sample, by all its labels.
    pub(super) fn one(&self, family: Family, labels: &[&str]) -> Option<f64> {
        self.of(family, labels).next().map(|(_, value)| value)
    }

    /// The same of these families alone.
    pub(super) fn only(&self, families: &[Family]) -> Self {
        let kept = self.0.iter().filter(|((family, _), _)| families.contains(family));
        Self(kept.map(|(key, value)| (key.clone(), *value)).collect())
    }
}

/// `{name="value",…}`, or nothing, and what follows.
fn labels(text: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let Some(mut rest) = text.strip_prefix('{') else { return Some((Vec::new(), text)) };
    let mut labels = Vec::new();
    loop {
        if let Some(end) = rest.strip_prefix('}') {
            return Some((labels, end));
        }
        let (name, after) = rest.trim_start_matches(',').split_once("=\"")?;
        let (value, after) = value(after)?;
        labels.push((name, value));
        rest = after;
    }
}

/// A label's value up to its quote, without its escapes, and what follows.
fn value(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    loop {
        match chars.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => match chars.next()?.1 {
                'n' => value.push('\n'),
                c => value.push(c),
            },
            (_, c) => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_by_their_labels() {
        let counts = Counts::read(
            "# HELP ringway_refusals_total x\n# TYPE ringway_refusals_total counter\n\
             ringway_refusals_total{reason=\"bare_lf\"} 7\n\
             ringway_endpoint_attempts_total{cluster=\"a\",endpoint=\"x \\\"} 1\\\\ \\n\",result=\"2xx\"} 12\n\
             ringway_endpoint_attempts_total{cluster=\"a\",endpoint=\"y\",result=\"2xx\"} 3\n\
             ringway_endpoint_attempts_total{cluster=\"ab\",endpoint=\"y\",result=\"2xx\"} 4\n\
             ringway_something_else{a=\"b\"} 9\nringway_build_info{version=\"0.1.0\"} 1\nringway_shard_turns_total 5\n",
        );
        assert_eq!(counts.one(Family::Refusals, &["bare_lf"]), Some(7.0));
        assert_eq!(counts.one(Family::Refusals, &["bare_cr"]), None);
        assert_eq!(counts.one(Family::EndpointAttempts, &["a", "x \"} 1\\ \n", "2xx"]), Some(12.0));
        assert_eq!(counts.of(Family::EndpointAttempts, &["a"]).map(|(_, n)| n).sum::<f64>(), 15.0);
        assert_eq!(counts.of(Family::EndpointAttempts, &[]).count(), 3);
        assert_eq!(
            counts.of(Family::Version, &[]).next().map(|(labels, _)| labels),
            Some(&["0.1.0".to_owned()][..])
        );
        assert_eq!(counts.only(&[Family::Refusals]).0.len(), 1);
    }

    #[test]
    fn what_is_cut_off_or_none_is_left_out() {
        for text in [
            "ringway_refusals_total{reason=\"x\"",
            "ringway_refusals_total{reason=\"x\\",
            "ringway_refusals_total{reason",
            "ringway_refusals_total{} x",
            "ringway_refusals_total",
            "{",
            " ",
            "",
        ] {
            assert!(Counts::read(text).0.is_empty(), "{text:?}");
        }
    }
}
