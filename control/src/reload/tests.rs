//! What a plan says is what then happens: random configurations one after the other, on shards that run.

use super::plan::{Object, Plan, What};
use super::{Next, Present};
use crate::config::{Environment, Kind, Loaded, Node, ReloadEffect, parse};
use crate::discovery::Discovery;
use dataplane::plane::Plane;
use dataplane::spec::{Cluster, Endpoint, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAIRS: usize = 200;

/// xorshift64*: seeds that are printed repeat a run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
    fn some<'t>(&mut self, from: &[&'t str]) -> Vec<&'t str> {
        let mut all: Vec<_> = from.iter().copied().filter(|_| !self.one_in(3)).collect();
        if self.one_in(4) {
            all.reverse();
        }
        all
    }
}

fn environment() -> Environment {
    Environment { inherited: Some(Vec::new()), ..Environment::of_tests() }
}

/// A configuration that differs from the next here and there.
fn draw(random: &mut Random) -> String {
    let mut out = String::from("[runtime]\nshards = 2\n");
    let mut clusters = random.some(&["app", "api", "img", "old"]);
    if clusters.is_empty() {
        clusters.push("app");
    }
    let mut listeners = random.some(&["edge", "inner", "extra"]);
    if listeners.is_empty() {
        listeners.push("edge");
    }
    let mut tcp = BTreeSet::new();
    for name in &listeners {
        let addresses =
            ["\"127.0.0.1:0\"", "[\"127.0.0.1:0\", \"127.0.0.2:0\"]", "\"127.0.0.2:0\"", "\"127.0.0.1:0\""];
        let (address, cluster) = (random.pick(&addresses), random.pick(&clusters));
        let _ =
            writeln!(out, "[[listener]]\nname = \"{name}\"\naddress = {address}\ncluster = \"{cluster}\"");
        if random.one_in(6) {
            tcp.insert(*name);
            out += "protocol = \"tcp\"\n";
        } else if random.one_in(3) {
            out += random.pick(&["timeouts = { idle = \"5s\" }\n", "limits = { pipelined = 3 }\n"]);
        }
    }
    for name in &random.some(&["r1", "r2", "r3", "r4", "r5"]) {
        let path = random.pick(&["/a", "/b"]);
        let _ = writeln!(out, "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"{path}/{name}\" }}");
        let of = random.pick(&listeners);
        if random.one_in(4) && !tcp.contains(of) {
            let _ = writeln!(out, "listeners = [\"{of}\"]");
        }
        match random.below(3) {
            0 => out += "respond = { status = 299 }\n",
            _ => {
                let _ = writeln!(out, "cluster = \"{}\"", random.pick(&clusters));
            }
        }
    }
    for name in &clusters {
        let mut endpoints = random.some(&["one", "two", "three", "four"]);
        if endpoints.is_empty() {
            endpoints.push("one");
        }
        let list: Vec<String> = endpoints
            .iter()
            .map(|endpoint| {
                let port = 1000 + endpoint.len() as u64 * 10 + u64::from(random.one_in(5));
                let weight = if random.one_in(4) { ", weight = 3" } else { "" };
                format!("{{ name = \"{endpoint}\", address = \"127.0.0.1:{port}\"{weight} }}")
            })
            .collect();
        let balance = random.pick(&["round_robin", "round_robin", "random", "least_connections"]);
        let _ = writeln!(
            out,
            "[[cluster]]\nname = \"{name}\"\nbalance = \"{balance}\"\nendpoints = [{}]",
            list.join(", ")
        );
    }
    out
}

/// What there is at a moment, as the plane has it.
struct Seen {
    snapshot: Arc<Snapshot>,
    bound: BTreeMap<String, Vec<String>>,
}

