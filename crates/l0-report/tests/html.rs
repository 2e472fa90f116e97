//! The page: its content, its policy, and its safety against hostile runs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use base64::Engine;
use l0_core::{Cost, CostSource, Currency, Outcome, Telemetry, Timestamp};
use l0_report::html::Page;
use l0_report::{Profile, Reader};
use serde_json::Value;
use sha2::{Digest, Sha256};

const DATA: &str = "<script type=\"application/json\" id=\"data\">";

fn html(page: &Page) -> String {
    let mut html = Vec::new();
    page.write(&mut html).unwrap();
    String::from_utf8(html).unwrap()
}

/// Returns the input of the page's script.
fn data(page: &Page) -> Value {
    let html = html(page);
    let (_, rest) = html.split_once(DATA).unwrap();
    let (json, _) = rest.split_once("</script>").unwrap();
    serde_json::from_str(json).unwrap()
}

fn page(runs: &[Telemetry]) -> Page {
    let mut page = Page::new(Profile::new().group_by("model"));
    runs.iter().for_each(|run| page.add(run));
    page
}

fn run(model: &str, start: u64, lasts: u64) -> Telemetry {
    let mut run = Telemetry::default();
    run.session_id = format!("{model} at {start}");
    run.start_time = Timestamp::from_millis(start);
    run.duration = Some(Duration::from_millis(lasts));
    run.outcome = Some(Outcome::Completed);
    run.metadata.insert("model".to_owned(), model.into());
    run
}

fn numbers<'v>(list: &'v Value, of: impl Fn(&'v Value) -> &'v Value) -> Vec<u64> {
    let list = list.as_array().unwrap().iter();
    list.map(|one| of(one).as_u64().unwrap()).collect()
}

#[test]
fn the_policy_allows_this_script_and_this_style_and_no_request() {
    let html = html(&page(&[Telemetry::example()]));
    let element = |start: &str, end: &str| {
        let (_, rest) = html.split_once(start).unwrap();
        rest.split_once(end).unwrap().0
    };
    let policy = element(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"",
        "\"",
    );
    let hash = |text: &str| {
        let hash = base64::prelude::BASE64_STANDARD.encode(Sha256::digest(text));
        format!("'sha256-{hash}'")
    };
    let script = hash(element("<script>", "</script>"));
    let style = hash(element("<style>", "</style>"));
    assert_eq!(
        policy,
        format!(
            "default-src 'none'; script-src {script}; style-src {style}; img-src data:; base-uri 'none'; \
             form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        )
    );
    // The only address is the name of a vocabulary.
    let addresses = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!addresses.contains("://"));
}

#[test]
fn no_text_of_a_run_ends_the_data() {
    let evil = "</script><script>alert(1)</script><!--{{data}}\u{202e}\u{2028}";
    let mut run = run(evil, 1, 1);
    run.session_id = evil.to_owned();
    run.outcome = Some(Outcome::Failed);
    run.error =
        serde_json::from_value(serde_json::json!({ "type": evil, "message": evil })).unwrap();
    let page = page(&[run]);
    let (plain, evil_page) = (html(&Page::default()), html(&page));
    for part in ["<script", "</script", "<!--", "<"] {
        assert_eq!(
            evil_page.matches(part).count(),
            plain.matches(part).count(),
            "{part}"
        );
    }
    let data = data(&page);
    assert_eq!(data["groups"][0]["name"], evil);
    assert_eq!(data["groups"][0]["reasons"][0]["message"], evil);
    assert_eq!(data["slowestFailed"][0]["id"], evil);
}

#[test]
fn long_texts_are_cut_and_other_metadata_stays_out() {
    let long = "x".repeat(1_000_000);
    let mut run = run(&long, 1, 1);
    run.session_id = long.clone();
    run.attempts = Telemetry::example().attempts;
    run.attempts[0].model = Some(long.clone());
    run.outcome = Some(Outcome::Failed);
    run.error =
        serde_json::from_value(serde_json::json!({ "type": long, "message": long })).unwrap();
    run.metadata.insert("tenant".to_owned(), "acme".into());
    let html = html(&page(&[run]));
    assert!(!html.contains(&"x".repeat(201)));
    assert!(!html.contains("acme"));
}

