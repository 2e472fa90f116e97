//! The trace: parsed in its format, for arbitrary runs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use l0_core::{AttemptStats, Outcome, Telemetry, Timestamp};
use l0_report::Profile;
use l0_report::timeline::Timeline;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Trace {
    trace_events: Vec<Event>,
    display_time_unit: String,
    other_data: Value,
}

/// An event, with all fields that the format requires for its phase.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "ph", deny_unknown_fields)]
enum Event {
    /// A name of a process or thread.
    M {
        name: String,
        pid: u32,
        tid: u32,
        args: BTreeMap<String, Value>,
    },
    #[serde(rename = "X")]
    Slice {
        name: String,
        cat: String,
        ts: u64,
        dur: u64,
        pid: u32,
        tid: u32,
        args: Value,
    },
    #[serde(rename = "i")]
    Instant {
        name: String,
        #[allow(dead_code, reason = "a required field")]
        cat: String,
        ts: u64,
        pid: u32,
        tid: u32,
        s: String,
    },
    #[serde(rename = "C")]
    Counter {
        name: String,
        ts: u64,
        pid: u32,
        tid: u32,
        args: BTreeMap<String, u64>,
    },
}

impl Event {
    fn ts(&self) -> Option<u64> {
        match self {
            Self::M { .. } => None,
            Self::Slice { ts, .. } | Self::Instant { ts, .. } | Self::Counter { ts, .. } => {
                Some(*ts)
            }
        }
    }
}

fn trace(timeline: &Timeline) -> Trace {
    let mut json = Vec::new();
    timeline.write(&mut json).unwrap();
    let trace: Trace = serde_json::from_slice(&json).unwrap();
    assert_eq!(trace.display_time_unit, "ms");
    check(&trace);
    trace
}

fn of(runs: &[Telemetry]) -> Trace {
    let mut timeline = Timeline::new();
    runs.iter().for_each(|run| timeline.add(run));
    trace(&timeline)
}

/// Checks the invariants of every trace.
fn check(trace: &Trace) {
    let times: Vec<_> = trace.trace_events.iter().filter_map(Event::ts).collect();
    assert!(times.is_sorted(), "{times:?}");

    // For each lane: the span of the last run, and the end of its last part.
    let mut open = BTreeMap::<u32, (u64, u64, u64)>::new();
    let mut named = Vec::new();
    for event in &trace.trace_events {
        match event {
            Event::M {
                name,
                pid,
                tid,
                args,
            } => {
                assert_eq!((*pid, args.len()), (1, 1));
                if name == "thread_name" {
                    assert_eq!(args["name"], format!("lane {tid}"));
                    named.push(*tid);
                }
            }
            Event::Slice {
                cat,
                ts,
                dur,
                pid,
                tid,
                ..
            } => {
                let end = ts + dur;
                if cat == "run" {
                    let before = open.insert(*tid, (*ts, end, *ts));
                    let is_apart = before.is_none_or(|(_, end, _)| end <= *ts);
                    assert!(is_apart, "runs overlap on lane {tid} at {ts}");
                } else {
                    let (from, to, last) = open.get_mut(tid).expect("inside a run");
                    assert!(ts >= from && end <= *to, "beyond its run at {ts}");
                    assert!(ts >= last, "over another part at {ts}");
                    *last = end;
                }
                assert_eq!(*pid, 1);
                assert!(named.contains(tid), "lane {tid} has a name");
            }
            Event::Instant {
                name,
                ts,
                pid,
                tid,
                s,
                ..
            } => {
                assert_eq!((&**name, *pid, &**s), ("first token", 1, "t"));
                let (from, to, _) = open[tid];
                assert!((from..=to).contains(ts), "beyond its run at {ts}");
            }
            Event::Counter { name, pid, tid, .. } => {
                assert_eq!((&**name, *pid, *tid), ("live runs", 1, 0));
            }
        }
    }
}

/// Returns the slices of one kind: name, start, length, lane, arguments.
fn slices<'t>(trace: &'t Trace, kind: &str) -> Vec<(&'t str, u64, u64, u32, &'t Value)> {
    let events = trace.trace_events.iter();
    let of_kind = events.filter_map(|event| match event {
        Event::Slice {
            name,
            cat,
            ts,
            dur,
            tid,
            args,
            ..
        } if cat == kind => Some((&**name, *ts, *dur, *tid, args)),
        _ => None,
    });
    of_kind.collect()
}

fn firsts(trace: &Trace) -> Vec<u64> {
    let events = trace.trace_events.iter();
    let instants = events.filter(|event| matches!(event, Event::Instant { .. }));
    instants.filter_map(Event::ts).collect()
}

