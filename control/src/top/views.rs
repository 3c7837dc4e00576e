//! The views: what each shows of the numbers, as a table, and what stands out of all of them.

use super::ask::list;
use super::clean;
use super::counts::Family;
use super::numbers::Numbers;
use super::table::{
    Cell, Column, Row, Sort, Table, Tone, bytes, count, figures, percent, short, time, words,
};
use crate::admin::drain::lines as drains;
use serde_json::Value;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Traffic,
    Clusters,
    Endpoints,
    Errors,
    Shards,
    Limits,
    Events,
}

impl View {
    pub(super) const ALL: [Self; 7] = [
        Self::Traffic,
        Self::Clusters,
        Self::Endpoints,
        Self::Errors,
        Self::Shards,
        Self::Limits,
        Self::Events,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Traffic => "Traffic",
            Self::Clusters => "Clusters",
            Self::Endpoints => "Endpoints",
            Self::Errors => "Errors",
            Self::Shards => "Shards",
            Self::Limits => "Limits",
            Self::Events => "Events",
        }
    }

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Traffic => TRAFFIC,
            Self::Clusters => CLUSTERS,
            Self::Endpoints => ENDPOINTS,
            Self::Errors => ERRORS,
            Self::Shards => SHARDS,
            Self::Limits => LIMITS,
            Self::Events => EVENTS,
        }
    }

    /// How its rows are sorted at first; those of equal value stay in the order of the answer.
    pub(super) fn sort(self) -> Sort {
        match self {
            Self::Traffic | Self::Clusters | Self::Endpoints | Self::Shards => {
                Sort { column: 0, down: false }
            }
            Self::Errors => Sort { column: 2, down: true },
            Self::Limits => Sort { column: 2, down: true },
            Self::Events => Sort { column: 0, down: true },
        }
    }

    pub(super) fn table(self, numbers: &Numbers) -> Table {
        let rows = match self {
            Self::Traffic => traffic(numbers),
            Self::Clusters => clusters(numbers),
            Self::Endpoints => endpoints(numbers),
            Self::Errors => errors(numbers),
            Self::Shards => shards(numbers),
            Self::Limits => limits(numbers),
            Self::Events => events(numbers),
        };
        Table { columns: self.columns(), rows }
    }
}

const TRAFFIC: &[Column] = &[
    words("LISTENER", 0),
    figures("REQ/S", 0),
    figures("CONN/S", 3),
    figures("OPEN", 1),
    figures("IN/S", 4),
    figures("OUT/S", 2),
    figures("4XX/S", 7),
    figures("5XX/S", 1),
    figures("P50", 5),
    figures("P90", 8),
    figures("P99", 1),
    figures("P99.9", 6),
];

const CLUSTERS: &[Column] = &[
    words("CLUSTER", 0),
    figures("USABLE", 0),
    words("BREAKER", 3),
    figures("QUEUED", 1),
    figures("REQ/S", 0),
    figures("5XX/S", 1),
    figures("RETRY/S", 4),
    figures("P50", 5),
    figures("P99", 2),
    words("BALANCE", 6),
];

const ENDPOINTS: &[Column] = &[
    words("ENDPOINT", 0),
    words("USED", 0),
    words("STATE", 5),
    words("HEALTH", 2),
    figures("RUNNING", 3),
    figures("LINKS", 4),
    figures("ATT/S", 1),
    figures("FAIL/S", 1),
    figures("CHECK", 6),
    figures("WEIGHT", 7),
    words("ADDRESS", 8),
];

const ERRORS: &[Column] = &[words("KIND", 0), words("REASON", 0), figures("PER S", 0), figures("TOTAL", 0)];

const SHARDS: &[Column] = &[
    figures("SHARD", 0),
    figures("REQ/S", 0),
    figures("OF ALL", 1),
    figures("OPEN", 0),
    figures("LINKS", 2),
    figures("QUEUED", 3),
    figures("CPU", 0),
    figures("TURNS/S", 5),
    figures("STARVED", 4),
    figures("BUFFERS", 6),
];

const LIMITS: &[Column] =
    &[words("LIMIT", 0), words("OF", 0), figures("USED %", 0), figures("USED", 1), figures("MOST", 1)];

const EVENTS: &[Column] = &[words("TIME", 1), words("EVENT", 2), words("OF", 3), words("MESSAGE", 0)];

/// Statuses of failed requests: ours and those of origins, and requests that were told nothing.
fn is_error(status: &str) -> bool {
    matches!(status, "5xx" | "none")
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().map_or_else(|| "-".to_owned(), clean)
}

fn whole(value: &Value, key: &str) -> Cell {
    Cell::number(value[key].as_f64(), count)
}

