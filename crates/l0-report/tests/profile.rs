//! Profiles: exact counts, accurate quantiles, constant memory, and the table.

use std::time::Duration;

use l0_core::{
    Cause, Distribution, End, ErrorRecord, NetworkErrorKind, Outcome, Quantity, QuantityKind,
    Telemetry,
};
use l0_report::{Profile, Stats};
use proptest::prelude::*;
use serde_json::{Value, json};

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

/// Returns the value at the nearest rank.
fn exact(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted[rank - 1]
}

/// Returns `true` if the estimate is within this share, allowing for the rounding to whole nanoseconds.
fn near(estimate: Option<f64>, exact: f64, share: f64) -> bool {
    estimate.is_some_and(|estimate| (estimate - exact).abs() <= exact * share + 1e-6)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn quantiles_have_the_documented_precision(
        // Every magnitude from a microsecond to some hours.
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
            prop_assert!(near(stats.sample("duration").quantile(q), duration, 0.001), "{q}: {duration}");
            prop_assert!(near(stats.sample("time_to_first_token").quantile(q), duration / 10.0, 0.001));
            prop_assert!(near(stats.sample("tokens.per_second").quantile(q), exact(&rates, q), 0.001));
            let gap = stats.sample("inter_token").quantile(q);
            // Below 256 ns, gaps have a resolution of 8 ns.
            prop_assert!(near(gap, duration / 100.0, 0.02) || duration < 0.03);
        }
        let mean = millis.iter().sum::<f64>() / millis.len() as f64;
        prop_assert!(near(stats.sample("duration").mean(), mean, 1e-6));
        prop_assert!(near(stats.sample("duration").max(), millis[millis.len() - 1], 1e-9));
        prop_assert_eq!(stats.sample("duration").count(), millis.len() as u64);
        prop_assert_eq!(stats.sample("duration").counts().map(|(_, count)| count).sum::<u64>(), stats.runs);
    }
}

#[test]
fn decimal_shares_select_the_expected_rank() {
    let mut profile = Profile::new();
    for number in 1..=100 {
        profile.add(&run("m", f64::from(number)));
    }
    let stats = all(&profile);
    for percent in 0..=100 {
        let q = f64::from(percent) / 100.0;
        let exact = f64::from(percent.max(1));
        let estimate = stats.sample("duration").quantile(q);
        assert!(near(estimate, exact, 0.001), "{q}: {estimate:?}");
    }
}

#[test]
fn small_numbers_keep_their_digits() {
    let mut profile = Profile::new();
    profile.add(&run("m", 0.004));
    let json = serde_json::to_value(&profile).expect("serializes");
    assert_eq!(json["all"]["timeToFirstToken"]["p50"], 0.0004);
    assert_eq!(json["all"]["interTokenTime"]["max"], 0.00004);
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
    let counts = |stats: &Stats, quantity| -> Vec<(String, u64)> {
        let counts = stats.counts(quantity).iter();
        counts
            .map(|(label, count)| (label.clone(), *count))
            .collect()
    };
    let expected = [("completed".to_owned(), 2), ("failed".to_owned(), 1)];
    assert_eq!(counts(a, "runs"), expected);
    assert!(b.counts("runs").is_empty());
    let sums = |stats: &Stats| stats.sum("network.errors");
    assert_eq!((sums(a), sums(b)), (Some(6.0), Some(1.0)));
    let expected = [
        ("connection_dropped".to_owned(), 3),
        ("timeout".to_owned(), 3),
    ];
    assert_eq!(counts(a, "network.errors_by_type"), expected);
    let retries = ["retries.total", "retries.network", "retries.model"];
    let retries = retries.map(|quantity| a.sum(quantity));
    assert_eq!(retries, [Some(5.0), Some(4.0), Some(1.0)]);
    let tokens = ["tokens.total", "tokens.wasted"].map(|quantity| a.sum(quantity));
    assert_eq!(tokens, [Some(450.0), Some(3.0)]);
    assert_eq!(a.sum("wait"), Some(3.0 * 1_490.0));
    // Unknown quantities, and names that do not exist.
    for quantity in ["guardrails.violations", "duration", "misspelled"] {
        assert_eq!(a.sum(quantity), None, "{quantity}");
    }
    for quantity in ["tokens.total", "misspelled"] {
        assert!(a.sample(quantity).is_empty() && a.counts(quantity).is_empty());
    }
    let durations = (a.sample("duration"), b.sample("duration"));
    assert_eq!((durations.0.count(), durations.1.count()), (3, 0));
    assert_eq!((durations.0.mean(), durations.1.mean()), (Some(30.0), None));
    assert_eq!(left.total().runs, 4);
}

