//! Metrics of the process and its shards.

use super::text::{Kind, Text, seconds};
use crate::admin::Sight;
use crate::process;
use crate::traces;
use dataplane::fault::{CLOSE_REASONS, REFUSALS};
use dataplane::spec::Reason;
use dataplane::stats::Stats;
use dataplane::stats::retries::Retried;

/// One number of each shard.
struct Row {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    of: fn(&Stats) -> u64,
}

const fn counter(name: &'static str, help: &'static str, of: fn(&Stats) -> u64) -> Row {
    Row { name, kind: Kind::Counter, help, of }
}

const fn gauge(name: &'static str, help: &'static str, of: fn(&Stats) -> u64) -> Row {
    Row { name, kind: Kind::Gauge, help, of }
}

/// By shard.
static ROWS: &[Row] = &[
    counter("ringway_shard_turns", "Turns of the shard's loop.", |s| s.turns.get()),
    counter("ringway_shard_accepted_connections", "Connections accepted.", |s| s.accepted.get()),
    counter(
        "ringway_shard_adopted_connections",
        "Connections that came from the process before this one in an upgrade.",
        |s| s.adopted.get(),
    ),
    counter("ringway_shard_accept_errors", "Accepts that failed.", |s| s.accept_errors.get()),
    counter(
        "ringway_shard_handed_connections",
        "Connections accepted here and handed to a less loaded shard.",
        |s| s.handed.get(),
    ),
    counter(
        "ringway_shard_hand_failures",
        "Connections that did not reach the shard they were handed to, and are served here.",
        |s| s.hand_failures.get(),
    ),
    gauge("ringway_shard_connections_open", "Connections of clients that are open.", |s| s.conns_open.get()),
    gauge("ringway_shard_links_open", "Links to endpoints that are open, idle ones included.", |s| {
        s.links_open.get()
    }),
    gauge("ringway_shard_requests_open", "Requests that are not answered yet, at the last turn.", |s| {
        s.exchanges_open.get()
    }),
    gauge("ringway_shard_tunnels_open", "Tunnels that are open, at the last turn.", |s| s.tunnels_open.get()),
    counter("ringway_shard_requests", "Requests with a whole head.", |s| s.requests.get()),
    counter("ringway_shard_responses", "Requests that were answered.", |s| s.responses.get()),
    counter("ringway_shard_connects", "Links begun.", |s| s.connects.get()),
    counter("ringway_shard_connect_failures", "Links that could not be connected.", |s| {
        s.connect_failures.get()
    }),
    counter(
        "ringway_shard_port_searches_failed",
        "Connects that found no free local port (EADDRNOTAVAIL).",
        |s| s.port_searches_failed.get(),
    ),
    counter("ringway_shard_port_windows", "Windows of local ports searched, where many are in use.", |s| {
        s.port_windows.get()
    }),
    counter("ringway_shard_links_reused", "Requests that took an idle link.", |s| s.links_reused.get()),
    counter("ringway_shard_links_discarded_idle", "Idle links closed because something came on them.", |s| {
        s.links_discarded_idle.get()
    }),
    counter("ringway_shard_link_idle_timeouts", "Idle links closed after cluster.pool.idle_timeout.", |s| {
        s.link_idle_timeouts.get()
    }),
    counter("ringway_shard_second_attempts", "Attempts after a first one, hedges not included.", |s| {
        s.retries.get()
    }),
    counter("ringway_shard_hedges_won", "Hedges whose answer came first.", |s| s.hedges_won.get()),
    gauge("ringway_shard_queued", "Requests and connections that wait for a place.", |s| s.queued.get()),
    counter("ringway_shard_evictions", "Connections closed because buffers were short.", |s| {
        s.evictions.get()
    }),
    counter("ringway_shard_made_room", "Connections closed because descriptors were short.", |s| {
        s.made_room.get()
    }),
    counter("ringway_shard_tunnels_started", "Tunnels begun.", |s| s.tunnels_started.get()),
    counter("ringway_shard_tunnels_ended", "Tunnels ended.", |s| s.tunnels_ended.get()),
    counter("ringway_shard_spliced_bytes", "Bytes that went by splice(2), both ways.", |s| {
        s.spliced_bytes.get()
    }),
    counter("ringway_shard_stale_completions", "Completions for an earlier life of a slot.", |s| {
        s.stale_completions.get()
    }),
    gauge("ringway_shard_starved_receives", "Receives that waited for a buffer at the last turn.", |s| {
        s.starved.get()
    }),
    gauge("ringway_shard_pipes_lent", "Pipes of splice(2) that hold bytes, at the last turn.", |s| {
        s.pipes_lent.get()
    }),
    counter("ringway_shard_parks", "Idle connections whose receive was replaced by a poll.", |s| {
        s.parks.get()
    }),
    counter("ringway_shard_unparks", "Those of them to which something came.", |s| s.unparks.get()),
];

