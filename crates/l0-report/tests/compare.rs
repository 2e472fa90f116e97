//! Comparisons, in the library and with the program.

mod common;

use std::time::Duration;

use l0_core::{Cost, CostSource, Currency, Money, Outcome, Telemetry};
use l0_report::compare::{Arm, Arms, CheckOutcome, Confidence, Verdict};

/// Returns a run of this duration, failed or completed.
fn run(millis: u64, failed: bool) -> Telemetry {
    let mut run = Telemetry::default();
    run.session_id = "l0_1".to_owned();
    let duration = Duration::from_millis(millis);
    (run.duration, run.metrics.time_to_first_token) = (Some(duration), Some(duration / 4));
    let outcome = if failed {
        Outcome::Failed
    } else {
        Outcome::Completed
    };
    run.outcome = Some(outcome);
    run.metrics.total_tokens = millis / 10;
    run
}

/// Returns runs of different durations, the first of them failed.
fn runs(count: u64, slower: f64, failed: u64) -> Vec<Telemetry> {
    let run = |number: u64| {
        let millis = 1_000.0 + (number * 7_919 % 1_000) as f64;
        run((millis * slower) as u64, number < failed)
    };
    (0..count).map(run).collect()
}

fn with(runs: &[Telemetry], key: &str, value: &str) -> Vec<Telemetry> {
    let mut runs = runs.to_vec();
    for run in &mut runs {
        run.metadata.insert(key.to_owned(), value.into());
    }
    runs
}

fn arms(arms: Arms, base: &[Telemetry], new: &[Telemetry]) -> Arms {
    let mut arms = arms;
    base.iter().for_each(|run| arms.add(Arm::Base, run));
    new.iter().for_each(|run| arms.add(Arm::New, run));
    arms
}

fn verdict(arms: &Arms, statistic: &str) -> Verdict {
    let comparison = arms.compare();
    let mut rows = comparison.groups[0].rows.iter();
    let row = rows.find(|row| row.statistic.to_string() == statistic);
    row.unwrap_or_else(|| panic!("no {statistic}")).verdict
}

#[test]
fn a_verdict_states_the_better_set() {
    let slow = arms(Arms::new(), &runs(200, 1.0, 0), &runs(200, 1.3, 60));
    let fast = arms(Arms::new(), &runs(200, 1.3, 60), &runs(200, 1.0, 0));
    for (statistic, slower, faster) in [
        ("p50(duration)", Verdict::Worse, Verdict::Better),
        ("p95(duration)", Verdict::Worse, Verdict::Better),
        ("mean(time_to_first_token)", Verdict::Worse, Verdict::Better),
        ("share(failures)", Verdict::Worse, Verdict::Better),
        ("mean(tokens.total)", Verdict::Differs, Verdict::Differs),
    ] {
        assert_eq!(verdict(&slow, statistic), slower, "{statistic}");
        assert_eq!(verdict(&fast, statistic), faster, "{statistic}");
    }
    let same = arms(Arms::new(), &runs(200, 1.0, 5), &runs(200, 1.0, 5));
    for row in &same.compare().groups[0].rows {
        assert_eq!(row.verdict, Verdict::NoEvidence, "{}", row.statistic);
    }
}

#[test]
fn runs_that_fail_at_once_are_not_fast_runs() {
    let mut broken = runs(200, 1.0, 100);
    for run in &mut broken[..100] {
        run.duration = Some(Duration::from_millis(1));
    }
    let arms = arms(Arms::new(), &runs(200, 1.0, 0), &broken);
    assert_eq!(verdict(&arms, "p50(duration)"), Verdict::NoEvidence);
    assert_eq!(verdict(&arms, "share(failures)"), Verdict::Worse);
}

#[test]
fn few_runs_have_no_verdict() {
    for (runs_of_each, statistic, least) in [
        (29, "p50(duration)", Some(30)),
        (30, "p50(duration)", None),
        (29, "share(failures)", Some(30)),
        (71, "p95(duration)", Some(72)),
        (72, "p95(duration)", None),
        (367, "p99(duration)", Some(368)),
        (368, "p99(duration)", None),
    ] {
        let statistic = format!("{statistic} > +10%");
        let threshold = statistic.parse().expect("a threshold");
        let (base, new) = (runs(runs_of_each, 1.0, 0), runs(1_000, 3.0, 0));
        let arms = arms(Arms::new().fail_if(threshold), &base, &new);
        let outcome = arms.compare().checks[0].outcome;
        match (outcome, least) {
            (CheckOutcome::TooFewRuns { least, .. }, Some(expected)) => {
                assert_eq!(least, expected, "{statistic} of {runs_of_each}");
            }
            (CheckOutcome::Crossed, None) => {}
            (outcome, _) => panic!("{statistic} of {runs_of_each}: {outcome}"),
        }
    }
}

