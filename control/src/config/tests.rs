//! The whole module: the demo, defaults, what is written, files that cannot be read, and that no text panics.

mod keys;

use super::*;
use crate::log::Target;
use dataplane::limits::{self, Bound};
use dataplane::spec::{
    Action, BreakerOf, ForwardedMode, HashOn, HedgeAfter, HostPolicy, TemplatePart, Variable,
};
use proptest::prelude::*;
use std::time::Duration;

fn good(text: &str) -> Loaded {
    parse(text, "t.toml", &Environment::of_tests()).unwrap_or_else(|report| panic!("{report}"))
}

fn problems(text: &str) -> String {
    match parse(text, "t.toml", &Environment::of_tests()) {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(report) => report.to_string(),
    }
}

#[test]
fn the_demo_is_sound() {
    let loaded = good(DEMO);
    assert_eq!(loaded.warnings.to_string(), "");
    let snapshot = &loaded.snapshot;
    let listener = |i: usize| snapshot.listeners[i].as_ref().unwrap();
    let addresses = |i: usize| listener(i).addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(addresses(0), ["127.0.0.1:8080"]);
    assert_eq!(addresses(1), ["127.0.0.1:9000", "127.0.0.2:9000", "127.0.0.3:9000"]);
    let cluster = snapshot.clusters[0].as_ref().unwrap();
    assert_eq!(listener(0).cluster, Some(cluster.id));
    assert_eq!((cluster.balance, cluster.endpoints.len()), ("round_robin", 3));
    assert_eq!(cluster.source_addresses.at(8, false).unwrap().to_string(), "127.0.0.9");
    let Action::Respond(reply) = &snapshot.routes[0].action else { panic!("no respond") };
    assert_eq!(reply.page.body.0[0], TemplatePart::Variable(Variable::RemoteAddr));
    assert_eq!(reply.page.body.0.last(), Some(&TemplatePart::Text("\r\n".into())));
    assert_eq!(snapshot.routes[0].listeners, [listener(1).id]);
}

#[test]
fn what_is_left_out_is_the_default() {
    let loaded = good(
        "[[listener]]\nname = 'e'\naddress = '127.0.0.1:0'\n[[route]]\ncluster = 'a'\n\
         [[cluster]]\nname = 'a'\nendpoints = ['127.0.0.1:1']",
    );
    let runtime = &loaded.snapshot.runtime;
    assert_eq!((runtime.shards, &*runtime.node), (2, "n0"));
    assert_eq!(runtime.drain_timeout, limits::DRAIN_TIMEOUT.default);
    let process = &loaded.process;
    assert_eq!((process.shards, process.backend), (Shards::Auto, Backend::Auto));
    assert_eq!((process.log_level, process.log_format), (LogLevel::Info, LogFormat::Text));
    assert!(process.access_logs.is_empty());

    let listener = loaded.snapshot.listeners[0].as_ref().unwrap();
    assert_eq!(listener.max_connections, 10_000, "half of what descriptors leave");
    assert!(!listener.access_log);
    assert_eq!((listener.forwarded.mode, &listener.proxy_protocol), (ForwardedMode::Replace, &None));
    let l = listener.limits;
    assert_eq!((l.request_line, l.header_block, l.header_fields, l.pipelined), (8192, 16384, 100, 16));
    assert_eq!((l.request_body, l.requests_per_connection), (u64::MAX, u64::MAX));
    let t = listener.timeouts;
    let seconds = Duration::from_secs;
    assert_eq!((t.request_header, t.request_body, t.min_rate), (seconds(10), seconds(30), 500));
    assert_eq!((t.send, t.idle, t.tunnel_idle), (seconds(30), seconds(60), seconds(3600)));
    assert_eq!((t.max_lifetime, t.dead_peer), (Duration::MAX, seconds(120)));

    let route = &loaded.snapshot.routes[0];
    assert_eq!((&*route.name, route.listeners.len()), ("e/1", 0));
    let Action::Forward { response_header, .. } = route.action else { panic!("no cluster") };
    assert_eq!(response_header, None);

    let cluster = loaded.snapshot.clusters[0].as_ref().unwrap();
    assert_eq!((&cluster.host, cluster.pass_trailers), (&HostPolicy::Pass, false));
    assert_eq!(cluster.send_proxy, None);
    assert_eq!(cluster.balance, dataplane::cluster::balance::POLICIES[0].name);
    let (t, p) = (cluster.timeouts, cluster.pool);
    assert_eq!((t.connect, t.response_header), (seconds(2), seconds(60)));
    assert_eq!(cluster.dead_peer, seconds(120));
    assert_eq!((t.response_body, t.send), (seconds(60), seconds(30)));
    assert_eq!((p.idle, p.idle_timeout, p.requests_per_connection), (256, seconds(30), u64::MAX));
    let endpoint = &cluster.endpoints[0];
    assert_eq!((&*endpoint.name, &*endpoint.authority), ("127.0.0.1:1", "127.0.0.1:1"));
    assert_eq!((endpoint.weight, endpoint.max_connections, endpoint.max_requests), (1, u32::MAX, u32::MAX));
    assert_eq!((endpoint.priority, cluster.fail_open), (0, false));
    assert_eq!((cluster.outlier, cluster.circuit_breaker), (None, None));
    // What tests build their clusters from is what the file's defaults are.
    let one = dataplane::spec::Endpoint::new(endpoint.id, "127.0.0.1:1", endpoint.address.clone());
    let (machine, cycle) = (cluster.source_addresses.clone(), cluster.cycle.clone());
    assert_eq!(cycle.as_deref(), Some([endpoint.id].as_slice()));
    let cluster_of_tests = dataplane::spec::Cluster::new(cluster.id, &cluster.name, vec![one]);
    assert_eq!(**cluster, dataplane::spec::Cluster { source_addresses: machine, cycle, ..cluster_of_tests });
}

