//! How often comparisons find a difference with and without a real one: simulated, with fixed
//! seeds.
//!
//! `L0_COMPARE_PAIRS` sets the number of simulated pairs of sets for each case. The default is 100. With few
//! pairs, the figures allow for chance.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use l0_core::{Cost, CostSource, Currency, Distribution, Money, Outcome, Telemetry};
use l0_report::compare::{Arm, Arms, Verdict};

/// The maximum share of false alarms in 1,000 comparisons at 95 %.
const MOST_ALARMS: f64 = 0.065;

fn pairs() -> usize {
    let pairs = std::env::var("L0_COMPARE_PAIRS").ok();
    pairs.map_or(100, |pairs| pairs.parse().expect("a number"))
}

fn normal(rng: &mut Rng) -> f64 {
    let (radius, angle) = (1.0 - rng.f64(), rng.f64());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// The distribution of times.
#[derive(Debug, Clone, Copy)]
enum Spread {
    LogNormal(f64),
    Pareto(f64),
    /// Times of a clock with a resolution of 10 ms.
    Stepped,
}

impl Spread {
    fn draw(self, rng: &mut Rng) -> f64 {
        match self {
            Self::LogNormal(sigma) => 400.0 * (sigma * normal(rng)).exp(),
            Self::Pareto(alpha) => 400.0 * (1.0 - rng.f64()).powf(-1.0 / alpha),
            Self::Stepped => (40.0 * (0.4 * normal(rng)).exp()).round() * 10.0,
        }
    }
}

fn millis(millis: f64) -> Duration {
    Duration::from_secs_f64(millis / 1e3)
}

/// The parameters of a simulated run.
#[derive(Debug, Clone, Copy)]
struct World {
    spread: Spread,
    failures: f64,
    /// The factor by which times are longer.
    factor: f64,
}

const PLAIN: World = World {
    spread: Spread::LogNormal(0.4),
    failures: 0.05,
    factor: 1.0,
};

/// Returns a run. A prompt has its own length, which both arms share.
fn run(world: World, prompt: Option<u64>, rng: &mut Rng) -> Telemetry {
    let length = prompt.map_or(1.0, |prompt| {
        (0.4 * normal(&mut Rng::with_seed(prompt))).exp()
    });
    let mut time = || millis(world.factor * length * world.spread.draw(rng));
    let mut run = Telemetry::default();
    (run.duration, run.metrics.time_to_first_token) = (Some(time()), Some(time()));
    let failed = rng.f64() < world.failures;
    let outcome = if failed {
        Outcome::Failed
    } else {
        Outcome::Completed
    };
    run.outcome = Some(outcome);
    run.metrics.total_retries = u32::from(rng.f64() < 0.02) * rng.u32(1..4);
    run.metrics.total_tokens = (150.0 * (0.5 * normal(rng)).exp()) as u64;
    let micros = Money::micros((1_000.0 * normal(rng).exp()) as u64);
    run.cost = Some(Cost::new(micros, Currency::USD, CostSource::Provider));
    // The gaps of a run are similar.
    let gap = 20.0 * world.factor * (0.3 * normal(rng)).exp();
    let mut gaps = Distribution::new();
    for _ in 0..rng.u32(1..6) {
        gaps.record(millis(gap * (0.1 * normal(rng)).exp()));
    }
    run.metrics.inter_token = Some(gaps);
    if let Some(prompt) = prompt {
        let prompt = prompt.to_string();
        run.metadata.insert("prompt".to_owned(), prompt.into());
    }
    run
}

/// Returns the number of comparisons in which each statistic shows a difference.
fn shown(
    pairs: usize,
    runs: [u64; 2],
    worlds: [World; 2],
    paired: bool,
) -> BTreeMap<String, usize> {
    let mut shown = BTreeMap::new();
    // Consecutive seeds would not be independent.
    let mut seeds = Rng::with_seed(20_260_301);
    for seed in 0..pairs as u64 {
        let mut rng = Rng::with_seed(seeds.u64(..));
        let mut arms = Arms::new();
        if paired {
            arms = arms.pair_by("prompt");
        }
        for (arm, (runs, world)) in [Arm::Base, Arm::New]
            .into_iter()
            .zip(runs.into_iter().zip(worlds))
        {
            for number in 0..runs {
                let prompt = paired.then_some(seed * 1_000_003 + number);
                arms.add(arm, &run(world, prompt, &mut rng));
            }
        }
        for row in &arms.compare().groups[0].rows {
            let differs = !matches!(
                row.verdict,
                Verdict::NoEvidence | Verdict::TooFewRuns { .. }
            );
            *shown.entry(row.statistic.to_string()).or_default() += usize::from(differs);
        }
    }
    shown
}

/// Returns the maximum number of alarms in this many comparisons, with an allowance for chance if there are
/// few.
fn most(pairs: usize) -> usize {
    let (pairs, share) = (pairs as f64, MOST_ALARMS);
    let chance = if pairs < 1_000.0 {
        2.5 * (share * (1.0 - share) / pairs).sqrt()
    } else {
        0.0
    };
    (pairs * (share + chance)).floor() as usize
}

#[test]
fn equal_sets_rarely_seem_to_differ() {
    let pairs = pairs();
    let mut worst = Vec::new();
    let spreads = [
        Spread::LogNormal(0.4),
        Spread::LogNormal(1.0),
        Spread::LogNormal(1.5),
        Spread::Pareto(2.5),
        Spread::Pareto(1.2),
        Spread::Stepped,
    ];
    for runs in [[1_000, 1_000], [100, 100], [100, 1_000]] {
        for spread in spreads {
            // All of them take minutes.
            let is_quick = runs == [100, 100] && matches!(spread, Spread::LogNormal(_));
            if pairs < 1_000 && !is_quick {
                continue;
            }
            let infinite = matches!(spread, Spread::Pareto(alpha) if alpha < 2.0);
            let world = World { spread, ..PLAIN };
            let shown = shown(pairs, runs, [world, world], false);
            println!("{runs:?} {spread:?}: {shown:?}");
            for (statistic, count) in shown {
                // A mean without a variance has no interval if the sets have different sizes.
                let is_hopeless = infinite && runs[0] != runs[1] && statistic.starts_with("mean");
                if count > most(pairs) && !is_hopeless {
                    worst.push(format!(
                        "{runs:?} {spread:?} {statistic}: {count} of {pairs}"
                    ));
                }
            }
        }
    }
    assert!(worst.is_empty(), "{worst:#?}");
}

#[test]
fn equal_pairs_rarely_seem_to_differ() {
    let pairs = pairs();
    for (runs, spread) in [
        (100, Spread::LogNormal(0.1)),
        (100, Spread::LogNormal(1.0)),
        (1_000, Spread::LogNormal(0.1)),
    ] {
        if runs == 1_000 && pairs < 1_000 {
            continue;
        }
        let world = World { spread, ..PLAIN };
        let shown = shown(pairs, [runs; 2], [world; 2], true);
        println!("{runs} pairs {spread:?}: {shown:?}");
        for (statistic, count) in shown {
            assert!(
                count <= most(pairs),
                "{runs} {spread:?} {statistic}: {count} of {pairs}"
            );
        }
    }
}

#[test]
fn differences_are_found() {
    let comparisons = pairs();
    let comparisons = if comparisons < 1_000 {
        comparisons / 2
    } else {
        comparisons
    };
    for (factor, statistics) in [
        (1.10, ["p50(duration)", "p50(time_to_first_token)"]),
        (1.25, ["p95(duration)", "p95(time_to_first_token)"]),
    ] {
        let slower = World { factor, ..PLAIN };
        let found = shown(comparisons, [1_000; 2], [PLAIN, slower], false);
        for statistic in statistics {
            let found = found[statistic];
            println!("{statistic} times {factor}: found in {found} of {comparisons}");
            assert!(
                found * 10 >= comparisons * 9,
                "{statistic}: {found} of {comparisons}"
            );
        }
    }
}

#[test]
fn pairs_show_smaller_differences_than_sets() {
    let comparisons = pairs();
    let world = World {
        spread: Spread::LogNormal(0.1),
        ..PLAIN
    };
    let slower = World {
        factor: 1.05,
        ..world
    };
    let found = |paired| {
        let runs = [300; 2];
        let mut shown = BTreeMap::new();
        if paired {
            shown = self::shown(comparisons, runs, [world, slower], true);
        } else {
            // The same runs with different prompts.
            let spread = Spread::LogNormal(0.41);
            let worlds = [world, slower].map(|world| World { spread, ..world });
            shown.extend(self::shown(comparisons, runs, worlds, false));
        }
        shown
    };
    let (paired, unpaired) = (found(true), found(false));
    for statistic in ["mean(duration)", "p50(duration)", "p95(duration)"] {
        let (paired, unpaired) = (paired[statistic], unpaired[statistic]);
        println!("{statistic} 5 % slower: {paired} in pairs, {unpaired} without, of {comparisons}");
        assert!(paired > unpaired, "{statistic}: {paired} and {unpaired}");
    }
    assert!(
        paired["mean(duration)"] * 10 >= comparisons * 9,
        "{paired:?}"
    );
}