#[test]
fn a_threshold_is_crossed_if_the_whole_interval_is_beyond_it() {
    let (base, new) = (runs(1_000, 1.0, 10), runs(1_000, 1.2, 100));
    for (threshold, expected) in [
        ("p50(duration) > +10%", CheckOutcome::Crossed),
        ("p50(duration) > +0%", CheckOutcome::Crossed),
        ("p50(duration) > +19%", CheckOutcome::NotCrossed),
        ("p50(duration) > +100ms", CheckOutcome::Crossed),
        ("p50(duration) > +0.4s", CheckOutcome::NotCrossed),
        ("p50(duration) < -10%", CheckOutcome::NotCrossed),
        ("share(failures) > +2pp", CheckOutcome::Crossed),
        ("share(failures) > +9pp", CheckOutcome::NotCrossed),
        ("share(outcome=completed) < -5pp", CheckOutcome::Crossed),
        ("mean(tokens.per_second) < -5%", CheckOutcome::Unknown),
        ("mean(retries.total) > +10%", CheckOutcome::ZeroBase),
        ("mean(retries.total) > +0.1", CheckOutcome::NotCrossed),
    ] {
        let arms = Arms::new().fail_if(threshold.parse().expect(threshold));
        let comparison = self::arms(arms, &base, &new).compare();
        assert_eq!(comparison.checks[0].outcome, expected, "{threshold}");
        assert_eq!(
            comparison.is_crossed(),
            expected == CheckOutcome::Crossed,
            "{threshold}"
        );
    }
}

#[test]
fn an_event_without_occurrences_has_an_interval() {
    // 0 of 100 against 3 of 100: a share of 3 % gives 0 of 100 in 5 % of cases.
    let mut new = runs(100, 1.0, 0);
    for run in &mut new[..3] {
        run.metrics.total_retries = 1;
    }
    let arms = arms(Arms::new(), &runs(100, 1.0, 0), &new);
    assert_eq!(verdict(&arms, "mean(retries.total)"), Verdict::NoEvidence);
}

#[test]
fn an_interval_is_not_wider_for_larger_differences() {
    let later = |by: u64| -> Vec<_> {
        let mut new = runs(300, 1.0, 0);
        for run in &mut new {
            let duration = run.duration.unwrap_or_default() + Duration::from_millis(by);
            run.duration = Some(duration);
        }
        new
    };
    let widths = [0, 100, 1_000, 10_000].map(|by| {
        let comparison = arms(Arms::new(), &runs(100, 1.0, 0), &later(by)).compare();
        let rows = comparison.groups[0].rows.iter();
        let rows = rows.filter(|row| row.statistic.to_string().ends_with("(duration)"));
        let widths = rows.map(|row| row.difference.map_or(0.0, |of| of.upper - of.lower));
        widths.collect::<Vec<_>>()
    });
    for others in &widths {
        let both = widths[0].iter().zip(others);
        assert_eq!(both.clone().count(), 3);
        // Cells are wider there.
        assert!(
            both.into_iter()
                .all(|(one, other)| (one - other).abs() < 2.0),
            "{widths:?}"
        );
    }
}

#[test]
fn more_confidence_is_a_wider_interval() {
    let width = |percent: f64| {
        let confidence = Confidence::percent(percent).expect("a confidence");
        let arms = Arms::new().confidence(confidence);
        let comparison = self::arms(arms, &runs(200, 1.0, 9), &runs(200, 1.0, 9)).compare();
        let rows = comparison.groups[0].rows.iter();
        rows.map(|row| row.difference.map_or(0.0, |of| of.upper - of.lower))
            .collect::<Vec<_>>()
    };
    let widths = [80.0, 95.0, 99.9].map(width);
    for pair in widths.windows(2) {
        assert!(
            pair[0]
                .iter()
                .zip(&pair[1])
                .all(|(narrow, wide)| narrow < wide),
            "{widths:?}"
        );
    }
    assert_eq!(Confidence::percent(f64::NAN), None);
}

#[test]
fn each_currency_is_compared_separately() {
    let priced = |millis: u64, currency| {
        let mut run = run(millis, false);
        let amount = Money::micros(millis);
        run.cost = Some(Cost::new(amount, currency, CostSource::Provider));
        run
    };
    let euro = "EUR".parse().expect("a currency");
    let usd: Vec<_> = (1_000..1_100).map(|n| priced(n, Currency::USD)).collect();
    let eur: Vec<_> = (3_000..3_100).map(|n| priced(n, euro)).collect();
    let with_threshold =
        |arms: Arms| arms.fail_if("mean(cost) > +10%".parse().expect("a threshold"));

    let one = arms(with_threshold(Arms::new()), &usd, &usd).compare();
    assert_eq!(one.checks[0].outcome, CheckOutcome::NotCrossed);
    let both = [usd.clone(), eur].concat();
    let two = arms(with_threshold(Arms::new()), &both, &both).compare();
    assert_eq!(two.checks[0].outcome, CheckOutcome::Unknown);
    let rows = two.groups[0]
        .rows
        .iter()
        .map(|row| row.statistic.to_string());
    let rows: Vec<_> = rows.filter(|row| row.contains("cost")).collect();
    assert_eq!(rows, ["mean(cost)", "mean(cost=EUR)", "mean(cost=USD)"]);
}