/// A rate that should be zero.
fn if_any(rate: Option<f64>, tone: Tone) -> Tone {
    if rate.is_some_and(|rate| rate > 0.0) { tone } else { Tone::Plain }
}

fn traffic(numbers: &Numbers) -> Vec<Row> {
    let row = |listener: &Value| {
        let raw = listener["name"].as_str().unwrap_or("-");
        let of = |family| numbers.rate(family, &[raw]);
        let by_status = |status: &str| numbers.rate(Family::ListenerRequests, &[raw, status]);
        let is_http = listener["protocol"] != "tcp";
        let failed = by_status("5xx").filter(|_| is_http);
        let requests = of(Family::ListenerRequests).filter(|_| is_http);
        let times = [0.5, 0.9, 0.99, 0.999].map(|share| numbers.quantile(Family::ListenerTimes, raw, share));
        let name = if listener["leaving"] == true { clean(raw) + " (leaving)" } else { clean(raw) };
        let mut cells = vec![
            Cell::text(name),
            Cell::number(requests, short),
            Cell::number(of(Family::ListenerConnections), short),
            whole(listener, "connections"),
            Cell::number(of(Family::ListenerReceived), bytes),
            Cell::number(of(Family::ListenerSent), bytes),
            Cell::number(by_status("4xx").filter(|_| is_http), short),
            Cell::number(failed, short),
        ];
        cells.extend(times.map(|seconds| Cell::number(seconds, time)));
        Row { cells, tone: if_any(failed, Tone::Warn) }
    };
    list(&numbers.now.listeners, "listeners").map(row).collect()
}

/// Of a cluster: how many endpoints may get requests, and how many there are.
fn usable(cluster: &Value) -> (usize, usize) {
    let all = list(cluster, "endpoints");
    (all.clone().filter(|endpoint| endpoint["usable"] == true).count(), all.count())
}

fn clusters(numbers: &Numbers) -> Vec<Row> {
    let row = |cluster: &Value| {
        let raw = cluster["name"].as_str().unwrap_or("-");
        let (left, all) = usable(cluster);
        let failed = numbers.rate(Family::ClusterRequests, &[raw, "5xx"]);
        let closed = cluster["breaker"] == "closed";
        let tone = match () {
            () if left == 0 || !closed => Tone::Bad,
            () if left < all => Tone::Warn,
            () => if_any(failed, Tone::Warn),
        };
        let cells = vec![
            Cell::text(clean(raw)),
            Cell::text(format!("{left}/{all}")),
            Cell::text(text(cluster, "breaker")),
            whole(cluster, "queued"),
            Cell::number(numbers.rate(Family::ClusterRequests, &[raw]), short),
            Cell::number(failed, short),
            Cell::number(numbers.rate(Family::ClusterRetries, &[raw]), short),
            Cell::number(numbers.quantile(Family::ClusterTimes, raw, 0.5), time),
            Cell::number(numbers.quantile(Family::ClusterTimes, raw, 0.99), time),
            Cell::text(text(cluster, "balance")),
        ];
        Row { cells, tone }
    };
    list(&numbers.now.clusters, "clusters").map(row).collect()
}

fn endpoints(numbers: &Numbers) -> Vec<Row> {
    let row = |of: &str, endpoint: &Value| {
        let raw = endpoint["name"].as_str().unwrap_or("-");
        let attempts = |wanted: fn(&str) -> bool| {
            let by_result = |labels: &[String]| labels.get(2).is_some_and(|result| wanted(result));
            numbers.rate_if(Family::EndpointAttempts, &[of, raw], by_result)
        };
        let failed =
            attempts(|result| matches!(result, "5xx" | "connect_failed" | "lost" | "timeout" | "invalid"));
        let used = match (endpoint["usable"].as_bool(), endpoint["eligible"].as_str()) {
            (Some(true), _) => "yes".to_owned(),
            (_, Some("yes")) => "no: weight 0".to_owned(),
            (_, words) => clean(words.unwrap_or("-")),
        };
        let tone = if endpoint["usable"] == false { Tone::Bad } else { if_any(failed, Tone::Warn) };
        let check = endpoint["check"]["took_ms"].as_f64().map(|ms| ms / 1000.0);
        let cells = vec![
            Cell::text(format!("{}/{}", clean(of), clean(raw))),
            Cell::text(used),
            Cell::text(text(endpoint, "state")),
            Cell::text(text(endpoint, "health")),
            whole(endpoint, "running"),
            whole(endpoint, "links"),
            Cell::number(attempts(|_| true), short),
            Cell::number(failed, short),
            Cell::number(check, time),
            whole(endpoint, "weight"),
            Cell::text(text(endpoint, "address")),
        ];
        Row { cells, tone }
    };
    let all = list(&numbers.now.clusters, "clusters");
    let rows = all.flat_map(|cluster| {
        let of = cluster["name"].as_str().unwrap_or("-");
        list(cluster, "endpoints").map(move |endpoint| row(of, endpoint))
    });
    rows.collect()
}

