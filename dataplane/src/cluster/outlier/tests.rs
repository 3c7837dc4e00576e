//! Ejections grow and shrink, stay within their share, and follow the rate.

use super::*;
use crate::cluster::test_cluster;
use crate::spec::Statuses;

const RULES: Outlier = Outlier {
    consecutive_failures: 5,
    failure_rate: Some(0.5),
    minimum_volume: 20,
    window: Duration::from_secs(10),
    ejection_time: Duration::from_secs(30),
    max_ejection_time: Duration::from_secs(100),
    max_ejected_percent: 50,
    failure_status: Statuses::SERVER_ERRORS,
};

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000_000)
}

#[test]
fn the_share_is_rounded_down() {
    let most = |weights: &[u32], percent| {
        most_ejected(&test_cluster(weights), &Outlier { max_ejected_percent: percent, ..RULES })
    };
    for (endpoints, percent, expected) in [
        (0, 50, 0),
        (1, 50, 0),
        (1, 100, 1),
        (2, 50, 1),
        (3, 50, 1),
        (3, 66, 1),
        (3, 67, 2),
        (10, 10, 1),
        (9, 10, 0),
    ] {
        assert_eq!(most(&vec![1; endpoints], percent), expected, "{percent} % of {endpoints}");
    }
    assert_eq!(most(&[1, 0, 0, 0], 50), 0, "what has no weight does not count");
}

#[test]
fn ejections_grow_and_shrink_again() {
    let (endpoint, ejected) = (SharedEjection::new(), Count::new());
    let mut now = 1_000;
    let mut eject = |calm: u64| {
        now += calm;
        let Ejection { time, times, over_since } = endpoint.eject(&RULES, &ejected, 1, at(now)).unwrap();
        assert_eq!(over_since, None, "it was told");
        assert_eq!((endpoint.until(at(now)), ejected.get()), (Some(at(now).after(time)), 1));
        assert_eq!(endpoint.eject(&RULES, &ejected, 9, at(now + 1)), None, "it is out");
        now += time.as_secs();
        assert_eq!((endpoint.until(at(now)), ejected.get()), (None, 1));
        assert!(!endpoint.readmit(&ejected, false, at(now - 1)));
        assert!(endpoint.readmit(&ejected, false, at(now)) && !endpoint.readmit(&ejected, false, at(now)));
        assert_eq!(ejected.get(), 0);
        (time.as_secs(), times)
    };
    assert_eq!([eject(0), eject(1), eject(29), eject(0)], [(30, 1), (60, 2), (90, 3), (100, 4)]);
    assert_eq!(eject(60), (90, 3), "calm for two ejection times");
    assert_eq!(eject(10_000), (30, 1), "forgotten");
}

/// Nobody wrote the readmission down before the endpoint failed again: its place is taken once, and given back once.
#[test]
fn an_unwritten_readmission_loses_no_place() {
    let (endpoint, ejected) = (SharedEjection::new(), Count::new());
    assert!(endpoint.eject(&RULES, &ejected, 1, at(100)).is_some());
    let again = endpoint.eject(&RULES, &ejected, 1, at(131)).unwrap();
    assert_eq!((again.times, again.over_since), (2, Some(at(130))));
    assert_eq!(ejected.get(), 1);
    assert!(endpoint.readmit(&ejected, true, at(132)), "a check was good");
    assert_eq!((ejected.get(), endpoint.until(at(132))), (0, None));
}

#[test]
fn no_more_are_out_than_the_share_allows() {
    let (one, two, ejected) = (SharedEjection::new(), SharedEjection::new(), Count::new());
    assert!(one.eject(&RULES, &ejected, 1, at(100)).is_some());
    assert_eq!(two.eject(&RULES, &ejected, 1, at(100)), None);
    assert!(one.readmit(&ejected, true, at(101)));
    assert!(two.eject(&RULES, &ejected, 1, at(101)).is_some());
    assert_eq!(SharedEjection::new().eject(&RULES, &Count::new(), 0, at(1)), None);
}

#[test]
fn successes_reset_the_count() {
    let endpoint = SharedEjection::new();
    assert_eq!((endpoint.fail(at(1)), endpoint.fail(at(1))), (1, 2));
    endpoint.succeed();
    assert_eq!(endpoint.fail(at(1)), 1);
}

/// What was under way when the endpoint was ejected fails while it is out, and nobody writes the readmission down.
#[test]
fn failures_of_before_are_not_those_of_after() {
    let (endpoint, ejected) = (SharedEjection::new(), Count::new());
    assert_eq!((1..=5).map(|_| endpoint.fail(at(100))).max(), Some(5));
    assert!(endpoint.eject(&RULES, &ejected, 1, at(100)).is_some());
    assert!((0..9).all(|_| endpoint.fail(at(101)) == 0));
    assert_eq!((endpoint.until(at(130)), endpoint.fail(at(130))), (None, 1), "the first since it is back");
}

/// A watch of one endpoint that sees, step by step, so many more requests end and fail. Steps at which it was too bad.
fn watch(rules: &Outlier, steps: &[(u64, u64)]) -> Vec<(usize, u32)> {
    let (mut watch, mut total, mut told) = (RateWatch::new(1), Tally::default(), Vec::new());
    for (n, (ended, failed)) in steps.iter().enumerate() {
        total = Tally { ended: total.ended + ended, failed: total.failed + failed };
        watch.step(
            rules,
            at(n as u64),
            |_| total,
            |_, rate| {
                told.push((n, rate));
                true
            },
        );
    }
    told
}

#[test]
fn the_rate_counts_within_the_window_and_from_a_volume_on() {
    let never: [(usize, u32); 0] = [];
    assert_eq!(watch(&RULES, &[(19, 19)]), never, "too few");
    assert_eq!(watch(&RULES, &[(20, 9), (100, 0)]), never, "too rarely");
    assert_eq!(watch(&RULES, &[(20, 10)]), [(0, 5_000)]);
    assert_eq!(watch(&RULES, &[(10, 10), (9, 5), (1, 0)]), [(2, 7_500)], "over several steps");
    // Ten steps later what failed is forgotten; what was told is forgotten at once.
    let mut steps = vec![(15, 15)];
    steps.extend([(0, 0); 9]);
    steps.push((10, 5));
    assert_eq!(watch(&RULES, &steps), never);
    assert_eq!(watch(&RULES, &[(20, 20), (19, 19), (1, 1)]), [(0, 10_000), (2, 10_000)]);
    let rules = Outlier { failure_rate: None, ..RULES };
    assert_eq!(watch(&rules, &[(100, 100)]), never);
    let rules = Outlier { failure_rate: Some(0.0), minimum_volume: 1, ..RULES };
    assert_eq!(watch(&rules, &[(100, 0), (100, 1)]), [(1, 50)], "none is never too many");
}

#[test]
fn the_window_slides_in_tenths() {
    let mut watch = RateWatch::new(0);
    watch.step(&RULES, at(5), |_| Tally::default(), |_, _| true);
    assert_eq!(watch.next_step(), at(6));
}