#[test]
fn what_is_written_is_taken() {
    let loaded = good(include_str!("../../tests/config_cases/good.toml"));
    let snapshot = &loaded.snapshot;
    assert_eq!((snapshot.runtime.shards, &*snapshot.runtime.node), (2, "proxy-1"));
    assert_eq!(loaded.process.backend, Backend::IoUring);
    assert_eq!(loaded.process.log_level, LogLevel::Debug);
    let (edge, inner) = (snapshot.listeners[0].as_ref().unwrap(), snapshot.listeners[1].as_ref().unwrap());
    let logs = &loaded.process.access_logs;
    assert_eq!(logs[1].to, Target::File("/var/log/ringway/access.log".into()));
    assert!(logs[0].takes("edge") && !logs[0].takes("inner") && logs[1].takes("inner"));
    assert!(edge.access_log && inner.access_log, "the second log takes all");
    assert_eq!((edge.limits.request_body, edge.limits.requests_per_connection), (10 << 20, 1000));
    assert_eq!((edge.timeouts.min_rate, edge.max_connections), (0, 500));
    let proxied = inner.proxy_protocol.as_ref().unwrap();
    assert_eq!((proxied.required, proxied.from.len()), (false, 2));
    assert_eq!(edge.forwarded.trusted.len(), 3);

    let [api, redirect, respond, _] = &snapshot.routes[..] else { panic!("four routes") };
    assert_eq!((&*api.name, &*redirect.name), ("api", "edge/2"));
    let Action::Forward { connect, queue, .. } = api.action else { panic!("no cluster") };
    assert_eq!((connect, queue), (Some(Duration::from_secs(1)), Some(Duration::from_millis(500))));
    assert_eq!(api.matcher.host, ["api.example.com".into(), "*.example.org".into()]);
    assert!(redirect.matcher.path_regex[0].is_in(b"/ABC"), "ignore_case");
    let Action::Redirect(to) = &redirect.action else { panic!("no redirect") };
    assert_eq!((to.status, to.to.0.len()), (308, 2));
    let Action::Respond(reply) = &respond.action else { panic!("no respond") };
    assert_eq!((reply.status, &*reply.page.headers[0].0), (403, "content-type"));
    assert_eq!(respond.matcher.header.len(), 4);
    assert_eq!(respond.matcher.not.as_ref().unwrap().path, ["/b".into()]);

    let (api, app) = (snapshot.clusters[0].as_ref().unwrap(), snapshot.clusters[1].as_ref().unwrap());
    assert_eq!(
        (api.balance, &api.host, api.pass_trailers),
        ("least_connections", &HostPolicy::Endpoint, true)
    );
    assert_eq!(app.host, HostPolicy::Name("app.internal:8080".into()));
    let two = &api.endpoints[1];
    assert_eq!((&*two.name, two.weight, two.max_connections, two.max_requests), ("two", 3, 30000, 1000));
    let tiers: Vec<_> = app.endpoints.iter().map(|e| e.priority).collect();
    assert_eq!((tiers, app.fail_open, api.fail_open), (vec![0, 1, 7], true, false));
    assert_eq!((app.slow_start, api.slow_start), (Duration::from_secs(20), Duration::ZERO));
    let available = respond.matcher.available.unwrap();
    assert_eq!((available.cluster, available.at_least, available.below), (app.id, 0, 1));
    let not = respond.matcher.not.as_ref().unwrap().available.unwrap();
    assert_eq!((not.cluster, not.at_least, not.below), (api.id, 2, 9));
    let outlier = api.outlier.unwrap();
    assert_eq!((outlier.consecutive_failures, outlier.failure_rate), (u32::MAX, Some(0.25)));
    assert_eq!((outlier.minimum_volume, outlier.window), (50, Duration::from_secs(20)));
    assert_eq!(outlier.ejection_time, Duration::from_secs(10));
    assert_eq!((outlier.max_ejection_time, outlier.max_ejected_percent), (Duration::from_secs(60), 67));
    assert!(outlier.failure_status.has(502) && outlier.failure_status.has(429));
    assert!(!outlier.failure_status.has(505) && !outlier.failure_status.has(404));
    let breaker = api.circuit_breaker.unwrap();
    assert_eq!((breaker.of, breaker.failure_threshold), (BreakerOf::Both, 7));
    assert_eq!(breaker.recovery_timeout, Duration::from_secs(5));
    assert_eq!(breaker.trial_timeout, Duration::from_secs(1));
    assert!(!breaker.failure_status.has(500), "none");
    assert!(app.outlier.unwrap().failure_status.has(500) && app.circuit_breaker.is_none());
    assert_eq!((api.max_queued, api.timeouts.queue), (50, Duration::from_secs(10)));
    assert_eq!((app.max_queued, app.timeouts.queue), (1024, Duration::from_secs(5)));
    let retry = api.retry.as_ref().unwrap();
    assert_eq!(
        (retry.attempts, retry.budget_percent, retry.budget_minimum, retry.replay_body),
        (2, 10, 3, 4096)
    );
    assert!(retry.on.connect && retry.on.reset && retry.on.timeout && retry.on.statuses.has(504));
    assert_eq!((retry.on.statuses.has(500), retry.hedge_after), (false, Some(HedgeAfter::Percentile(90))));
    assert_eq!(app.retry, None);
    assert_eq!(
        (api.source_addresses.ports, app.source_addresses.ports),
        (PortRange::new(40_000, 49_999), None)
    );
}