pub(super) fn write(text: &mut Text, sight: &Sight<'_>) {
    let stats = || sight.plane.stats();
    let sum = |of: &dyn Fn(&Stats) -> u64| stats().map(of).fold(0, u64::wrapping_add);
    text.family("ringway_build_info", Kind::Gauge, "The version that runs; always 1.")
        .put(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    drains(text, sight);
    log_lost(text, sight.log.losses());
    spans(text, sight.log.spans());
    own(text);

    let shards: Vec<String> = (0..stats().count()).map(|shard| shard.to_string()).collect();
    for row in ROWS {
        let mut family = text.family(row.name, row.kind, row.help);
        for (shard, stats) in shards.iter().zip(stats()) {
            family.put(&[("shard", shard)], (row.of)(stats));
        }
    }
    let mut family = text.family(
        "ringway_shard_queue_wait_seconds",
        Kind::Counter,
        "How long waits for a place took together, those that ended in vain included.",
    );
    for (shard, stats) in shards.iter().zip(stats()) {
        family.put(&[("shard", shard)], seconds(stats.queue_us.get()));
    }
    let mut family = text.family(
        "ringway_shard_tunnel_bytes",
        Kind::Counter,
        "Bytes through tunnels that ended: up is from the client.",
    );
    for (shard, stats) in shards.iter().zip(stats()) {
        family.put(&[("shard", shard), ("direction", "up")], stats.tunnel_bytes_up.get());
        family.put(&[("shard", shard), ("direction", "down")], stats.tunnel_bytes_down.get());
    }
    for (name, help, which) in [
        ("ringway_shard_buffers", "Buffers of the shard.", (|s| &s.buffers) as fn(&Stats) -> &[_; 3]),
        ("ringway_shard_buffers_free", "Buffers that nobody has, at the last turn.", |s| &s.buffers_free),
    ] {
        let mut family = text.family(name, Kind::Gauge, help);
        for (shard, stats) in shards.iter().zip(stats()) {
            for (size, count) in ["tiny", "small", "large"].iter().zip(which(stats)) {
                family.put(&[("shard", shard), ("size", size)], count.get());
            }
        }
    }

    let help = "Requests refused, and connections of tcp listeners without a link, by reason.";
    let mut family = text.family("ringway_refusals", Kind::Counter, help);
    for row in REFUSALS {
        family.put(&[("reason", row.name)], sum(&|s| s.refusal(row.refusal).get()));
    }
    let mut family = text.family(
        "ringway_closed_connections",
        Kind::Counter,
        "Connections of clients that ended, by reason.",
    );
    for (reason, name, _) in CLOSE_REASONS {
        family.put(&[("reason", name)], sum(&|s| s.close(*reason).get()));
    }
    let help = "Requests that were sent again by reason; budget_empty: that would have been.";
    let mut family = text.family("ringway_retries", Kind::Counter, help);
    for why in Retried::ALL {
        family.put(&[("reason", why.name())], sum(&|s| s.retried(why).get()));
    }
    let help = "What happened to endpoints and clusters, by kind.";
    let mut family = text.family("ringway_events", Kind::Counter, help);
    for (name, count) in sight.plane.event_counts() {
        family.put(&[("event", name)], count);
    }
    text.family("ringway_events_lost", Kind::Counter, "Events that could not be told of.")
        .put(&[], sight.plane.lost_events());
}

/// What became of requests that are spans.
fn spans(text: &mut Text, spans: traces::Numbers) {
    let help = "Requests that a collector took as spans.";
    text.family("ringway_spans_exported", Kind::Counter, help).put(&[], spans.exported);
    let help = "Spans that were lost: the collector is slower than they come, cannot be reached or refused them, or took others only.";
    let mut family = text.family("ringway_spans_lost", Kind::Counter, help);
    let causes =
        [("queue_full", spans.queue_full), ("not_sent", spans.not_sent), ("rejected", spans.rejected)];
    for (cause, lost) in causes {
        family.put(&[("cause", cause)], lost);
    }
}

/// What goes away.
fn drains(text: &mut Text, sight: &Sight<'_>) {
    let help = "1 while the node drains: from when /ready fails.";
    text.family("ringway_draining", Kind::Gauge, help).put(&[], u8::from(!sight.drains.is_ready()));
    let help = "Until what still runs is cut off, where the node drains; else 0.";
    text.family("ringway_drain_left_seconds", Kind::Gauge, help).put(&[], sight.drains.left_s());
    let mut family =
        text.family("ringway_drains", Kind::Counter, "Drains of the node and of listeners that began.");
    for (reason, begun) in Reason::ALL.iter().zip(sight.drains.begun()) {
        family.put(&[("reason", reason.name())], begun);
    }
    let help = "1 while the listener takes no new connections because it, or the node, drains.";
    let mut family = text.family("ringway_listener_draining", Kind::Gauge, help);
    for listener in sight.loaded.snapshot.listeners.iter().flatten().filter(|listener| !listener.is_gone()) {
        let drained = sight.drains.is_drained(&listener.name);
        family.put(&[("listener", &listener.name)], u8::from(drained));
    }
}

fn log_lost(text: &mut Text, losses: [u64; 3]) {
    let help = "Log entries that were lost: the ring of a shard was full, the output took nothing, or the process log's lines waited too long.";
    let mut family = text.family("ringway_log_lost", Kind::Counter, help);
    for (cause, lost) in ["ring_full", "not_written", "process_log"].iter().zip(losses) {
        family.put(&[("cause", cause)], lost);
    }
}

/// The families that Prometheus has for every process, by their names.
fn own(text: &mut Text) {
    let help = "When the process began, seconds since 1970.";
    text.family("process_start_time_seconds", Kind::Gauge, help)
        .put(&[], process::began().unix.as_secs_f64());
    let help = "Time that all its threads ran.";
    text.family("process_cpu_seconds", Kind::Counter, help).put(&[], process::cpu_time().as_secs_f64());
    if let Some(memory) = process::memory() {
        text.family("process_resident_memory_bytes", Kind::Gauge, "Memory that it has.")
            .put(&[], memory.resident);
        text.family("process_virtual_memory_bytes", Kind::Gauge, "Addresses that it has mapped.")
            .put(&[], memory.mapped);
    }
    let (open, most) = process::descriptors();
    if let Some(open) = open {
        text.family("process_open_fds", Kind::Gauge, "Descriptors that it has open.").put(&[], open);
    }
    text.family("process_max_fds", Kind::Gauge, "Descriptors that it may have (RLIMIT_NOFILE).")
        .put(&[], most);
}
