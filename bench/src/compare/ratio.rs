//! Ratios of paired runs, and which rounds may be believed.

use super::record::Run;

/// More than this share of the proxy's CPU taken by the hypervisor voids a round.
const STEAL_MAX: f64 = 0.01;

/// More than this share of the requests sent late voids a round.
const LATE_MAX: f64 = 0.001;

/// Median, least and most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

pub(super) fn span(values: &[f64]) -> Option<Span> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, most) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median =
        if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    Some(Span { median, least, most })
}

/// The runs of one peer in one round of one case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pair {
    pub(super) round: u32,
    /// Mean of the two turns.
    pub(super) mean: f64,
    /// Second turn over first: the peer against itself. `None` when there was one turn only.
    pub(super) itself: Option<f64>,
    pub(super) steal: f64,
    /// Share of requests that the generator sent late, by its own fault.
    pub(super) late: f64,
}

impl Pair {
    pub(super) fn is_quiet(&self, noise: f64) -> bool {
        self.steal <= STEAL_MAX
            && self.late <= LATE_MAX
            && self.itself.is_none_or(|ratio| (ratio - 1.0).abs() <= noise)
    }
}

/// One pair for each round in which `peer` has this figure.
pub(super) fn pairs(runs: &[&Run], scenario: &str, case: &str, peer: &str, metric: &str) -> Vec<Pair> {
    let mine = |r: &&&Run| r.scenario == scenario && r.case == case && r.peer == peer;
    let mine: Vec<&Run> = runs.iter().filter(mine).copied().collect();
    let mut rounds: Vec<u32> = mine.iter().map(|r| r.round).collect();
    rounds.dedup();
    rounds.sort_unstable();
    rounds.dedup();
    let pair = |round| {
        let of =
            |turn| mine.iter().find(|r| r.round == round && r.turn == turn).and_then(|r| r.metric(metric));
        let (first, second) = (of(0), of(1));
        let values: Vec<f64> = [first, second].into_iter().flatten().collect();
        let worst = |name| {
            let all = mine.iter().filter(|r| r.round == round);
            all.filter_map(|r| r.metric(name)).fold(0.0, f64::max)
        };
        (!values.is_empty()).then(|| Pair {
            round,
            mean: values.iter().sum::<f64>() / values.len() as f64,
            itself: first.zip(second).map(|(a, b)| b / a),
            steal: worst("steal"),
            late: worst("late_share"),
        })
    };
    rounds.into_iter().filter_map(pair).collect()
}

/// Our pairs over theirs, round by round.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ratios {
    pub(super) kept: Vec<f64>,
    /// Rounds that were too noisy. When no other is left, `kept` is empty and these are all there is.
    pub(super) dropped: Vec<f64>,
}

impl Ratios {
    pub(super) fn of(ours: &[Pair], theirs: &[Pair], noise: f64) -> Self {
        let mut ratios = Self { kept: Vec::new(), dropped: Vec::new() };
        for our in ours {
            if let Some(their) = theirs.iter().find(|t| t.round == our.round && t.mean != 0.0) {
                let quiet = our.is_quiet(noise) && their.is_quiet(noise);
                if quiet { &mut ratios.kept } else { &mut ratios.dropped }.push(our.mean / their.mean);
            }
        }
        ratios
    }

    /// Over the believed rounds, or over all when there are none.
    pub(super) fn span(&self) -> Option<Span> {
        span(if self.kept.is_empty() { &self.dropped } else { &self.kept })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(peer: &str, round: u32, turn: u32, value: f64, steal: f64) -> Run {
        Run {
            scenario: "K1".into(),
            case: "64".into(),
            peer: peer.into(),
            round,
            turn,
            generator: String::new(),
            failed: None,
            metrics: [("m".to_owned(), value), ("steal".to_owned(), steal)].into(),
        }
    }

    #[test]
    fn medians_and_ranges() {
        assert_eq!(span(&[3.0, 1.0, 2.0]), Some(Span { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(span(&[4.0, 1.0]).map(|s| s.median), Some(2.5));
        assert_eq!(span(&[]), None);
    }

    #[test]
    fn noisy_rounds_are_dropped_and_counted() {
        let runs = [
            run("a", 0, 0, 10.0, 0.0),
            run("b", 0, 0, 5.0, 0.0),
            run("b", 0, 1, 5.0, 0.0),
            run("a", 0, 1, 10.0, 0.0),
            // b against itself is off.
            run("a", 1, 0, 10.0, 0.0),
            run("b", 1, 0, 5.0, 0.0),
            run("b", 1, 1, 7.0, 0.0),
            run("a", 1, 1, 10.0, 0.0),
            // The hypervisor took 2 %.
            run("a", 2, 0, 10.0, 0.02),
            run("b", 2, 0, 5.0, 0.0),
            run("b", 2, 1, 5.0, 0.0),
            run("a", 2, 1, 10.0, 0.0),
        ];
        let runs: Vec<&Run> = runs.iter().collect();
        let pairs = |peer| pairs(&runs, "K1", "64", peer, "m");
        let ratios = Ratios::of(&pairs("a"), &pairs("b"), 0.05);
        assert_eq!(ratios.kept, [2.0]);
        assert_eq!(ratios.dropped.len(), 2);
        assert_eq!(Ratios::of(&pairs("a"), &pairs("absent"), 0.05).span(), None);
        assert!(pairs("a")[0].itself == Some(1.0));
    }
}