fn live(trace: &Trace) -> Vec<(u64, u64)> {
    let events = trace.trace_events.iter();
    let counts = events.filter_map(|event| match event {
        Event::Counter { ts, args, .. } => Some((*ts, args["live"])),
        _ => None,
    });
    counts.collect()
}

/// Returns a run with this start and duration, in milliseconds.
fn run(id: &str, start: u64, lasts: u64) -> Telemetry {
    let mut run = Telemetry::default();
    run.session_id = id.to_owned();
    run.start_time = Timestamp::from_millis(start);
    run.duration = Some(Duration::from_millis(lasts));
    run.outcome = Some(Outcome::Completed);
    run
}

fn attempt(number: u32, start: u64, lasts: u64) -> AttemptStats {
    let mut attempt = AttemptStats::default();
    attempt.number = number;
    attempt.start_offset = Some(Duration::from_millis(start));
    attempt.duration = Some(Duration::from_millis(lasts));
    attempt
}

#[test]
fn a_run_has_its_attempts_waits_and_first_tokens_inside() {
    let line = json!({
        "sessionId": "a", "startTime": 1_760_000_000_000_u64, "duration": 900.5, "outcome": "failed",
        "error": { "type": "401", "status": 401, "message": "the source failed (status 401)" },
        "cost": { "amount": "0.002", "currency": "USD", "source": "provider" },
        "metrics": { "attempts": 3, "totalRetries": 1, "totalTokens": 12, "timeToFirstToken": 600 },
        "attempts": [
            { "number": 1, "startOffset": 0, "duration": 100, "outcome": "failed", "model": "gpt-4o", "provider": "openai",
              "error": { "type": "503", "status": 503, "message": "the source failed (status 503)" } },
            { "number": 2, "startOffset": 350, "delay": 250, "duration": 100, "outcome": "timed_out", "model": "gpt-4o" },
            { "number": 3, "startOffset": 450, "duration": 450.5, "timeToFirstToken": 150, "tokens": 12, "source": 2,
              "outcome": "failed", "model": "claude", "cost": { "amount": "0.002", "currency": "USD", "source": "provider" },
              "error": { "type": "401", "status": 401, "message": "the source failed (status 401)" } },
        ],
        "metadata": { "model": "gpt-4o", "user": "alice" },
    });
    let run: Telemetry = serde_json::from_value(line).unwrap();
    let trace = of(&[run]);
    assert_eq!(
        slices(&trace, "run"),
        [(
            "claude: failed",
            0,
            900_500,
            1,
            &json!({
                "sessionId": "a", "attempts": 3, "retries": 1, "model": "claude", "outcome": "failed", "tokens": 12, "cost": "0.002 USD",
                "reason": { "type": "401", "status": 401, "message": "the source failed (status 401)" },
            })
        )]
    );
    let attempts = slices(&trace, "attempt");
    let places: Vec<_> = attempts
        .iter()
        .map(|(name, start, length, ..)| (*name, *start, *length))
        .collect();
    assert_eq!(
        places,
        [
            ("attempt 1: failed", 0, 100_000),
            ("attempt 2: timed out", 350_000, 100_000),
            ("attempt 3: failed", 450_000, 450_500),
        ]
    );
    assert_eq!(attempts[0].4["provider"], "openai");
    assert_eq!(attempts[0].4["reason"]["status"], 503);
    assert_eq!(attempts[2].4["source"], 2);
    // A fallback has no wait before it.
    let waits = [("back-off", 100_000, 250_000, 1, &json!({ "delay": 250.0 }))];
    assert_eq!(slices(&trace, "back-off"), waits);
    assert_eq!(firsts(&trace), [600_000]);
    assert_eq!(live(&trace), [(0, 1), (900_500, 0)]);
    assert_eq!(
        trace.other_data,
        json!({ "startTime": 1_760_000_000_000_u64, "runs": 1, "leftOut": 0 })
    );
    let process = json!("runs from 2025-10-09T08:53:20Z");
    assert!(matches!(&trace.trace_events[0],
        Event::M { name, args, .. } if name == "process_name" && args["name"] == process));
}

#[test]
fn a_lane_is_used_again_as_soon_as_it_is_free() {
    // In arbitrary order, because runs are written when they end.
    let runs = [
        run("c", 1_150, 10),
        run("a", 1_000, 100),
        run("b", 1_050, 200),
        run("d", 1_100, 50),
    ];
    let trace = of(&runs);
    let lanes: Vec<_> = slices(&trace, "run")
        .iter()
        .map(|(_, start, _, lane, args)| (args["sessionId"].as_str().unwrap(), *start, *lane))
        .collect();
    let expected = [
        ("a", 0, 1),
        ("b", 50_000, 2),
        ("d", 100_000, 1),
        ("c", 150_000, 1),
    ];
    assert_eq!(lanes, expected);
    let counts = [
        (0, 1),
        (50_000, 2),
        (100_000, 2),
        (150_000, 2),
        (160_000, 1),
        (250_000, 0),
    ];
    assert_eq!(live(&trace), counts);
}