#[test]
fn where_endpoints_come_from_is_taken() {
    let loaded = good(include_str!("../../tests/config_cases/good.toml"));
    let sources = loaded.sources[0].as_ref().unwrap();
    let queries: Vec<_> = sources.queries().map(|(at, query)| (at, query.to_string())).collect();
    let expected = [(0, "app.internal:9000"), (1, "srv:_http._tcp.example.org")];
    assert_eq!(queries, expected.map(|(at, query)| (at, query.to_owned())));
    let named = &sources.entries[0].endpoint;
    assert_eq!((&*named.name, named.weight, sources.entries.len()), ("named", 2, 4));
    assert!(loaded.sources[1].is_none(), "all of its endpoints are written down");
    assert_eq!(loaded.process.resolvers, ["127.0.0.1:53", "[::1]:5353"].map(|text| text.parse().unwrap()));
}

#[test]
fn what_becomes_a_span_is_taken() {
    let loaded = good(include_str!("../../tests/config_cases/good.toml"));
    let tracing = loaded.snapshot.tracing.unwrap();
    assert_eq!((tracing.share, tracing.respect_parent), (0.25, true));
    let to = loaded.process.traces.unwrap();
    assert_eq!(
        (to.endpoint.host.as_str(), to.endpoint.port, to.endpoint.authority.as_str()),
        ("::1", 4318, "[::1]:4318")
    );
    assert_eq!(
        (to.endpoint.path.as_str(), to.service.as_str(), to.node.as_str()),
        ("/v1/traces", "edge", "proxy-1")
    );
}