/// Everything that is counted by a reason, and was counted.
fn errors(numbers: &Numbers) -> Vec<Row> {
    let kinds = [
        (Family::Refusals, "refused", Tone::Warn),
        (Family::Closes, "closed", Tone::Plain),
        (Family::Retries, "sent again", Tone::Warn),
        (Family::LogLost, "log lost", Tone::Bad),
    ];
    let mut rows = Vec::new();
    let mut put = |kind: &str, reason: &str, tone, total: f64, rate: Option<f64>| {
        if total > 0.0 {
            let cells = vec![
                Cell::text(kind),
                Cell::text(clean(reason)),
                Cell::number(rate, short),
                Cell::number(Some(total), count),
            ];
            rows.push(Row { cells, tone: if_any(rate, tone) });
        }
    };
    for (family, kind, tone) in kinds {
        for (labels, total) in numbers.now.counts.of(family, &[]) {
            let reason = labels.first().map_or("-", |reason| reason);
            put(kind, reason, tone, total, numbers.rate(family, &[reason]));
        }
    }
    for result in ["5xx", "connect_failed", "lost", "timeout", "invalid"] {
        let ended_so = |labels: &[String]| labels.get(2).is_some_and(|one| one == result);
        let attempts = numbers.now.counts.of(Family::EndpointAttempts, &[]);
        let total = attempts.filter(|(labels, _)| ended_so(labels)).map(|(_, count)| count).sum();
        put("attempt", result, Tone::Warn, total, numbers.rate_if(Family::EndpointAttempts, &[], ended_so));
    }
    // The most frequent since the start is first where rates are the same.
    let mut table = Table { columns: ERRORS, rows };
    table.sort(Sort { column: 3, down: true });
    table.rows
}

fn shards(numbers: &Numbers) -> Vec<Row> {
    let all = numbers.rate(Family::ShardRequests, &[]);
    let row = |shard: &str| {
        let of = |family| Cell::number(numbers.now.counts.one(family, &[shard]), count);
        let rate = |family| numbers.rate(family, &[shard]);
        let requests = rate(Family::ShardRequests);
        let share = requests.zip(all).map(|(one, all)| if all > 0.0 { one / all } else { 0.0 });
        let (buffers, free) = (
            numbers.total(Family::ShardBuffers, &[shard]),
            numbers.total(Family::ShardBuffersFree, &[shard]),
        );
        // The machine may not say it.
        let cpu = numbers.now.counts.one(Family::ShardCpu, &[shard]);
        let cells = vec![
            Cell::number(shard.parse().ok(), count),
            Cell::number(requests, short),
            Cell::number(share, percent),
            of(Family::ShardOpen),
            of(Family::ShardLinks),
            of(Family::ShardQueued),
            Cell::number(cpu.and_then(|_| rate(Family::ShardCpu)), percent),
            Cell::number(rate(Family::ShardTurns), short),
            of(Family::ShardStarved),
            Cell::number((buffers > 0.0).then(|| 1.0 - free / buffers), percent),
        ];
        let starved = numbers.now.counts.one(Family::ShardStarved, &[shard]);
        Row { cells, tone: if_any(starved, Tone::Warn) }
    };
    let shards = numbers.now.counts.of(Family::ShardTurns, &[]);
    shards.filter_map(|(labels, _)| Some(row(labels.first()?))).collect()
}

/// How far the busiest shard is above the mean, of requests and of connections.
pub(super) fn evenness(numbers: &Numbers) -> Option<String> {
    let above = |of: Vec<f64>| {
        let (sum, most) = (of.iter().sum::<f64>(), of.iter().copied().fold(0.0, f64::max));
        (sum > 0.0).then(|| most * of.len() as f64 / sum)
    };
    let shards = || numbers.now.counts.of(Family::ShardTurns, &[]).filter_map(|(labels, _)| labels.first());
    let rates = shards().filter_map(|shard| numbers.rate(Family::ShardRequests, &[shard])).collect();
    let open = numbers.now.counts.of(Family::ShardOpen, &[]).map(|(_, open)| open).collect();
    let said = [(above(rates), "requests"), (above(open), "connections")];
    let said: Vec<String> = said
        .into_iter()
        .filter_map(|(above, what)| Some(format!("{:.2} x the mean of {what}", above?)))
        .collect();
    (!said.is_empty()).then(|| format!("the busiest shard has {}", said.join(", ")))
}