/// A run that called `a`, was cut off, and got its answer from `b`.
fn fell_back() -> Telemetry {
    let mut telemetry = run("a", 100.0);
    telemetry.attempts[0].model = Some("a".to_owned());
    telemetry.attempts[0].fallbacks = 1;
    (telemetry.attempts[1].model, telemetry.attempts[1].source) = (Some("b".to_owned()), 2);
    telemetry
}

#[test]
fn measurements_of_attempts_belong_to_their_model() {
    let mut by_model = Profile::new().group_by("model");
    let mut by_endpoint = Profile::new().group_by("endpoint");
    for telemetry in [run("a", 10.0), fell_back(), fell_back()] {
        by_model.add(&telemetry);
        by_endpoint.add(&telemetry);
    }
    let attempts = |stats: &Stats| {
        let counts = stats.counts("attempts");
        let of = |result: &str| counts.get(result).copied().unwrap_or_default();
        (of("failed"), of("completed"))
    };
    let numbers = |profile: &Profile| -> Vec<_> {
        let groups = profile.groups().map(|(name, stats)| {
            let sum = |name| stats.sum(name).unwrap_or_default();
            let sums = ["tokens.total", "tokens.wasted", "fallbacks", "usage.output"].map(sum);
            let durations = stats.sample("duration").count();
            (
                name.to_owned(),
                stats.runs,
                attempts(stats),
                sums,
                durations,
            )
        });
        groups.collect()
    };
    let (a, b) = ("a".to_owned(), "b".to_owned());
    assert_eq!(
        numbers(&by_model),
        [
            (a, 1, (3, 1), [152.0, 3.0, 2.0, 160.0], 1),
            (b, 2, (0, 2), [298.0, 0.0, 0.0, 320.0], 2),
        ]
    );
    let chat = "/chat".to_owned();
    let all = (3, 3);
    assert_eq!(
        numbers(&by_endpoint),
        [(chat, 3, all, [450.0, 3.0, 2.0, 480.0], 3)]
    );
    let table = by_model.to_string();
    assert!(table.contains("\nb "), "{table}");
}