#[test]
fn a_run_that_follows_another_within_a_millisecond_uses_its_lane() {
    let mut first = run("a", 1_000, 100);
    first.duration = Some(Duration::from_micros(100_700));
    let mut second = run("b", 1_100, 50);
    second.attempts = vec![attempt(1, 10, 40)];
    let trace = of(&[first, second]);
    let shown: Vec<_> = slices(&trace, "run")
        .iter()
        .map(|slice| (slice.1, slice.2, slice.3))
        .collect();
    assert_eq!(shown, [(0, 100_700, 1), (100_700, 50_000, 1)]);
    assert_eq!(slices(&trace, "attempt")[0].1, 110_700);
}

#[test]
fn the_earliest_runs_are_kept_beyond_the_limit() {
    let starts = [5, 3, 9, 1, 7, 3, 8];
    let mut timeline = Timeline::new().max_runs(3);
    for start in starts {
        timeline.add(&run(&format!("{start}"), start, 1));
    }
    assert_eq!((timeline.runs(), timeline.left_out()), (3, 4));
    let trace = trace(&timeline);
    let kept: Vec<_> = slices(&trace, "run")
        .iter()
        .map(|(_, start, ..)| *start)
        .collect();
    assert_eq!(kept, [0, 2_000, 2_000]);
    assert_eq!(
        trace.other_data,
        json!({ "startTime": 1, "runs": 3, "leftOut": 4 })
    );

    let mut none = Timeline::new().max_runs(0);
    none.add(&run("a", 1, 1));
    assert_eq!((none.runs(), none.left_out()), (0, 1));
}

#[test]
fn runs_and_attempts_match_the_counts_of_a_profile() {
    let mut runs = vec![Telemetry::example(); 3];
    runs[1].outcome = Some(Outcome::Dropped);
    // More attempts than are recorded individually.
    let mut many = run("many", 7, 1_000);
    many.metrics.attempts = 40;
    many.attempts = vec![attempt(1, 0, 10), attempt(2, 10, 900)];
    many.attempts[0].count = 39;
    many.attempts[0].outcome = Some(Outcome::Failed);
    many.attempts[1].outcome = Some(Outcome::Completed);
    many.attempts[1].number = 40;
    runs.push(many);
    let mut profile = Profile::new();
    runs.iter().for_each(|run| profile.add(run));
    let total = profile.total();

    let trace = of(&runs);
    let shown = slices(&trace, "run");
    assert_eq!(shown.len() as u64, total.runs);
    let sum = |slices: &[(&str, u64, u64, u32, &Value)]| -> u64 {
        slices
            .iter()
            .map(|slice| slice.4["attempts"].as_u64().unwrap())
            .sum()
    };
    let counted: u64 = total.counts("attempts").values().sum();
    let attempts = slices(&trace, "attempt");
    assert_eq!((sum(&shown), sum(&attempts)), (counted, counted));
    for (outcome, count) in total.counts("runs") {
        let ended = shown.iter().filter(|slice| slice.4["outcome"] == **outcome);
        assert_eq!(ended.count() as u64, *count, "{outcome}");
    }
    assert!(
        attempts
            .iter()
            .any(|slice| slice.0 == "attempts 1 to 39: failed")
    );
}

#[test]
fn an_older_record_without_attempts_is_a_run_too() {
    let mut old = run("old", 10, 100);
    old.metrics.attempts = 2;
    old.metrics.time_to_first_token = Some(Duration::from_millis(40));
    let mut live = run("live", 20, 0);
    (live.duration, live.outcome) = (None, None);
    live.attempts = vec![attempt(1, 5, 10)];
    let trace = of(&[live, old]);
    assert_eq!(firsts(&trace), [40_000]);
    let shown: Vec<_> = slices(&trace, "run")
        .iter()
        .map(|(name, start, length, ..)| (*name, *start, *length))
        .collect();
    // An unfinished run lasts as long as is known.
    assert_eq!(shown, [("run", 0, 100_000), ("run", 10_000, 15_000)]);
    assert!(slices(&trace, "attempt").len() == 1 && live_name(&trace).is_none());

    fn live_name(trace: &Trace) -> Option<&str> {
        slices(trace, "run")[1].4["outcome"].as_str()
    }
}