impl Seen {
    fn of(plane: &Plane) -> Self {
        let (snapshot, mut bound) = (plane.snapshot(), BTreeMap::<String, Vec<String>>::new());
        for one in plane.bound() {
            let name = snapshot.listener(one.listener).expect("a listener").name.to_string();
            bound.entry(name).or_default().push(one.address.to_string());
        }
        Self { snapshot, bound }
    }
    fn clusters(&self) -> BTreeMap<String, Arc<Cluster>> {
        let all = self.snapshot.clusters.iter().flatten().filter(|cluster| !cluster.gone);
        all.map(|cluster| (cluster.name.to_string(), Arc::clone(cluster))).collect()
    }
}

/// What became of each, by what is there before and after.
fn observed<T>(
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
    same: impl Fn(&T, &T) -> bool,
) -> BTreeMap<String, What> {
    let mut all = BTreeMap::new();
    for (name, new) in after {
        match before.get(name) {
            None => _ = all.insert(name.clone(), What::New),
            Some(old) if !same(old, new) => _ = all.insert(name.clone(), What::Changed),
            Some(_) => {}
        }
    }
    all.extend(
        before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), What::Gone)),
    );
    all
}

fn planned(plan: &Plan, of: Kind) -> BTreeMap<String, What> {
    let named = plan.changes.iter().filter_map(|change| match &change.object {
        Object::Of(kind, name) if *kind == of => Some((name.clone(), change.what)),
        _ => None,
    });
    named.collect()
}

fn compare(plan: &Plan, before: &Seen, after: &Seen, what: &str) {
    let listeners = |seen: &Seen| -> BTreeMap<_, _> {
        let all = seen.snapshot.listeners.iter().flatten().filter(|listener| !listener.is_gone());
        all.map(|listener| (listener.name.to_string(), Arc::clone(listener))).collect()
    };
    let (old, new) = (listeners(before), listeners(after));
    assert_eq!(planned(plan, Kind::Listener), observed(&old, &new, Arc::ptr_eq), "listeners: {what}");
    assert_eq!(after.bound.keys().collect::<Vec<_>>(), new.keys().collect::<Vec<_>>(), "{what}");
    for (name, addresses) in &after.bound {
        let Some(was) = before.bound.get(name) else { continue };
        let moved = was.iter().any(|address| !addresses.contains(address));
        let other_protocol = old[name].protocol != new[name].protocol;
        let drains = plan.changes.iter().any(|change| {
            change.object == Object::Of(Kind::Listener, name.clone()) && change.effect == ReloadEffect::Drains
        });
        assert_eq!(drains, moved || other_protocol, "{name}: {was:?} to {addresses:?}: {what}");
        assert_eq!(old[name].id, new[name].id, "{what}");
    }
    let routes = |seen: &Seen| -> BTreeMap<_, _> {
        seen.snapshot.routes.iter().map(|route| (route.name.to_string(), Arc::clone(route))).collect()
    };
    let (old, new) = (routes(before), routes(after));
    assert_eq!(planned(plan, Kind::Route), observed(&old, &new, Arc::ptr_eq), "routes: {what}");
    assert!(old.iter().all(|(name, old)| new.get(name).is_none_or(|new| new.id == old.id)), "{what}");
    let both = |seen: &Seen, other: &BTreeMap<String, _>| -> Vec<String> {
        let names = seen.snapshot.routes.iter().map(|route| route.name.to_string());
        names.filter(|name| other.contains_key(name)).collect()
    };
    let reordered = both(before, &new) != both(after, &old);
    assert_eq!(plan.changes.iter().any(|change| change.object == Object::RouteOrder), reordered, "{what}");
    let (old, new) = (before.clusters(), after.clusters());
    assert_eq!(planned(plan, Kind::Cluster), observed(&old, &new, Arc::ptr_eq), "clusters: {what}");
    compare_endpoints(plan, &old, &new, what);
}