/// From where on a limit stands out, percent.
const NEAR: f64 = 80.0;

fn limits(numbers: &Numbers) -> Vec<Row> {
    let row = |limit: &Value| {
        let near = limit["percent"].as_f64();
        let tone = match near {
            Some(full) if full >= 95.0 => Tone::Bad,
            Some(near) if near >= NEAR => Tone::Warn,
            _ => Tone::Plain,
        };
        let of = limit["of"].as_str().filter(|of| !of.is_empty()).map_or_else(|| "-".to_owned(), clean);
        let cells = vec![
            Cell::text(text(limit, "limit")),
            Cell::text(of),
            Cell::number(near, |percent| format!("{percent:.1}")),
            whole(limit, "used"),
            whole(limit, "most"),
        ];
        Row { cells, tone }
    };
    list(&numbers.now.limits, "limits").map(row).collect()
}

fn events(numbers: &Numbers) -> Vec<Row> {
    let row = |event: &Value| {
        let of = match event["endpoint"].as_str() {
            Some(endpoint) => format!("{}/{}", text(event, "cluster"), clean(endpoint)),
            None => text(event, "cluster"),
        };
        let tone = match event["event"].as_str().unwrap_or_default() {
            "cluster_down" => Tone::Bad,
            word if word.ends_with("_down") || word.contains("eject") => Tone::Warn,
            _ => Tone::Plain,
        };
        let cells = vec![
            Cell::text(text(event, "time")),
            Cell::text(text(event, "event")),
            Cell::text(of),
            Cell::text(text(event, "message")),
        ];
        Row { cells, tone }
    };
    // The newest first, also among those of one millisecond.
    list(&numbers.now.events, "events").rev().map(row).collect()
}

/// All of the process in one line.
pub(super) fn summary(numbers: &Numbers) -> String {
    let rate =
        |family, write: fn(f64) -> String| numbers.rate(family, &[]).map_or_else(|| "-".to_owned(), write);
    let failed = numbers.rate_if(Family::ListenerRequests, &[], |labels| {
        labels.get(1).is_some_and(|status| is_error(status))
    });
    let failed = failed.map_or_else(|| "-".to_owned(), short);
    let (mut left, mut all) = (0, 0);
    for cluster in list(&numbers.now.clusters, "clusters") {
        let (of_it, in_it) = usable(cluster);
        (left, all) = (left + of_it, all + in_it);
    }
    format!(
        "{} req/s  {} open  errors {failed}/s  endpoints {left}/{all}  in {}/s  out {}/s",
        rate(Family::ListenerRequests, short),
        count(numbers.total(Family::ListenerOpen, &[])),
        rate(Family::ListenerReceived, bytes),
        rate(Family::ListenerSent, bytes),
    )
}

/// What somebody should look at, the worst first.
pub(super) fn stands_out(numbers: &Numbers) -> Vec<(Tone, String)> {
    let (now, mut found) = (&numbers.now, Vec::new());
    let all = list(&now.clusters, "clusters");
    for cluster in all.clone() {
        let (name, (left, all)) = (text(cluster, "name"), usable(cluster));
        if left == 0 {
            found.push((Tone::Bad, format!("{name}: none of {all} endpoints is usable")));
        } else if let Some(state) = cluster["breaker"].as_str().filter(|state| *state != "closed") {
            found.push((Tone::Bad, format!("{name}: its circuit breaker is {}", clean(state))));
        }
    }
    if let Some(short) = now.clusters["short"].as_str() {
        found.push((Tone::Bad, format!("short: {}", clean(short))));
    }
    for limit in list(&now.limits, "limits").filter(|limit| limit["percent"].as_f64() >= Some(NEAR)) {
        let of = limit["of"].as_str().filter(|of| !of.is_empty());
        let of = of.map_or_else(String::new, |of| format!(" of {}", clean(of)));
        found.push((Tone::Warn, format!("{}{of}: {}% used", text(limit, "limit"), limit["percent"])));
    }
    for cluster in all {
        let (left, all) = usable(cluster);
        if left > 0 && left < all {
            found.push((
                Tone::Warn,
                format!("{}: {left} of {all} endpoints are usable", text(cluster, "name")),
            ));
        }
    }
    found.extend(drains(&now.clusters["drain"]).lines().map(|line| (Tone::Warn, clean(line))));
    for (key, what) in [("drift", "changed at run time, beside the file"), ("waits", "wait for an upgrade")] {
        let names: Vec<String> = list(&now.clusters, key).filter_map(Value::as_str).map(clean).collect();
        if !names.is_empty() {
            found.push((Tone::Warn, format!("{what}: {}", names.join(", "))));
        }
    }
    found
}
