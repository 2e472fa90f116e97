//! Profiles: exact counts, quantiles near the exact ones, constant memory, and the table.

use std::time::Duration;

use l0_core::{Distribution, NetworkErrorKind, Outcome, Telemetry};
use l0_export::profile::{Profile, Stats};
use proptest::prelude::*;
use serde_json::json;

fn run(model: &str, millis: f64) -> Telemetry {
    let duration = Duration::from_secs_f64(millis / 1e3);
    let mut telemetry = Telemetry::example();
    telemetry.duration = Some(duration);
    telemetry.metrics.time_to_first_token = Some(duration / 10);
    let mut gaps = Distribution::new();
    gaps.record(duration / 100);
    telemetry.metrics.inter_token = Some(gaps);
    telemetry.metrics.tokens_per_second = Some(1e5 / millis);
    telemetry.metadata.insert("model".to_owned(), model.into());
    telemetry
}

fn all(profile: &Profile) -> Stats {
    profile.total()
}

/// The value at the nearest rank.
fn exact(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted[rank - 1]
}

/// What is left of the accuracy once values are cut to whole nanoseconds and millionths.
fn near(estimate: Option<f64>, exact: f64, share: f64) -> bool {
    estimate.is_some_and(|estimate| (estimate - exact).abs() <= exact * share + 1e-6)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn quantiles_are_within_one_percent_and_those_of_gaps_within_two(
        // Of every magnitude from a microsecond to some hours.
        mut millis in prop::collection::vec((-3.0..7.0_f64).prop_map(|log| 10_f64.powf(log)), 1..400),
        split in any::<prop::sample::Index>(),
    ) {
        let (left, right) = millis.split_at(split.index(millis.len()));
        let mut profile = Profile::new();
        left.iter().for_each(|millis| profile.add(&run("m", *millis)));
        let mut other = Profile::new();
        right.iter().for_each(|millis| other.add(&run("m", *millis)));
        profile.merge(&other);
        let stats = all(&profile);

        millis.sort_by(f64::total_cmp);
        let rates: Vec<_> = millis.iter().rev().map(|millis| 1e5 / millis).collect();
        for q in [0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0] {
            let duration = exact(&millis, q);
            prop_assert!(near(stats.duration.quantile(q), duration, 0.01), "{q}: {duration}");
            prop_assert!(near(stats.time_to_first_token.quantile(q), duration / 10.0, 0.01));
            prop_assert!(near(stats.tokens_per_second.quantile(q), exact(&rates, q), 0.01));
            let gap = stats.inter_token.quantile(q).map(|gap| gap.as_secs_f64() * 1e3);
            // Below 256 ns, gaps are told apart by 8 ns.
            prop_assert!(near(gap, duration / 100.0, 0.02) || duration < 0.03);
        }
        let mean = millis.iter().sum::<f64>() / millis.len() as f64;
        prop_assert!(near(stats.duration.mean(), mean, 1e-6));
        prop_assert!(near(stats.duration.max(), millis[millis.len() - 1], 1e-9));
        prop_assert_eq!(stats.duration.count(), millis.len() as u64);
        prop_assert_eq!(stats.duration.counts().map(|(_, count)| count).sum::<u64>(), stats.runs);
    }
}

#[test]
fn decimal_shares_are_what_they_are_meant_to_be() {
    let mut profile = Profile::new();
    for number in 1..=100 {
        profile.add(&run("m", f64::from(number)));
    }
    let stats = all(&profile);
    for percent in 0..=100 {
        let q = f64::from(percent) / 100.0;
        let exact = f64::from(percent.max(1));
        let estimate = stats.duration.quantile(q);
        assert!(near(estimate, exact, 0.01), "{q}: {estimate:?}");
    }
}

#[test]
fn small_numbers_keep_their_digits() {
    let mut profile = Profile::new();
    profile.add(&run("m", 0.004));
    let json = serde_json::to_value(&profile).expect("serializes");
    assert_eq!(json["all"]["timeToFirstToken"]["p50"], 0.0004);
    assert_eq!(json["all"]["interToken"]["max"], 0.00004);
    let table = profile.to_string();
    for number in ["0.00400", "0.000400", "0.000040", "25000000"] {
        assert!(table.contains(number), "{table}");
    }
}