fn compare_endpoints(
    plan: &Plan,
    old: &BTreeMap<String, Arc<Cluster>>,
    new: &BTreeMap<String, Arc<Cluster>>,
    what: &str,
) {
    let of = |all: &BTreeMap<String, Arc<Cluster>>, name: &str| -> BTreeMap<String, Endpoint> {
        let endpoints = all.get(name).into_iter().flat_map(|cluster| cluster.present());
        endpoints.map(|endpoint| (endpoint.name.to_string(), endpoint.clone())).collect()
    };
    for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let (before, after) = (of(old, name), of(new, name));
        let seen = observed(&before, &after, |one, other| one == other);
        let planned: BTreeMap<String, What> = plan
            .changes
            .iter()
            .filter_map(|change| match &change.object {
                Object::Endpoint(cluster, endpoint) if cluster == name => {
                    Some((endpoint.clone(), change.what))
                }
                _ => None,
            })
            .collect();
        assert_eq!(planned, seen, "endpoints of {name}: {what}");
        let goes =
            |(name, was): (&String, &Endpoint)| after.get(name).is_none_or(|is| is.address != was.address);
        let drains = old.contains_key(name) && before.iter().any(goes);
        let told = plan.changes.iter().any(|change| {
            change.object == Object::Of(Kind::Cluster, name.clone()) && change.effect == ReloadEffect::Drains
        });
        assert_eq!(told, drains, "{name} drains: {what}");
        for (endpoint, was) in &before {
            if let Some(is) = after.get(endpoint).filter(|is| is.address == was.address) {
                assert_eq!(is.id, was.id, "{name}/{endpoint}: {what}");
            }
        }
    }
}

/// Goes over as the process does, without what is around it.
fn go_over(plane: &Plane, discovery: &mut Discovery, present: &Present, loaded: &Loaded) -> (Present, Plan) {
    let swap = plane.swaps() + 1;
    let live = Arc::clone(discovery.snapshot());
    let next = present.next(loaded, &live, (swap, swap.saturating_sub(2)), plane).unwrap();
    assert_eq!(present.plan(loaded, swap).unwrap(), next.plan, "a plan is what a reload goes by");
    plane.listen(&next.snapshot).unwrap();
    let Next { present, plan, snapshot, changed, gone } = next;
    let lists = (changed.as_slice(), gone.as_slice());
    let snapshot = discovery.follow(snapshot, &present.configured.sources, lists, swap, plane);
    plane.swap(snapshot);
    #[allow(clippy::disallowed_methods, reason = "a test that would hang otherwise")]
    let begun = Instant::now();
    while !plane.has_switched(swap) {
        assert!(begun.elapsed() < Duration::from_secs(10), "the shards do not go over");
        std::thread::yield_now();
        plane.switch();
    }
    (present, plan)
}

#[test]
fn a_plan_says_what_then_happens() {
    let seed = std::env::var("RINGWAY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_122);
    println!("RINGWAY_SEED={seed}");
    let mut random = Random(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let read = |text: &str| {
            parse(text, "test", &environment()).unwrap_or_else(|report| panic!("{report}\n{text}"))
        };
        let mut text = draw(&mut random);
        let first = read(&text);
        let (mut discovery, snapshot) = Discovery::start(&first).await;
        let plane = Plane::start(snapshot, |_| ()).unwrap();
        let mut present = Present::first(&first);
        let mut ids = 0;
        for pair in 0..PAIRS {
            let next = if random.one_in(10) { text.clone() } else { draw(&mut random) };
            let before = Seen::of(&plane);
            let (now, plan) = go_over(&plane, &mut discovery, &present, &read(&next));
            let what = format!("pair {pair} of seed {seed}\n--- from\n{text}\n--- to\n{next}");
            compare(&plan, &before, &Seen::of(&plane), &what);
            assert!(next != text || plan.changes.is_empty(), "{what}");
            (present, text) = (now, next);
            ids = ids.max(plane.snapshot().clusters.len()).max(plane.snapshot().listeners.len());
        }
        assert!(ids < 16, "ids are given anew: {ids}");
        plane.stop();
        plane.join();
    });
}