#[test]
fn what_clients_are_kept_by_is_taken() {
    let loaded = good(include_str!("../../tests/config_cases/good.toml"));
    let kept = loaded.snapshot.clusters[2].as_ref().unwrap();
    let (hash, sticky) = (kept.hash.as_ref().unwrap(), kept.sticky.as_ref().unwrap());
    assert_eq!((kept.balance, &hash.on, hash.bounded_load), ("hash", &HashOn::Header("x-user".into()), 125));
    assert_eq!(hash.table.len(), limits::HASH_SLOTS);
    assert_eq!((&*sticky.cookie, sticky.indirect, sticky.nocache), ("SOMUI", true, true));
    let attributes = "; Path=/app; Domain=example.com; Max-Age=86400; Secure; SameSite=None";
    assert_eq!(&*sticky.attributes, attributes);
    let values = kept.endpoints.iter().map(|endpoint| sticky.value(endpoint.id).unwrap());
    assert!(values.clone().all(|value| value.is_ascii()) && values.count() == 2);

    let plain = good(
        "[[listener]]\nname = 'e'\naddress = '127.0.0.1:0'\ncluster = 'a'\n[[cluster]]\nname = 'a'\n\
         endpoints = ['127.0.0.1:1']\nbalance = 'hash'\n[cluster.sticky]\ncookie = 'c'",
    );
    let kept = plain.snapshot.clusters[0].as_ref().unwrap();
    let (hash, sticky) = (kept.hash.as_ref().unwrap(), kept.sticky.as_ref().unwrap());
    assert_eq!((&hash.on, hash.is_bounded()), (&HashOn::Source, false));
    assert_eq!(&*sticky.attributes, "; Path=/; HttpOnly; SameSite=Lax");
    assert!(!sticky.indirect && !sticky.nocache && plain.warnings.problems.len() == 1);
}

#[test]
fn strings_may_stand_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.html");
    std::fs::write(&page, "it is ${host}\n").unwrap();
    let text = format!(
        "[[listener]]\nname = 'e'\naddress = '127.0.0.1:0'\n[[route]]\nrespond.body.file = {:?}\n\
         respond.headers.x-cargo.env = 'CARGO_PKG_NAME'",
        page.display().to_string()
    );
    let loaded = good(&text);
    let Action::Respond(reply) = &loaded.snapshot.routes[0].action else { panic!("no respond") };
    assert_eq!(reply.page.body.0[1], TemplatePart::Variable(Variable::Host));
    assert_eq!(reply.page.headers[0].1.0, [TemplatePart::Text(env!("CARGO_PKG_NAME").into())]);
}

#[test]
fn limits_hold_at_their_edge() {
    let file = |line: &str| {
        format!(
            "[[listener]]\nname = 'e'\naddress = '127.0.0.1:0'\ncluster = 'a'\n{line}\n[[cluster]]\nname = 'a'\nendpoints = ['127.0.0.1:1']"
        )
    };
    let edges = |key: &str, Bound { min, max, .. }: Bound<u64>, unit: &str| {
        for (value, good) in [(min, true), (max, true), (min - 1, false), (max + 1, false)] {
            let quote = if unit.is_empty() { "" } else { "'" };
            let found = problems(&file(&format!("limits.{key} = {quote}{value}{unit}{quote}")));
            assert_eq!(found.is_empty(), good, "{key} = {value}: {found}");
        }
    };
    edges("request_line", limits::REQUEST_LINE, "B");
    edges("header_block", limits::HEADER_BLOCK, "B");
    edges("header_fields", limits::HEADER_FIELDS, "");
    edges("pipelined", limits::PIPELINED, "");
}

#[test]
fn files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ringway.toml");
    let failure = |path: &Path| load(path, &Environment::of_tests()).unwrap_err().to_string();
    assert!(failure(&path).contains("ringway.toml:1:1: error: file: cannot be opened"), "{}", failure(&path));
    assert!(failure(dir.path()).contains("error: file: cannot be read"), "{}", failure(dir.path()));
    std::fs::write(&path, b"version = 1\n# \xc3\xa4 \xff\n").unwrap();
    assert!(failure(&path).contains("ringway.toml:2:5: error: syntax: this byte"), "{}", failure(&path));
    let most = usize::try_from(limits::CONFIG_FILE_BYTES).unwrap();
    std::fs::write(&path, vec![b'\n'; most + 1]).unwrap();
    assert!(failure(&path).contains("error: file: is larger than 10MiB"), "{}", failure(&path));
    std::fs::write(&path, vec![b'\n'; most]).unwrap();
    assert!(failure(&path).contains("listener: is missing"), "{}", failure(&path));
    std::fs::write(&path, DEMO).unwrap();
    assert_eq!(load(&path, &Environment::of_tests()).unwrap().snapshot.routes.len(), 1);
}

#[test]
fn large_files_take_no_time() {
    let mut text = String::from("[[listener]]\nname = 'e'\naddress = '127.0.0.1:0'\n");
    for i in 0..20_000 {
        text += &format!("[[route]]\nmatch = {{ path = '/{i}' }}\ncluster = 'c{}'\n", i % 500);
    }
    for i in 0..500 {
        text += &format!("[[cluster]]\nname = 'c{i}'\nendpoints = ['127.0.0.1:1', '127.0.0.2:1']\n");
    }
    assert_eq!(good(&text).snapshot.routes.len(), 20_000);
    let wrong = text.replace("cluster = ", "clutser = ");
    let report = parse(&wrong, "t.toml", &Environment::of_tests()).unwrap_err();
    assert_eq!(report.problems.len(), 1001, "bounded, and the rest counted");
}