#[test]
fn runs_are_counted_over_time_for_any_number_and_span() {
    // Runs of a second, a day and 300 years. The newest is first, as in concatenated files.
    for step in [1, 86_400, 9_460_800_000_u64 / 10] {
        let mut page = Page::default();
        for number in (0..1_000_u64).rev() {
            let mut run = run("a", 1_760_000_000_000 + number * step, 10);
            run.metrics.time_to_first_token = Some(Duration::from_millis(300));
            if number % 10 == 0 {
                run.outcome = Some(Outcome::TimedOut);
            }
            page.add(&run);
        }
        let times = &data(&page)["times"];
        let periods = times["periods"].as_array().unwrap();
        assert!(periods.len() <= 360, "{}", periods.len());
        let outcomes = &data(&page)["outcomes"];
        let place = |name: &str| {
            let mut all = outcomes.as_array().unwrap().iter();
            all.position(|outcome| outcome == name).unwrap()
        };
        for (name, count) in [("completed", 900), ("timed_out", 100)] {
            let all = numbers(&times["periods"], |period| &period["outcomes"][place(name)]);
            assert_eq!(all.iter().sum::<u64>(), count, "{name}, every {step} ms");
        }
        let length = times["length"].as_u64().unwrap();
        let starts = numbers(&times["periods"], |period| &period["start"]);
        assert!(starts.is_sorted() && starts.iter().all(|start| start % length == 0));
        let last = 1_760_000_000_000 + 999 * step;
        assert!(starts[0] <= 1_760_000_000_000 && *starts.last().unwrap() + length > last);
        assert_eq!(
            times["span"],
            serde_json::json!([1_760_000_000_000_u64, last + 10])
        );
        let median = periods[0]["p50"].as_f64().unwrap();
        assert!((median - 300.0).abs() < 300.0 * 0.022, "{median}");
    }
}

#[test]
fn impossible_times_are_harmless() {
    let mut runs: Vec<_> = [0, 1, u64::MAX, u64::MAX - 1, 1 << 53]
        .map(|start| run("a", start, u64::MAX))
        .into();
    runs[1].duration = None;
    let data = data(&page(&runs));
    assert_eq!(data["times"]["unknown"], 1);
    let periods = numbers(&data["times"]["periods"], |period| &period["outcomes"][0]);
    assert_eq!(periods.iter().sum::<u64>(), 4);
}

#[test]
fn the_slowest_runs_are_found_in_any_order() {
    let mut runs: Vec<_> = (0..100).map(|n| run("a", n + 1, n / 3)).collect();
    for run in &mut runs[..60] {
        run.outcome = Some(Outcome::Failed);
    }
    let forwards = data(&page(&runs));
    runs.reverse();
    let backwards = data(&page(&runs));
    assert_eq!(forwards["slowest"], backwards["slowest"]);
    assert_eq!(forwards["slowestFailed"], backwards["slowestFailed"]);
    let lasted = |list: &Value| -> Vec<f64> {
        let runs = list.as_array().unwrap().iter();
        runs.map(|run| run["duration"].as_f64().unwrap()).collect()
    };
    let from = |last: u64| (0..20).map(|n| ((last - n) / 3) as f64).collect::<Vec<_>>();
    assert_eq!(lasted(&forwards["slowest"]), from(99));
    assert_eq!(lasted(&forwards["slowestFailed"]), from(59));
}

#[test]
fn numbers_equal_those_of_the_profile() {
    let mut runs = vec![Telemetry::example(); 5];
    let amount = "0.00000003".parse().unwrap();
    let cost = Cost::new(amount, Currency::EUR, CostSource::Provider);
    for (n, run) in runs.iter_mut().enumerate() {
        let model = ["gpt-4o", "claude"][n % 2];
        run.metadata.insert("model".to_owned(), model.into());
        run.duration = Some(Duration::from_millis(100 * n as u64 + 50));
        run.metrics.output_tokens_per_second = Some(20.0 + n as f64);
        run.cost = Some(cost);
        for attempt in &mut run.attempts {
            attempt.model = Some(model.to_owned());
            attempt.cost = Some(cost);
        }
    }
    let mut profile = Profile::new().group_by("model");
    runs.iter().for_each(|run| profile.add(run));
    let data = data(&page(&runs));
    assert_eq!(data["total"]["runs"], profile.total().runs);
    let attempts: u64 = profile.total().counts("attempts").values().sum();
    assert_eq!(data["attempts"], attempts);

    let groups = data["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    for (name, stats) in profile.groups() {
        let group = groups.iter().find(|group| group["name"] == name).unwrap();
        assert_eq!(group["runs"], stats.runs);
        for (title, sample) in [
            ("Time to first token", stats.sample("time_to_first_token")),
            ("Gaps between tokens", stats.sample("inter_token")),
            (
                "Duration of completed runs",
                stats.durations(Outcome::Completed),
            ),
        ] {
            let spreads = data["spreads"].as_array().unwrap();
            let spread = spreads.iter().find(|spread| spread["title"] == title);
            let spread = spread.unwrap();
            let rows = spread["rows"].as_array().unwrap();
            let row = rows.iter().find(|row| row["group"] == name).unwrap();
            assert_eq!(row["count"], sample.count(), "{title}");
            for (key, number) in [
                ("p50", sample.p50()),
                ("p95", sample.p95()),
                ("p99", sample.p99()),
            ] {
                assert_eq!(row[key].as_f64(), number, "{title}, {key}");
            }
            let shape = numbers(&row["shape"], |cell| &cell[1]);
            assert_eq!(shape.iter().sum::<u64>(), sample.count(), "{title}");
        }
    }
    let rates = data["rates"].as_array().unwrap();
    assert_eq!(rates[0][0], "(all)");
    assert_eq!(
        numbers(&rates[0][1], |cell| &cell[2]).iter().sum::<u64>(),
        5
    );
    // To the last decimal: 5 runs with 2 attempts.
    let rows = data["costs"][0]["rows"].as_array().unwrap();
    assert_eq!(data["costs"][0]["currency"], "EUR");
    assert_eq!(rows.last().unwrap()["spent"], "0.0000003");
    assert_eq!(rows.last().unwrap()["wasted"], "0.00000015");
}