#[test]
fn counts_are_exact_and_merge() {
    let mut failed = run("a", 10.0);
    failed.outcome = Some(Outcome::Failed);
    failed.network.error_count = 4;
    failed.network.errors_by_type = [
        (NetworkErrorKind::Timeout, 3),
        (NetworkErrorKind::ConnectionDropped, 1),
    ]
    .into();
    failed.metrics.total_retries = 3;
    (failed.metrics.network_retries, failed.metrics.model_retries) = (2, 1);
    let mut live = run("b", 20.0);
    (live.outcome, live.duration) = (None, None);

    let mut left = Profile::new().group_by("model");
    left.add(&run("a", 30.0));
    left.add(&failed);
    let mut right = Profile::new().group_by("model");
    right.add(&run("a", 50.0));
    right.add(&live);
    left.merge(&right);

    let groups: Vec<_> = left.groups().collect();
    let [("a", a), ("b", b)] = groups[..] else {
        panic!("{groups:?}");
    };
    assert_eq!((a.runs, b.runs), (3, 1));
    assert_eq!(
        a.outcomes,
        [(Outcome::Completed, 2), (Outcome::Failed, 1)].into()
    );
    assert!(b.outcomes.is_empty());
    assert_eq!((a.network_errors, b.network_errors), (6, 1));
    assert_eq!(
        a.errors_by_type,
        [
            (NetworkErrorKind::ConnectionDropped, 3),
            (NetworkErrorKind::Timeout, 3)
        ]
        .into()
    );
    assert_eq!((a.retries, a.network_retries, a.model_retries), (5, 4, 1));
    assert_eq!((a.tokens, a.wasted_tokens), (450, 3));
    assert_eq!((a.duration.count(), b.duration.count()), (3, 0));
    assert_eq!((a.duration.mean(), b.duration.mean()), (Some(30.0), None));
    assert_eq!(left.total().runs, 4);
}

#[test]
fn runs_are_grouped_by_a_metadata_entry() {
    let mut profile = Profile::new().group_by("arm");
    for value in [
        json!("A"),
        json!("A"),
        json!(2),
        json!(true),
        json!(null),
        json!({ "x": 1 }),
    ] {
        let mut telemetry = run("m", 10.0);
        telemetry.metadata.insert("arm".to_owned(), value);
        profile.add(&telemetry);
    }
    profile.add(&run("m", 10.0));
    let groups: Vec<_> = profile
        .groups()
        .map(|(name, stats)| (name, stats.runs))
        .collect();
    assert_eq!(
        groups,
        [
            ("(none)", 2),
            ("2", 1),
            ("A", 2),
            ("true", 1),
            ("{\"x\":1}", 1)
        ]
    );

    let mut one = Profile::new();
    one.add(&run("m", 10.0));
    let groups: Vec<_> = one
        .groups()
        .map(|(name, stats)| (name, stats.runs))
        .collect();
    assert_eq!(groups, [(Profile::ALL, 1)]);
}

#[test]
fn groups_beyond_the_limit_are_one() {
    let mut profile = Profile::new().group_by("model");
    for number in 0..10_000 {
        profile.add(&run(&format!("model {number}"), 10.0));
    }
    profile.add(&run("model 0", 10.0));
    assert_eq!(profile.groups().len(), Profile::MAX_GROUPS + 1);
    let runs = |group| {
        profile
            .groups()
            .find(|(name, _)| *name == group)
            .map(|(_, s)| s.runs)
    };
    assert_eq!(runs("model 0"), Some(2));
    assert_eq!(
        runs(Profile::OTHER),
        Some(10_000 - Profile::MAX_GROUPS as u64)
    );
    assert_eq!(profile.total().runs, 10_001);

    let mut profile = Profile::new().group_by("model");
    profile.add(&run(&"ü".repeat(1_000_000), 10.0));
    let (name, _) = profile.groups().next().expect("a group");
    assert_eq!(name, "ü".repeat(Profile::MAX_NAME / 2));
}