#[test]
fn pairs_are_counted_and_compared() {
    let prompts = |runs: Vec<Telemetry>, first: u64| {
        let prompts = runs.into_iter().zip(first..).map(|(mut run, prompt)| {
            run.metadata.insert("prompt".to_owned(), prompt.into());
            run
        });
        prompts.collect::<Vec<_>>()
    };
    let base = prompts(runs(120, 1.0, 0), 0);
    let mut new = prompts(runs(120, 1.0, 0), 0);
    for run in &mut new {
        // Each run takes slightly longer, which is small compared with their differences.
        run.duration = run
            .duration
            .map(|duration| duration + Duration::from_millis(20));
    }
    new.rotate_left(50);
    new.push(new[0].clone());
    new.extend(prompts(runs(5, 1.0, 0), 1_000));
    new.push(run(1, false));

    let paired = arms(Arms::new().pair_by("prompt"), &base, &new);
    let counts = paired.compare().groups[0].pairs.expect("pairs");
    let counted = (
        counts.pairs,
        counts.alone,
        counts.repeated,
        counts.without_key,
    );
    assert_eq!(counted, (120, 5, 1, 1));
    assert_eq!(verdict(&paired, "mean(duration)"), Verdict::Worse);
    let unpaired = arms(Arms::new(), &base, &new);
    assert_eq!(verdict(&unpaired, "mean(duration)"), Verdict::NoEvidence);
}

#[test]
fn groups_are_compared_separately() {
    let base = [
        with(&runs(100, 1.0, 0), "model", "a"),
        with(&runs(100, 1.0, 0), "model", "b"),
    ];
    let new = [
        with(&runs(100, 1.0, 0), "model", "a"),
        with(&runs(100, 2.0, 0), "model", "b"),
        with(&runs(100, 2.0, 0), "model", "c"),
    ];
    let threshold = "p50(duration) > +10%".parse().expect("a threshold");
    let arms = arms(
        Arms::new().group_by("model").fail_if(threshold),
        &base.concat(),
        &new.concat(),
    );
    let comparison = arms.compare();
    let outcomes = comparison.checks.iter().map(|check| check.outcome);
    let outcomes: Vec<_> = outcomes.collect();
    assert_eq!(
        outcomes[..2],
        [CheckOutcome::NotCrossed, CheckOutcome::Crossed]
    );
    assert!(matches!(outcomes[2], CheckOutcome::TooFewRuns { .. }));
}

// === the program ===

#[cfg(feature = "cli")]
mod program {
    use std::fs;

    use l0_export::json::write_line;

    use super::*;
    use crate::common::{Ran, Scratch};

    fn scratch(name: &str, runs: &[Telemetry]) -> Scratch {
        let mut lines = Vec::new();
        for run in runs {
            write_line(&mut lines, run).expect("a line");
        }
        Scratch::new(&format!("compare-{name}"), &lines)
    }

    fn compare(arguments: &[&str]) -> Ran {
        let all: Vec<_> = ["compare"].iter().chain(arguments).copied().collect();
        common::run(&all, b"")
    }

    #[test]
    fn the_exit_code_shows_if_a_condition_holds() {
        let base = scratch("code-base", &runs(100, 1.0, 0));
        let new = scratch("code-new", &runs(100, 1.5, 0));
        let (base, new) = (base.path(), new.path());
        for (arguments, code, message) in [
            (&[base, new][..], 0, ""),
            (&[base, base, "--fail-if", "p50(duration) > +10%"], 0, ""),
            (&[base, new, "--fail-if", "p50(duration) > +10%"], 1, ""),
            (&[base, new, "--fail-if", "p50(duration) > +90%"], 0, ""),
            (
                &[
                    base,
                    new,
                    "--fail-if",
                    "p50(duration) > +90%",
                    "--fail-if",
                    "p95(duration)>+10%",
                ],
                1,
                "",
            ),
            (
                &[base, new, "--fail-if", "p99(duration) > +10%"],
                4,
                "needs 368 in each set",
            ),
            (
                &[
                    base,
                    new,
                    "--pair-by",
                    "missing",
                    "--fail-if",
                    "p50(duration) > +10%",
                ],
                4,
                "no run has a single value of it",
            ),
            (
                &[base, new, "--fail-if", "p50(speed) > +10%"],
                2,
                "unknown quantity `speed` in `p50(speed)`",
            ),
            (
                &[base, new, "--fail-if", "p50(duration) > 10%"],
                2,
                "with the sign",
            ),
            (&[base, new, "--confidence", "12"], 2, "from 50 to 99.99"),
            (&[base], 2, "two inputs"),
            (&[base, new, new], 2, "two inputs"),
            (&["-", "-"], 2, "standard input"),
            (&[base, "/nowhere/new.jsonl"], 2, "/nowhere/new.jsonl"),
            (&[base, new, "--where", "tenant=acme"], 2, "no run in"),
            (&[base, "--arms", "variant=a,b"], 2, "no run has variant=a"),
            (&[base, "--arms", "variant=a"], 2, "two values"),
        ] {
            let Ran {
                code: got,
                out,
                err,
            } = compare(arguments);
            assert_eq!(got, code, "{arguments:?}: {out}{err}");
            assert!(err.contains(message), "{arguments:?}: {err}");
            assert_eq!(out.is_empty(), code == 2, "{arguments:?}: {out}");
        }
    }