/// A record of a version that did not record attempts.
#[test]
fn a_record_without_attempts_belongs_to_its_own_model() {
    let mut telemetry = run("a", 10.0);
    telemetry.attempts.clear();
    let mut profile = Profile::new().group_by("model");
    profile.add(&telemetry);
    let groups: Vec<_> = profile.groups().collect();
    let [("a", stats)] = groups[..] else {
        panic!("{groups:?}");
    };
    assert_eq!((stats.runs, stats.sum("tokens.total")), (1, Some(150.0)));
    assert!(stats.counts("attempts").is_empty());
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
fn groups_beyond_the_limit_are_combined() {
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
fn overflow_saturates_and_non_numbers_are_ignored() {
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
    let json = serde_json::to_value(&stats).expect("serializes");
    assert_eq!([&json["tokens"], &json["networkErrors"]], [u64::MAX; 2]);
    assert_eq!(stats.sample("tokens.per_second").count(), 2);
    assert_eq!(stats.sample("tokens.per_second").quantile(0.0), Some(0.0));
    assert_eq!(stats.sample("tokens.per_second").max(), Some(f64::MAX));
    assert_eq!(stats.sample("duration").count(), 5);
    // The sum exceeds the range of exact sums.
    assert_eq!(stats.sample("tokens.per_second").mean(), None);
    assert!(profile.to_string().contains("1.80e308"));
    assert_eq!(stats.sample("duration").quantile(f64::NAN), None);
}

/// Returns a run that ended for this cause.
fn failed(model: &str, cause: Cause) -> Telemetry {
    let end = End::of(cause);
    let mut telemetry = run(model, 10.0);
    telemetry.outcome = Some(end.outcome());
    telemetry.error = ErrorRecord::of(&end);
    telemetry
}

fn with_reason(error_type: String, message: String) -> Telemetry {
    let mut telemetry = failed("m", Cause::ZeroOutput);
    let error = telemetry.error.as_mut().expect("failed");
    (error.error_type, error.message) = (error_type.into(), message);
    telemetry
}

fn reasons(stats: &Stats) -> Vec<(&str, &str, u64)> {
    let reasons = stats.reasons();
    let reasons = reasons.iter();
    let reasons = reasons.map(|reason| (reason.error_type, reason.message, reason.runs));
    reasons.collect()
}

#[test]
fn a_profile_has_failure_reasons() {
    let mut left = Profile::new().group_by("model");
    let mut right = left.clone();
    let truncated = failed("a", Cause::Truncated);
    left.add(&failed("a", Cause::ZeroOutput));
    left.add(&truncated);
    right.add(&truncated);
    right.add(&failed("b", Cause::ZeroOutput));
    // The first of these are not failures, and the last one has no recorded error.
    right.add(&failed("a", Cause::Aborted));
    right.add(&run("a", 10.0));
    let mut unknown = run("a", 10.0);
    unknown.outcome = Some(Outcome::Failed);
    right.add(&unknown);
    left.merge(&right);

    let (cut, empty) = (Cause::Truncated.to_string(), Cause::ZeroOutput.to_string());
    let groups: Vec<_> = left.groups().map(|(_, stats)| reasons(stats)).collect();
    let of_a = vec![("truncated", &*cut, 2), ("zero_output", &*empty, 1)];
    assert_eq!(groups, [of_a, vec![("zero_output", &empty, 1)]]);

    // Equal to the counts by type.
    let total = left.total();
    let by_type = total.counts("failures");
    assert_eq!(
        *by_type,
        [("truncated".to_owned(), 2), ("zero_output".to_owned(), 2)].into()
    );
    let json = serde_json::to_value(&left).expect("serializes");
    assert_eq!(
        json["b"]["reasons"],
        json!([{ "errorType": "zero_output", "message": empty, "runs": 1 }])
    );

    let table = left.to_string();
    let rows: Vec<_> = table
        .split("\n\n")
        .find(|block| block.starts_with("failures "))
        .expect("a block")
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let expected = [
        "failures runs reason".to_owned(),
        format!("a 2 truncated: {cut}"),
        format!("a 1 zero_output: {empty}"),
        format!("b 1 zero_output: {empty}"),
        format!("(all) 2 truncated: {cut}"),
        format!("(all) 2 zero_output: {empty}"),
    ];
    assert_eq!(rows, expected);

    let mut fine = Profile::new();
    fine.add(&run("a", 10.0));
    assert!(!fine.to_string().contains("failures"));
}

#[test]
fn a_reason_includes_its_status() {
    let mut profile = Profile::new();
    let mut denied = with_reason("401".to_owned(), "status 401 Unauthorized".to_owned());
    denied.error.as_mut().expect("failed").status = Some(401);
    profile.add(&denied);
    let total = profile.total();
    assert_eq!(total.reasons()[0].status, Some(401));
    assert!(
        profile
            .to_string()
            .contains("  401: status 401 Unauthorized")
    );
}

#[test]
fn further_reasons_and_labels_are_combined() {
    let mut profile = Profile::new();
    for number in 0..1_000 {
        let long = format!("{number} \u{1b}[2J{}", "x".repeat(10_000));
        profile.add(&with_reason(format!("type_{number}"), long));
    }
    profile.add(&with_reason("type_0".to_owned(), "0".to_owned()));
    for _ in 0..3 {
        let again = with_reason(
            "type_1".to_owned(),
            format!("1 \u{1b}[2J{}", "x".repeat(10_000)),
        );
        profile.add(&again);
    }
    let total = profile.total();
    let reasons = reasons(&total);
    assert_eq!(reasons.len(), Stats::MAX_REASONS + 1);
    let others = 1_001 - Stats::MAX_REASONS as u64;
    assert_eq!(reasons[0], ("other", "other", others));
    assert_eq!((reasons[1].0, reasons[1].2), ("type_1", 4));
    assert!(reasons.iter().all(|(_, message, _)| message.len() <= 200));
    assert_eq!(total.counts("failures").len(), Stats::MAX_LABELS + 1);
    assert_eq!(total.counts("failures").values().sum::<u64>(), 1_004);

    let table = profile.to_string();
    assert!(!table.contains('\u{1b}'));
    assert!(table.contains("  23 other reasons\n"), "{table}");
    // As one reason, and not one for each merged part.
    let mut twice = profile.clone();
    twice.merge(&profile);
    let twice = twice.total();
    assert_eq!(twice.reasons().len(), Stats::MAX_REASONS + 1);
    assert_eq!(twice.reasons()[0].runs, 2 * others);
}

#[test]
fn every_known_quantity_is_in_every_format() {
    let mut telemetry = failed("m", Cause::ZeroOutput);
    telemetry.network.errors_by_type = [(NetworkErrorKind::Timeout, 1)].into();
    let mut profile = Profile::new();
    profile.add(&telemetry);
    let json = serde_json::to_value(all(&profile)).expect("serializes");
    let table = profile.to_string();
    // Runs, start and end, reasons, runs by outcome, and their durations.
    let mut known = 6;
    let is_known = |quantity: &Quantity| {
        let mut values = 0;
        quantity.values(&telemetry, &mut |_| values += 1);
        values > 0
    };
    for quantity in Quantity::ALL {
        let stats = all(&profile);
        match (is_known(quantity), quantity.kind) {
            (true, QuantityKind::Sum) => {
                known += 1;
                assert!(stats.sum(quantity.name).is_some(), "{quantity:?}");
            }
            (true, _) => {
                known += 1;
                assert!(!stats.sample(quantity.name).is_empty(), "{quantity:?}");
            }
            (false, _) if quantity.name != "runs" => {
                let counts = stats.counts(quantity.name);
                known += usize::from(!counts.is_empty());
            }
            (false, _) => {}
        }
    }
    assert_eq!(json.as_object().expect("a map").len(), known, "{json}");
    let blocks = table.matches("mean").count();
    let samples = Quantity::ALL
        .iter()
        .filter(|quantity| is_known(quantity) && quantity.kind != QuantityKind::Sum);
    assert_eq!(blocks, samples.count(), "{table}");
}

#[test]
fn the_table_is_aligned() {
    let mut profile = Profile::new().group_by("model");
    profile.add(&run("gpt-4", 1_000.0));
    profile.add(&run("gpt-4", 2_000.0));
    let mut cut = failed("模型", Cause::Truncated);
    cut.duration = Some(Duration::from_secs(4));
    cut.metrics.time_to_first_token = None;
    profile.add(&cut);
    profile.add(&run("\u{1b}[2J\n=1", 100.0));
    let table = profile.to_string();
    assert!(!table.contains('\u{1b}'));

    // The width of a column depends on the quantities.
    let collapsed = |block: &str| -> Vec<String> {
        let lines = block.trim().lines();
        let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        words.collect()
    };
    let blocks: Vec<_> = table.split("\n\n").collect();
    let shown: Vec<_> = blocks.iter().map(|block| collapsed(block)).collect();
    for expected in [
        "
                            runs  completed  truncated
\\u{1b}[2J\\n=1                  1          1          0
gpt-4                          2          2          0
模型                           1          0          1
(all)                          4          3          1",
        "
failures                    runs  reason
模型                           1  truncated: the stream ended without a finish reason
(all)                          1  truncated: the stream ended without a finish reason",
        "
duration, ms                mean      p50      p95      p99      max        100          4000 ms
\\u{1b}[2J\\n=1                100      100      100      100      100  █
gpt-4                       1500     1000     2000     2000     2000              █   █
模型                        4000     4000     4000     4000     4000                     █
(all)                       1775     1000     4000     4000     4000  █           █   █  █",
        "
time to first token, ms     mean      p50      p95      p99      max         10.0          200 ms
\\u{1b}[2J\\n=1               10.0     10.0     10.0     10.0     10.0  █
gpt-4                        150      100      200      200      200                 █   █
模型                           -        -        -        -        -
(all)                        103      100      200      200      200  █              █   █",
    ] {
        assert!(
            shown.contains(&collapsed(expected)),
            "{expected}\n\n{table}"
        );
    }

    // Sums are in blocks of limited width, without those that are zero.
    let totals = shown.iter().filter(|block| block[0].starts_with("totals"));
    let totals: Vec<_> = totals.map(|block| block[0].as_str()).collect();
    assert!(totals[0].starts_with("totals tokens retries network retries network errors"));
    assert!(totals.concat().contains("wait, ms"));
    assert!(
        totals
            .iter()
            .all(|heading| !heading.contains("model retries"))
    );

    // Each line of a block is as wide as its heading, unless it ends in text or in a shape, whose last
    // bars may be empty.
    for block in blocks {
        let widths: Vec<_> = block
            .lines()
            .map(unicode_width::UnicodeWidthStr::width)
            .collect();
        let text = block.starts_with("failures ");
        let shape = block.contains("mean");
        let fits = |width: &usize| *width == widths[0] || shape && *width < widths[0];
        assert!(text || widths.iter().all(fits), "{block}");
        assert!(block.lines().all(|line| line == line.trim_end()), "{block}");
        assert!(widths[0] <= 120, "{block}");
    }
}

#[test]
fn the_json_form_is_plain() {
    let mut profile = Profile::new();
    profile.add(&run("m", 1_000.0));
    let json = serde_json::to_value(&profile).expect("serializes");
    let one = |number: f64| {
        json!({
            "count": 1, "mean": number, "p50": number, "p95": number, "p99": number,
            "max": number,
        })
    };
    for (key, expected) in [
        ("runs", json!(1)),
        ("outcomes", json!({ "completed": 1 })),
        ("networkErrors", json!(1)),
        ("errorsByType", json!({ "connection_dropped": 1 })),
        ("retries", json!(1)),
        ("networkRetries", json!(1)),
        ("modelRetries", json!(0)),
        ("tokens", json!(150)),
        ("wastedTokens", json!(1)),
        ("inputTokens", json!(12)),
        ("wait", json!(1490.0)),
        ("duration", one(1000.0)),
        ("timeToFirstToken", one(100.0)),
        ("timeToFirstText", one(250.0)),
        ("interTokenTime", one(10.0)),
        ("tokensPerSecond", one(100.0)),
        ("failures", json!({})),
        ("reasons", json!([])),
        // Unknown quantities.
        ("violations", Value::Null),
        ("reasoningTokens", Value::Null),
    ] {
        assert_eq!(json["all"][key], expected, "{key}");
    }
    let empty = serde_json::to_value(Stats::default()).expect("serializes");
    assert_eq!(empty, json!({ "runs": 0, "reasons": [] }));
}
