//! Every key with its text, its bounds and its place in the manual; and that what documents show holds.

use super::super::keys::Shape;
use super::super::*;
use dataplane::limits::Bound;
use dataplane::spec::Variable;
use std::collections::BTreeSet;

/// Every key that the design names, by section. What is not built is refused, never unknown.
const KEYS: &[(&str, &str)] = &[
    (
        "",
        "version runtime drain admin log access_log tracing listener route cluster include certificate filter",
    ),
    ("runtime", "shards backend node resolver drain_timeout watch"),
    ("drain", "shutdown deploy rebalance"),
    ("drain.shutdown", "window accept_for curve"),
    ("drain.rebalance", "window accept_for curve"),
    ("drain.deploy", "window curve"),
    ("admin", "address socket_mode token protect"),
    ("log", "level format"),
    ("access_log", "to format listeners sample"),
    ("tracing", "endpoint sample respect_parent service"),
    (
        "listener",
        "name address protocol max_connections proxy_protocol cluster limits timeouts forwarded tls versions socket_mode steer error_page",
    ),
    ("listener.proxy_protocol", "accept from"),
    (
        "listener.limits",
        "request_line header_block header_fields request_body requests_per_connection pipelined",
    ),
    (
        "listener.timeouts",
        "request_header request_body min_rate send idle tunnel_idle max_lifetime dead_peer",
    ),
    ("listener.forwarded", "mode trusted"),
    (
        "route",
        "name listeners match cluster timeouts respond redirect maintenance_file maintenance error_page",
    ),
    ("listener.error_page, route.error_page", "status body headers"),
    (
        "route.match",
        "host host_prefix path path_prefix path_begins path_suffix path_regex ignore_case method header cookie query \
         source sni alpn available not",
    ),
    ("route.match.header, route.match.cookie, route.match.query", "prefix regex"),
    ("route.match.available", "cluster below at_least"),
    ("route.respond", "status body headers"),
    ("route.respond.body, route.respond.headers, cluster.sticky.key, admin.token", "file env"),
    ("route.maintenance", "status body headers"),
    ("route.redirect", "status to"),
    ("route.timeouts", "connect response_header response_body send queue"),
    (
        "cluster",
        "name balance host source_addresses source_ports send_proxy endpoints endpoints_file max_queued fail_open slow_start \
         timeouts pool health \
         outlier circuit_breaker retry sticky tls trailers",
    ),
    ("cluster.balance", "policy on table bounded_load"),
    ("cluster.endpoints", "name address weight max_connections max_requests backup priority"),
    ("cluster.timeouts", "connect response_header response_body send dead_peer queue"),
    ("cluster.pool", "idle idle_timeout requests_per_connection"),
    (
        "cluster.health",
        "kind method path host headers expect_status expect_body interval timeout rise fall fast_interval initial",
    ),
    ("cluster.health.expect_body", "contains regex"),
    (
        "cluster.outlier",
        "consecutive_failures failure_rate minimum_volume window ejection_time max_ejection_time max_ejected_percent \
         failure_status",
    ),
    ("cluster.circuit_breaker", "of failure_threshold recovery_timeout trial_timeout failure_status"),
    ("cluster.retry", "attempts on budget_percent budget_minimum replay_body hedge_after"),
    ("cluster.sticky", "cookie indirect nocache http_only secure same_site domain path max_age key"),
];

#[test]
fn every_key_is_known_and_no_other() {
    let known: BTreeSet<_> =
        sections().iter().flat_map(|s| s.keys.iter().map(|k| (s.path, k.name))).collect();
    let named: BTreeSet<_> =
        KEYS.iter().flat_map(|(section, keys)| keys.split_whitespace().map(|key| (*section, key))).collect();
    let missing: Vec<_> = named.difference(&known).collect();
    let more: Vec<_> = known.difference(&named).collect();
    assert!(missing.is_empty() && more.is_empty(), "missing {missing:?}, not named {more:?}");
    let keys: usize = sections().iter().map(|s| s.keys.len()).sum();
    assert_eq!(keys, known.len(), "no key stands twice");
}

#[test]
fn every_key_says_what_it_is() {
    for section in sections() {
        assert!(!section.doc.is_empty(), "{}", section.path);
        for key in section.keys {
            let name = format!("{}.{}", section.path, key.name);
            assert!(key.doc.ends_with('.') && key.doc.len() > 3, "{name} has no text");
            assert!(!key.default_text().is_empty(), "{name} has no default");
            assert!(ReloadEffect::ALL.contains(&key.effect), "{name} has no effect");
            assert!(!key.shape.wants().is_empty(), "{name} has no shape");
            if let Shape::Table(inner) | Shape::Tables(inner) = key.shape {
                assert!(sections().iter().any(|s| s.path == inner.path), "{name} is not in the manual");
            }
        }
    }
}

#[test]
fn the_manual_names_every_variable() {
    let section = sections().iter().find(|s| s.path == "route.respond").unwrap();
    for (name, _) in Variable::NAMES {
        assert!(section.doc.contains(&format!("`${{{name}}}`")), "{name}");
    }
}

#[test]
fn bounds_hold_their_defaults() {
    fn check<T: PartialOrd>(name: &str, bound: Bound<T>) {
        assert!(bound.min <= bound.default && bound.default <= bound.max, "{name}");
    }
    for key in sections().iter().flat_map(|s| s.keys) {
        match key.shape {
            Shape::Duration(bound, _) => check(key.name, bound),
            Shape::Size(bound, _) | Shape::Count(bound, _) => check(key.name, bound),
            _ => {}
        }
    }
}

#[test]
fn the_manual_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    let fresh = manual();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &fresh).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == fresh, "docs/config.md is stale: UPDATE_DOCS=1 cargo test -p control writes it");
}

/// Every block of TOML in a document is a whole configuration, and holds.
#[test]
fn configurations_in_documents_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![root.join("docs")];
    let mut documents = vec![root.join("README.md"), root.join("kernel-tuning/README.md")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == "md") => documents.push(path),
                false => {}
            }
        }
    }
    let mut blocks = 0;
    for path in documents {
        let text = std::fs::read_to_string(&path).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            if let Err(report) = parse(block, &path.display().to_string(), &Environment::of_tests()) {
                panic!("{report}\n{block}");
            }
            blocks += 1;
        }
    }
    assert!(blocks >= 2, "{blocks}");
}