/// The keys of cluster app that differ, and what becomes of it by each.
fn effects(before: &str, after: &str) -> Vec<(String, ReloadEffect)> {
    let text = |app: &str| {
        format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\ncluster = \"app\"\n[[cluster]]\nname = \"app\"\n{app}\n"
        )
    };
    let load =
        |app: &str| parse(&text(app), "test", &environment()).unwrap_or_else(|report| panic!("{report}"));
    let plan = Present::first(&load(before)).plan(&load(after), 1).unwrap();
    let changes = plan
        .changes
        .into_iter()
        .filter(|change| change.object == Object::Of(Kind::Cluster, "app".to_owned()));
    changes.flat_map(|change| change.keys.into_iter().map(|key| (key.key, key.effect))).collect()
}

#[test]
fn a_cluster_drains_only_where_an_endpoint_goes() {
    use ReloadEffect::{Drains, NextExchange, Nothing};
    let endpoints = |list: &str| format!("endpoints = [{list}]");
    for (before, after, effect) in [
        ("\"127.0.0.1:1\"", "{ address = \"127.0.0.1:1\", weight = 2 }", NextExchange),
        ("\"127.0.0.1:1\"", "\"127.0.0.1:1\", \"127.0.0.1:2\"", Nothing),
        ("\"127.0.0.1:1\", \"127.0.0.1:2\"", "\"127.0.0.1:2\"", Drains),
        (
            "{ name = \"a\", address = \"127.0.0.1:1\" }",
            "{ name = \"a\", address = \"127.0.0.1:2\" }",
            Drains,
        ),
        ("{ name = \"a\", address = \"x.test:1\" }", "{ name = \"a\", address = \"y.test:1\" }", Drains),
        (
            "{ name = \"a\", address = \"x.test:1\" }",
            "{ name = \"a\", address = \"x.test:1\", weight = 2 }",
            NextExchange,
        ),
    ] {
        let found = effects(&endpoints(before), &endpoints(after));
        assert_eq!(found, [("endpoints".to_owned(), effect)], "{before} to {after}");
    }
    let (one, list) = (endpoints("\"127.0.0.1:1\""), "endpoints_file = \"/nonexistent/list\"\n");
    let file = |effect| [("endpoints_file".to_owned(), effect)];
    assert_eq!(effects(&one, &format!("{list}{one}")), file(Nothing));
    assert_eq!(effects(&format!("{list}{one}"), &one), file(Drains));
}

/// What a configuration comes to, without its text.
fn meaning(loaded: &Loaded) -> String {
    let Loaded { snapshot, sources, process, checks, maintenance_files, .. } = loaded;
    format!("{snapshot:#?}{sources:#?}{process:#?}{checks:#?}{maintenance_files:#?}")
}

/// Every TOML file and example of the repository, and random ones: written anew by `export`, each comes to the same.
#[test]
fn an_exported_configuration_comes_to_the_same() {
    let seed = 20_261_122;
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut texts: Vec<String> = (0..PAIRS).map(|_| draw(&mut random)).collect();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders =
        vec![root.join("docs"), root.join("control/tests/config_cases"), root.join("control/src/config")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let text = || std::fs::read_to_string(&path).unwrap();
            match path.extension().and_then(|ending| ending.to_str()) {
                None if path.is_dir() => folders.push(path),
                Some("toml") => texts.push(text()),
                Some("md") => {
                    let text = text();
                    let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```"));
                    texts.extend(blocks.map(|(block, _)| block.to_owned()));
                }
                _ => {}
            }
        }
    }
    let mut compared = 0;
    for text in &texts {
        let Ok(loaded) = parse(text, "test", &environment()) else { continue };
        let written = Node::of_text(text).unwrap().write();
        let again =
            parse(&written, "written", &environment()).unwrap_or_else(|report| panic!("{report}\n{written}"));
        assert_eq!(meaning(&loaded), meaning(&again), "{text}\n---\n{written}");
        compared += 1;
    }
    assert!(compared >= PAIRS + 30, "only {compared} of {}", texts.len());
}