/// A text near a good one: a piece of it replaced, repeated or cut.
fn near_good() -> impl Strategy<Value = String> {
    let base = prop_oneof![
        Just(DEMO.to_owned()),
        Just(include_str!("../../tests/config_cases/good.toml").to_owned()),
        Just(include_str!("../../tests/config_cases/wrong_types.toml").to_owned()),
    ];
    (base, any::<proptest::sample::Index>(), 0usize..40, "[\\[\\]{}=\"'.,#$\\\\ \na0-9é\u{0}-]{0,6}")
        .prop_map(|(mut text, at, len, new)| {
            let mut from = at.index(text.len());
            while !text.is_char_boundary(from) {
                from -= 1;
            }
            let mut to = (from + len).min(text.len());
            while !text.is_char_boundary(to) {
                to += 1;
            }
            text.replace_range(from..to, &new);
            text
        })
}

/// A text that is read in pieces comes to what it comes to as a whole, its problems and their places included. Whether it was read in
/// pieces.
fn same_in_pieces(text: &str) -> bool {
    let Some((built, problems)) = in_pieces(text, &Environment::of_tests()) else { return false };
    let (whole, problems_of_whole) = as_a_whole(text, &Environment::of_tests());
    let told = |problems: Problems| problems.finish("t.toml", text).to_string();
    assert_eq!(told(problems), told(problems_of_whole), "{text}");
    let shown =
        |built: &Built| format!("{:?} {:?} {:?}", built.snapshot, built.process, built.maintenance_files);
    assert_eq!(shown(&built), shown(&whole), "{text}");
    true
}

#[test]
fn a_file_in_pieces_is_the_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_cases");
    let cases = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = cases.filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let read = texts.filter(|path| std::fs::read_to_string(path).is_ok_and(|text| same_in_pieces(&text)));
    assert!(read.count() > 20, "most cases have routes");
    for (text, in_pieces) in [
        ("[[route]]\nname = 'a'\n[route.match]\npath = '/'\n[[listener]]\n[[route]]\nname = 'a'\n", true),
        // A table of a route that stands elsewhere is the last route's.
        ("[[route]]\nname = 'a'\n[log]\n[route.match]\npath = '/'\n", false),
        ("[[route]]\nname = 'a'\n[[ route ]]\nname = 'b'\n", false),
        ("[['route']]\nname = 'a'\n[[route]]\nname = 'b'\n", false),
        ("route = []\n[[route]]\nname = 'a'\n", false),
        // Values that go on where routes are left out.
        ("x = [\n[[route]]\nname = 'a'\n['b']]\n", false),
        ("x = [[\n[[route]]\n]]\n", false),
        ("x = 'a\n[[route]]\nname = 'a'\n", false),
        ("[[route]]\nmatch = { path = [\n['a'],\n] }\n", false),
        ("[[route]]\nname = 'a'\nname = 'b'\n", false),
        ("[[route]]\n", true),
        ("[[route]]", true),
        ("[[route]] x\n", false),
        ("[[route]", false),
        ("version = 1\n[[route]", false),
        ("[[route]\n", false),
    ] {
        assert_eq!(same_in_pieces(text), in_pieces, "{text}");
    }
}

/// Whatever the text, there is an answer, and each problem stands within the text.
fn answers(text: &str) {
    let report = match parse(text, "t.toml", &Environment::of_tests()) {
        Ok(loaded) => loaded.warnings,
        Err(report) => {
            assert!(report.has_errors(), "refused without an error");
            report
        }
    };
    let lines = text.split('\n').count();
    for problem in report.problems {
        assert!(problem.line >= 1 && problem.line <= lines, "{problem} of {lines} lines");
        assert!(problem.column >= 1);
        assert!(!problem.to_string().contains('\n'), "{problem:?} takes more than a line");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in any::<String>()) {
        answers(&text);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        answers(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_toml_like_text_panics(text in "([\\[\\]{}=\"'.,#\\- \\n]|listener|route|cluster|name|match|not|1|true|0x|\\$\\{){0,60}") {
        answers(&text);
    }

    #[test]
    fn no_near_miss_panics(text in near_good()) {
        answers(&text);
    }

    #[test]
    fn near_misses_in_pieces_are_the_file(text in near_good()) {
        same_in_pieces(&text);
    }
}
