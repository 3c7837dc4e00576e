//! The contract that every policy of the registry keeps, whoever wrote it.

use super::*;
use crate::cluster::eligible::Health;
use crate::cluster::test_cluster;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A cluster of these weights, with its counts.
struct Scene {
    cluster: Cluster,
    shared: SharedCluster,
    usable: Usable,
    idle: Vec<u32>,
    tried: Tried,
}

impl Scene {
    fn new(weights: &[u32]) -> Self {
        let cluster = test_cluster(weights);
        let shared = SharedCluster::new(weights.len(), 1);
        let usable = Usable::new(&cluster, &shared, Mono(0));
        Self { cluster, shared, usable, idle: vec![0; weights.len()], tried: Tried::NONE }
    }
    fn view(&self) -> View<'_> {
        let Self { cluster, shared, usable, idle, tried } = self;
        View { cluster, shared, usable, idle, tried }
    }
    fn build(&self, policy: &Policy, seed: u64) -> Box<dyn Balancer> {
        let mut balancer = (policy.build)(&self.cluster, seed);
        balancer.on_usable_changed(&self.cluster, &self.usable);
        balancer
    }
    fn set_health(&mut self, at: usize, health: Health) {
        assert!(self.shared.set_health(endpoint_id(at), health, Mono(0)));
        self.look();
    }
    fn look(&mut self) {
        self.usable.look(&self.cluster, &self.shared, Mono(0));
    }
    fn start(&self, id: EndpointId) {
        assert!(self.shared.endpoint(id).is_some_and(|endpoint| endpoint.try_start(u32::MAX)));
    }
}