    #[test]
    fn two_values_of_an_entry_are_the_arms_of_one_file() {
        let variants = [
            with(&runs(100, 1.0, 0), "variant", "a"),
            with(&runs(100, 0.7, 0), "variant", "b"),
            with(&runs(7, 9.0, 0), "variant", "c"),
        ];
        let all = scratch("arms", &variants.concat());
        let Ran { code, out, err } =
            compare(&["--arms", "variant=a,b", all.path(), "--format", "json"]);
        assert_eq!(code, 0, "{err}");
        assert!(
            err.contains("7 runs have neither variant=a nor variant=b"),
            "{err}"
        );
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let group = &json["groups"][0];
        assert_eq!(
            (&group["baseRuns"], &group["newRuns"]),
            (&100.into(), &100.into())
        );
        let rows = group["rows"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["statistic"] == "p50(duration)");
        let row = row.expect("a row");
        assert_eq!(row["verdict"], "better");
        assert!(
            row["ratio"]["upper"].as_f64().expect("a number") < 1.0,
            "{row}"
        );
    }

    #[test]
    fn all_formats_agree_and_escape_names() {
        let name = "=x|`<img src=x>`\n@team https://evil.test \u{1b}[31m";
        let base = scratch("format-base", &with(&runs(100, 1.0, 2), "model", name));
        let new = scratch("format-new", &with(&runs(100, 1.5, 30), "model", name));
        let of = |format| {
            let arguments = [base.path(), new.path(), "--by", "model", "--format", format];
            let Ran { code, out, err } = compare(&arguments);
            assert_eq!((code, &*err), (0, ""), "{format}");
            // Repeated comparisons are equal.
            assert_eq!(compare(&arguments).out, out, "{format}");
            out
        };
        for format in ["table", "markdown"] {
            let out = of(format);
            assert!(out.contains("worse") && out.contains("+50"), "{out}");
            assert!(!out.contains('\u{1b}'), "{out:?}");
        }
        let markdown = of("markdown");
        assert!(
            !markdown.contains("<img") && !markdown.contains("@team"),
            "{markdown}"
        );
        assert!(!markdown.contains("https://evil"), "{markdown}");
        let heading = markdown.lines().find(|line| line.contains("img"));
        assert!(
            heading.is_some_and(|line| line.starts_with("### ")),
            "{markdown}"
        );

        let csv = of("csv");
        let mut rows = csv::Reader::from_reader(csv.as_bytes());
        let header = rows.headers().expect("a header").clone();
        let place = |name| {
            header
                .iter()
                .position(|column| column == name)
                .expect("a column")
        };
        let mut numbers = 0;
        for row in rows.records() {
            let row = row.expect("a row");
            assert!(row[0].starts_with("'=x"), "{row:?}");
            for column in ["base", "new", "differenceLower", "differenceUpper"] {
                numbers += usize::from(row[place(column)].parse::<f64>().is_ok());
            }
        }
        assert!(numbers >= 20, "{csv}");
    }

    #[test]
    fn skipped_lines_are_reported_and_do_not_hide_a_crossed_threshold() {
        let base = scratch("skip-base", &runs(100, 1.0, 0));
        let new = scratch("skip-new", &runs(100, 1.5, 0));
        let mut lines = fs::read(new.path()).expect("a file");
        lines.extend(b"{broken\n");
        fs::write(new.path(), lines).expect("a file");
        let Ran { code, err, .. } = compare(&[base.path(), new.path()]);
        assert_eq!(code, 3, "{err}");
        assert!(err.contains("line 101"), "{err}");
        let crossed = ["--fail-if", "p50(duration)>+1%"];
        let Ran { code, .. } = compare(&[base.path(), new.path(), crossed[0], crossed[1]]);
        assert_eq!(code, 1);
    }
}