#[test]
fn what_does_not_fit_saturates_and_what_is_no_number_is_left_out() {
    let mut hostile = Telemetry::example();
    hostile.duration = Some(Duration::MAX);
    hostile.metrics.tokens_per_second = Some(f64::NAN);
    hostile.metrics.total_tokens = u64::MAX;
    hostile.network.error_count = u64::MAX;
    let mut profile = Profile::new();
    for rate in [f64::NAN, f64::INFINITY, -1.0, 0.0, f64::MAX] {
        hostile.metrics.tokens_per_second = Some(rate);
        profile.add(&hostile);
    }
    let stats = all(&profile);
    assert_eq!((stats.tokens, stats.network_errors), (u64::MAX, u64::MAX));
    assert_eq!(stats.tokens_per_second.count(), 2);
    assert_eq!(stats.tokens_per_second.quantile(0.0), Some(0.0));
    assert_eq!(stats.tokens_per_second.max(), Some(f64::MAX));
    assert_eq!(stats.duration.count(), 5);
    assert_eq!(stats.tokens_per_second.mean(), Some(f64::MAX / 2.0));
    assert!(profile.to_string().contains("1.80e308"));
    profile.add(&hostile);
    assert_eq!(all(&profile).tokens_per_second.mean(), None);
    assert_eq!(stats.duration.quantile(f64::NAN), None);
}

#[test]
fn the_table_is_aligned() {
    let mut profile = Profile::new().group_by("model");
    profile.add(&run("gpt-4", 1_000.0));
    profile.add(&run("gpt-4", 2_000.0));
    let mut failed = run("模型", 4_000.0);
    failed.outcome = Some(Outcome::Failed);
    failed.metrics.time_to_first_token = None;
    profile.add(&failed);
    profile.add(&run("\u{1b}[2J\n=1", 100.0));
    let expected = "
                            runs  completed   failed  network errors  retries  violations   tokens
\\u{1b}[2J\\n=1                  1          1        0               1        1           0      150
gpt-4                          2          2        0               2        2           0      300
模型                           1          0        1               1        1           0      150
(all)                          4          3        1               4        4           0      600

duration, ms                mean      p50      p95      p99      max           100 to 4000
\\u{1b}[2J\\n=1                100      100      100      100      100  █                   
gpt-4                       1500     1000     2000     2000     2000              █   █   
模型                        4000     4000     4000     4000     4000                     █
(all)                       1775     1000     4000     4000     4000  █           █   █  █

time to first token, ms     mean      p50      p95      p99      max           10.0 to 200
";
    let table = profile.to_string();
    assert!(table.starts_with(expected[1..].trim_end()), "{table}");
    assert!(!table.contains('\u{1b}'));
    // Each line of a block is as wide as its heading.
    for block in table.split("\n\n") {
        let widths: Vec<_> = block
            .lines()
            .map(unicode_width::UnicodeWidthStr::width)
            .collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{block}");
    }
    let mut lines = table.lines().map(str::split_whitespace);
    assert!(lines.any(|line| line.eq(["模型", "-", "-", "-", "-", "-"])));
}

#[test]
fn the_json_form_is_plain() {
    let mut profile = Profile::new();
    profile.add(&run("m", 1_000.0));
    assert_eq!(
        serde_json::to_value(&profile).expect("serializes"),
        json!({ "all": {
            "runs": 1,
            "outcomes": { "completed": 1 },
            "networkErrors": 1,
            "errorsByType": { "connection_dropped": 1 },
            "retries": 1, "networkRetries": 1, "modelRetries": 0,
            "violations": 0,
            "tokens": 150, "wastedTokens": 1,
            "duration": {
                "count": 1, "mean": 1000.0, "p50": 1000.0, "p95": 1000.0, "p99": 1000.0,
                "max": 1000.0,
            },
            "timeToFirstToken": {
                "count": 1, "mean": 100.0, "p50": 100.0, "p95": 100.0, "p99": 100.0,
                "max": 100.0,
            },
            "interToken": {
                "count": 1, "mean": 10.0, "p50": 10.0, "p95": 10.0, "p99": 10.0, "max": 10.0,
            },
            "tokensPerSecond": {
                "count": 1, "mean": 100.0, "p50": 100.0, "p95": 100.0, "p99": 100.0,
                "max": 100.0,
            },
        }})
    );
    let empty = serde_json::to_value(Stats::default()).expect("serializes");
    assert_eq!(empty["duration"], json!({ "count": 0 }));
    assert_eq!(empty["interToken"], json!({ "count": 0 }));
}