#[test]
fn names_are_words_and_unique() {
    let names: BTreeSet<_> = POLICIES.iter().map(|policy| policy.name).collect();
    assert_eq!(names.len(), POLICIES.len());
    for policy in POLICIES {
        assert!(policy.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", policy.name);
        assert!(policy.doc.ends_with('.'), "{}", policy.doc);
        assert_eq!(super::policy(policy.name).unwrap().doc, policy.doc);
    }
    assert!(policy("nearest").is_none());
    assert_eq!(POLICIES[0].name, "round_robin", "the default of config.md");
}

/// Policies that do not spread requests by weight: by order, and by key.
const UNEVEN: &[&str] = &["first", "hash"];

proptest! {
    /// Never an ineligible endpoint; `None` only when none is eligible.
    #[test]
    fn picks_an_eligible_endpoint_if_there_is_one(
        endpoints in proptest::collection::vec(
            ((0u32..4, any::<bool>()), 0u32..3, 0u32..3, 0u32..2, any::<bool>()), 0..40),
        seed in any::<u64>(),
        picks in 1usize..40,
    ) {
        for policy in POLICIES {
            let weights: Vec<_> = endpoints.iter().map(|e| e.0.0).collect();
            let mut scene = Scene::new(&weights);
            for (at, &((_, down), running, links, idle, tried)) in endpoints.iter().enumerate() {
                let id = endpoint_id(at);
                // Limits that some reach: 2 requests, 2 links.
                scene.cluster.endpoints[at].max_requests = 2;
                scene.cluster.endpoints[at].max_connections = 2;
                scene.idle[at] = idle;
                (0..running).for_each(|_| scene.start(id));
                (0..links).for_each(|_| assert!(scene.shared.endpoint(id).unwrap().try_open_link(9)));
                if tried {
                    scene.tried.add(id);
                }
                if down {
                    scene.set_health(at, Health::Down);
                }
            }
            scene.look();
            // Said again in other words than `View::eligible`.
            let may: BTreeSet<_> = (0..endpoints.len())
                .filter(|&at| {
                    let ((weight, down), running, links, idle, _) = endpoints[at];
                    let tried = scene.tried.contains(endpoint_id(at));
                    weight != 0 && !down && running != 2 && !tried && (links != 2 || idle == 1)
                })
                .map(endpoint_id)
                .collect();
            let mut balancer = scene.build(policy, seed);
            for _ in 0..picks {
                match balancer.pick(&scene.view(), Hint::default()) {
                    Some(id) => prop_assert!(may.contains(&id), "{} picked {id:?} of {may:?}", policy.name),
                    None => prop_assert!(may.is_empty(), "{} found none of {may:?}", policy.name),
                }
            }
        }
    }

    /// With every request still running, the counts follow the weights within a bound; those of the endpoints that are up,
    /// also where others were down, and came back, and went down for good.
    #[test]
    fn follows_weights(
        endpoints in proptest::collection::vec((1u32..9, any::<bool>()), 1..8),
        seed in any::<u64>(),
    ) {
        let (weights, mut down): (Vec<u32>, Vec<bool>) = endpoints.iter().copied().unzip();
        down[0] = false;
        for policy in POLICIES.iter().filter(|policy| !UNEVEN.contains(&policy.name)) {
            let mut scene = Scene::new(&weights);
            let mut balancer = scene.build(policy, seed);
            for health in [Health::Down, Health::Up, Health::Down] {
                (0..weights.len()).filter(|at| down[*at]).for_each(|at| scene.set_health(at, health));
                balancer.on_usable_changed(&scene.cluster, &scene.usable);
            }
            let weights: Vec<u32> = weights.iter().zip(&down).map(|(w, down)| if *down { 0 } else { *w }).collect();
            let total: u32 = weights.iter().sum();
            let picks = 100 * total;
            for _ in 0..picks {
                let id = balancer.pick(&scene.view(), Hint::default()).unwrap();
                scene.start(id);
            }
            for (at, &weight) in weights.iter().enumerate() {
                let (share, got) = (100 * weight, scene.view().running(endpoint_id(at)));
                let slack = if share == 0 { 0 } else { share / 10 + 10 };
                prop_assert!(share.abs_diff(got) <= slack, "{}: {got} for a share of {share}", policy.name);
            }
        }
    }

    /// The same seed and the same past give the same picks.
    #[test]
    fn replays(weights in proptest::collection::vec(0u32..5, 1..8), seed in any::<u64>()) {
        for policy in POLICIES {
            let run = || {
                let scene = Scene::new(&weights);
                let mut balancer = scene.build(policy, seed);
                let mut picks = Vec::new();
                for _ in 0..50 {
                    let pick = balancer.pick(&scene.view(), Hint::default());
                    pick.inspect(|&id| scene.start(id));
                    picks.push(pick);
                }
                picks
            };
            prop_assert_eq!(run(), run(), "{}", policy.name);
        }
    }
}

/// One shard with more endpoints than it looks at whole: still the least of all, whatever starts and ends.
#[test]
fn least_connections_of_many_is_exact_on_one_shard() {
    let weights: Vec<u32> = (0..200).map(|n| 1 + n % 3).collect();
    let scene = Scene::new(&weights);
    let mut balancer = scene.build(policy("least_connections").unwrap(), 5);
    let (mut running, mut random) = (Vec::new(), 1u64);
    for _ in 0..5_000 {
        let view = scene.view();
        let load = |id: EndpointId| f64::from(view.running(id)) / f64::from(view.weight(id));
        let least = view.round_from(0).map(load).fold(f64::MAX, f64::min);
        let id = balancer.pick(&view, Hint::default()).unwrap();
        assert!(load(id) <= least, "{id:?} has {}, another {least}", load(id));
        scene.start(id);
        running.push(id);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // As many end as start, in any order, once some hundreds run.
        if running.len() > 500 {
            let ended = running.swap_remove((random >> 33) as usize % running.len());
            let left = scene.shared.endpoint(ended).unwrap().end();
            balancer.on_end(ended, left);
        }
    }
}

/// Several shards with many endpoints: what one does, the others learn within half as many picks as there are endpoints,
/// and nobody takes an endpoint that is busier than another it knows of.
#[test]
fn least_connections_of_many_learns_what_other_shards_do() {
    let scene = Scene::new(&[1; 100]);
    let mut shards: Vec<_> = (0..2).map(|n| scene.build(policy("least_connections").unwrap(), n)).collect();
    let mut pick = |shard: usize| {
        let id = shards[shard].pick(&scene.view(), Hint::default()).unwrap();
        scene.start(id);
        id
    };
    for n in 0..1_000 {
        pick(n % 2);
    }
    let loads = || (0..100).map(|at| scene.view().running(EndpointId(at)));
    assert!(loads().max() <= Some(11) && loads().min() >= Some(9), "{:?}", loads().collect::<Vec<_>>());
    // All of one endpoint end at once, as when it restarts, and nobody tells the other shard.
    let empty = EndpointId(70);
    (0..scene.view().running(empty)).for_each(|_| {
        scene.shared.endpoint(empty).unwrap().end();
    });
    let found = (1..=60).find(|_| pick(1) == empty);
    assert!(found.is_some_and(|n| n <= 50), "{found:?}");
}

/// A balancer that was told of other endpoints behaves as one that was built for them.
#[test]
fn a_change_of_endpoints_is_followed() {
    for policy in POLICIES {
        let (old, new) = (Scene::new(&[1, 1, 1, 1, 9]), Scene::new(&[1, 0, 2]));
        let mut changed = old.build(policy, 1);
        changed.on_endpoints_changed(&new.cluster);
        changed.on_usable_changed(&new.cluster, &new.usable);
        let picks = |balancer: &mut Box<dyn Balancer>| {
            let scene = Scene::new(&[1, 0, 2]);
            let mut counts = [0; 3];
            for _ in 0..300 {
                let id = balancer.pick(&scene.view(), Hint::default()).unwrap();
                scene.start(id);
                counts[usize::from(id.0)] += 1;
            }
            counts
        };
        assert_eq!(picks(&mut changed), picks(&mut new.build(policy, 1)), "{}", policy.name);
    }
}

/// Serial requests follow one sequence, whichever shard each comes to.
#[test]
fn round_robin_is_exact_over_shards() {
    let weights = [3, 1, 2];
    let one = Scene::new(&weights);
    let mut single = one.build(&POLICIES[0], 0);
    let alone: Vec<_> = (0..60).map(|_| single.pick(&one.view(), Hint::default())).collect();
    let scene = Scene::new(&weights);
    let mut shards: Vec<_> = (0..8).map(|n| scene.build(&POLICIES[0], n)).collect();
    let over: Vec<_> = (0..60).map(|n| shards[n * n % 8].pick(&scene.view(), Hint::default())).collect();
    assert_eq!(alone, over);
    assert_eq!(alone[..6], [0, 2, 0, 1, 0, 2].map(|id| Some(EndpointId(id))));
}

/// Those that are left share evenly, in the same sequence on every shard: the neighbour of one that is down gets no more.
#[test]
fn round_robin_is_exact_without_those_that_are_down() {
    let mut scene = Scene::new(&[1, 1, 1, 2]);
    scene.set_health(1, Health::Down);
    let mut shards: Vec<_> = (0..8).map(|n| scene.build(&POLICIES[0], n)).collect();
    let picks: Vec<_> =
        (0..400).map(|n| shards[n * n % 8].pick(&scene.view(), Hint::default()).unwrap().0).collect();
    let count = |id| picks.iter().filter(|pick| **pick == id).count();
    assert_eq!([0, 1, 2, 3].map(count), [100, 0, 100, 200]);
    assert_eq!(picks[..4], picks[4..8]);
}

#[test]
fn the_turn_of_an_ineligible_endpoint_goes_to_the_next() {
    let mut scene = Scene::new(&[1, 1, 1]);
    scene.tried.add(EndpointId(1));
    let mut balancer = scene.build(&POLICIES[0], 0);
    let picks: Vec<_> = (0..6).map(|_| balancer.pick(&scene.view(), Hint::default()).unwrap().0).collect();
    assert_eq!(picks, [0, 2, 2, 0, 2, 2]);
}

/// What one endpoint of many does when nearly all are full: still found, though far behind in a long cycle.
#[test]
fn the_last_free_endpoint_of_a_large_cluster_is_found() {
    let mut weights = vec![250; 500];
    weights[0] = 1;
    for policy in POLICIES {
        let mut scene = Scene::new(&weights);
        for (at, endpoint) in scene.cluster.endpoints.iter_mut().enumerate() {
            endpoint.max_requests = u32::from(at == 0);
        }
        scene.look();
        let mut balancer = scene.build(policy, 3);
        assert_eq!(balancer.pick(&scene.view(), Hint::default()), Some(EndpointId(0)), "{}", policy.name);
    }
}

#[test]
fn least_connections_takes_the_idle_one_and_idle_ones_in_turn() {
    let scene = Scene::new(&[1, 1, 1]);
    let mut balancer = scene.build(policy("least_connections").unwrap(), 0);
    let mut next = || balancer.pick(&scene.view(), Hint::default()).unwrap().0;
    assert_eq!([next(), next(), next(), next()], [0, 1, 2, 0]);
    scene.start(EndpointId(0));
    scene.start(EndpointId(1));
    assert_eq!([next(), next(), next()], [2, 2, 2]);
}

#[test]
fn first_fills_endpoints_in_their_order() {
    let mut scene = Scene::new(&[1, 0, 9, 1]);
    scene.cluster.endpoints.iter_mut().for_each(|endpoint| endpoint.max_requests = 2);
    scene.look();
    let mut balancer = scene.build(policy("first").unwrap(), 0);
    let mut next = || {
        let id = balancer.pick(&scene.view(), Hint::default());
        id.inspect(|&id| scene.start(id)).map(|id| id.0)
    };
    let picks: Vec<_> = (0..7).map(|_| next()).collect();
    assert_eq!(picks, [Some(0), Some(0), Some(2), Some(2), Some(3), Some(3), None]);
    scene.shared.endpoint(EndpointId(2)).unwrap().end();
    assert_eq!(balancer.pick(&scene.view(), Hint::default()), Some(EndpointId(2)));
}

#[test]
fn random_differs_from_seed_to_seed() {
    let scene = Scene::new(&[1; 16]);
    let picks = |seed| -> Vec<_> {
        let mut balancer = scene.build(policy("random").unwrap(), seed);
        (0..32).map(|_| balancer.pick(&scene.view(), Hint::default())).collect()
    };
    assert_ne!(picks(1), picks(2));
}