#[test]
fn many_groups_are_folded_and_the_page_stays_small() {
    let runs: Vec<_> = (0..3_000)
        .map(|n| {
            let mut run = run(&format!("model {n}"), 1_000 + n * 1_000, n % 700);
            run.metrics.output_tokens_per_second = Some((n % 97 + 1) as f64);
            run.metrics.total_tokens = n * n;
            run
        })
        .collect();
    let page = page(&runs);
    let data = data(&page);
    let groups = numbers(&data["groups"], |group| &group["runs"]);
    assert_eq!(groups.len(), 12);
    assert_eq!(
        groups.iter().sum::<u64>() + data["moreRuns"].as_u64().unwrap(),
        3_000
    );
    assert_eq!(data["moreGroups"], Profile::MAX_GROUPS as u64 + 1 - 12);
    let all = numbers(&data["rates"][0][1], |cell| &cell[2]);
    assert_eq!(all.iter().sum::<u64>(), 3_000);
    assert!(html(&page).len() < 200_000, "{}", html(&page).len());
}

#[test]
fn skipped_lines_and_excluded_runs_are_reported() {
    let mut lines = Vec::new();
    for outcome in [Outcome::Completed, Outcome::Failed] {
        let mut run = run("a", 1, 1);
        run.outcome = Some(outcome);
        l0_export::json::write_line(&mut lines, &run).unwrap();
        lines.extend_from_slice(b"{ torn\n");
    }
    let mut page = Page::default();
    let reader = Reader::new().filter(["outcome=failed".parse().unwrap()]);
    let reading = reader.read(&lines[..], &mut |run| page.add(run));
    for number in 0..12 {
        page.add_reading(format!("{number}.jsonl"), &reading);
    }
    let data = data(&page);
    assert_eq!(data["total"]["runs"], 1);
    assert_eq!(data["filtered"], 12);
    assert_eq!(
        (&data["inputs"][9], &data["moreInputs"]),
        (&"9.jsonl".into(), &2.into())
    );
    assert_eq!(data["skipped"][0]["lines"], 2);
    let reason = data["skipped"][0]["reasons"][1].as_str().unwrap();
    assert!(reason.starts_with("line 4"), "{reason}");
}

#[cfg(feature = "cli")]
#[test]
fn the_program_writes_the_page_into_a_file() {
    use std::process::Command;

    let folder = std::env::temp_dir().join(format!("l0-report-html-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (lines, page) = (folder.join("runs.jsonl"), folder.join("report.html"));
    let mut file = std::fs::File::create(&lines).unwrap();
    l0_export::json::write_line(&mut file, &Telemetry::example()).unwrap();
    let program = |output: &std::path::Path| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_l0-report"));
        program.arg("html").arg(&lines).arg("-o").arg(output);
        program.output().unwrap()
    };

    let output = program(&page);
    assert!(output.status.success() && output.stdout.is_empty());
    let written = std::fs::read_to_string(&page).unwrap();
    assert!(written.starts_with("<!doctype html>") && written.ends_with("</html>\n"));
    assert!(written.contains("runs.jsonl"));

    let output = program(&folder.join("no folder").join("report.html"));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("no folder")
    );
    std::fs::remove_dir_all(&folder).unwrap();
}