#[test]
fn metadata_stays_out_and_long_texts_are_cut() {
    let mut run = Telemetry::example();
    let long = "\u{202e}</script>".repeat(100_000);
    run.session_id = long.clone();
    run.metadata.insert("tenant".to_owned(), "acme".into());
    run.error = serde_json::from_value(json!({ "type": long, "message": long })).unwrap();
    run.attempts[0].model = Some(long);
    let mut timeline = Timeline::new();
    timeline.add(&run);
    let mut json = Vec::new();
    timeline.write(&mut json).unwrap();
    let text = String::from_utf8(json).unwrap();
    assert!(!text.contains("acme"));
    assert!(text.len() < 10_000, "{}", text.len());
    trace(&timeline);
}

#[test]
fn runs_without_a_start_time_are_counted_and_left_out() {
    let mut timeline = Timeline::new();
    // A run at the epoch would make the trace half a century long.
    timeline.add(&run("older", 0, 10));
    timeline.add(&run("a", 1_760_000_000_000, 10));
    assert_eq!((timeline.runs(), timeline.left_out()), (1, 0));
    assert_eq!(timeline.without_start(), 1);
    let trace = trace(&timeline);
    assert_eq!(slices(&trace, "run").len(), 1);
    assert_eq!(
        trace.other_data,
        json!({ "startTime": 1_760_000_000_000_u64, "runs": 1, "leftOut": 0, "withoutStart": 1 })
    );
}

#[test]
fn no_runs_are_a_trace_too() {
    let trace = of(&[]);
    assert_eq!(trace.other_data, json!({ "runs": 0, "leftOut": 0 }));
}

/// Any times that a file can contain, plausible or not.
fn millis() -> impl Strategy<Value = u64> {
    prop_oneof![9 => 0..5_000_u64, 1 => any::<u64>()]
}

fn durations() -> impl Strategy<Value = Option<Duration>> {
    let nanos = (millis(), 0..1_000_000_u64)
        .prop_map(|(millis, nanos)| Duration::from_millis(millis) + Duration::from_nanos(nanos));
    proptest::option::weighted(0.9, nanos)
}

prop_compose! {
    fn attempts()(
        times in proptest::collection::vec((durations(), durations(), durations(), durations()), 0..5)
    ) -> Vec<AttemptStats> {
        let attempts = (1..).zip(times);
        attempts.map(|(number, (start, lasts, first, delay))| {
            let mut attempt = AttemptStats::default();
            attempt.number = number;
            attempt.start_offset = start;
            attempt.duration = lasts;
            attempt.time_to_first_token = first;
            attempt.delay = delay;
            attempt
        }).collect()
    }
}

prop_compose! {
    fn any_run()(
        start in millis(), lasts in durations(), first in durations(), attempts in attempts()
    ) -> Telemetry {
        // Runs without a start time are left out.
        let mut run = run("a", start.max(1), 0);
        run.duration = lasts;
        run.metrics.time_to_first_token = first;
        run.attempts = attempts;
        run
    }
}

proptest! {
    #[test]
    fn for_any_file_slices_nest_and_lanes_are_minimal(
        runs in proptest::collection::vec(any_run(), 0..20)
    ) {
        // `of` checks the invariants.
        let trace = of(&runs);
        let shown = slices(&trace, "run");
        prop_assert_eq!(shown.len(), runs.len());
        let attempts: usize = runs.iter().map(|run| run.attempts.len()).sum();
        prop_assert_eq!(slices(&trace, "attempt").len(), attempts);

        // As many lanes as concurrent runs, if starts are moved within their millisecond where that helps.
        let most = shown.iter().enumerate().map(|(n, (_, start, ..))| {
            let before = &shown[..n];
            1 + before.iter().filter(|(_, from, length, ..)| from + length > *start).count()
        });
        let lanes = shown.iter().map(|(.., lane, _)| *lane as usize).max();
        prop_assert!(lanes <= most.max());

        // At each change, the number of live runs equals started minus ended runs.
        for (ts, count) in live(&trace) {
            let alive = shown.iter().filter(|(_, start, length, ..)| (*start..start + length).contains(&ts));
            prop_assert_eq!(alive.count() as u64, count, "at {}", ts);
        }
    }
}

#[cfg(feature = "cli")]
#[test]
fn the_program_writes_a_trace_and_reports_omitted_runs() {
    use std::io::Write;
    use std::process::{Command, Stdio};

    let mut lines = Vec::new();
    for _ in 0..3 {
        l0_export::json::write_line(&mut lines, &Telemetry::example()).unwrap();
    }
    let mut program = Command::new(env!("CARGO_BIN_EXE_l0-report"))
        .args(["timeline", "--max-runs", "2", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    program.stdin.take().unwrap().write_all(&lines).unwrap();
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success());
    let trace: Trace = serde_json::from_slice(&output.stdout).unwrap();
    check(&trace);
    assert_eq!(slices(&trace, "run").len(), 2);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("the earliest 2 of 3 runs"), "{message}");
}
