//! Attempts: each one is reported on its own, with its source, its model and its measurements,
//! however the run ends.

use std::io::ErrorKind;
use std::time::Duration;

use futures_util::StreamExt;
use l0_core::testing::{Captured, OwnedEvent, Script};
use l0_core::{
    AttemptStats, Backoff, Check, Chunk, Failure, Findings, L0, Monitoring, Outcome, Quantity,
    Retry, Severity, Source, Telemetry, Value, Violation, source,
};
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);
const RESET: ErrorKind = ErrorKind::ConnectionReset;

/// Halts the run at a word.
struct Halts;

impl Check for Halts {
    fn name(&self) -> &'static str {
        "halts"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        if delta.contains("harmful") {
            let found = Violation::new("halts", Severity::Fatal, "The answer is harmful");
            findings.report(found.recoverable(false));
        }
    }
}

/// The behavior of the consumer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Consumer {
    Reads,
    /// Aborts this number of milliseconds after the call of the last source.
    AbortsAfter(u32),
    /// Drops the run this number of milliseconds after the call of the last source.
    DropsAfter(u32),
}

/// An attempt of the last source. Times are in milliseconds; the start is relative to the first
/// call of its source.
#[derive(Debug, Clone, Copy)]
struct Expected {
    tokens: u64,
    outcome: Outcome,
    error: Option<&'static str>,
    start: u32,
    delay: Option<u32>,
    first_token: Option<u32>,
    duration: u32,
}

/// The behavior of the last source of a run.
struct Row {
    name: &'static str,
    script: Script,
    consumer: Consumer,
    /// The chunks that the consumer receives from it.
    seen: &'static str,
    /// Its events, without the run's first token.
    events: &'static str,
    attempts: Vec<Expected>,
    /// The outcome of the run.
    outcome: Outcome,
    error: Option<&'static str>,
    /// Its duration, in milliseconds.
    duration: u32,
}

fn rows() -> Vec<Row> {
    let broken = |a: l0_core::testing::ScriptedAttempt| a.wait(5 * MS).token("Hello").fail(RESET);
    let failed_once = Expected {
        tokens: 1,
        outcome: Outcome::Failed,
        error: Some("econnreset"),
        start: 0,
        delay: None,
        first_token: Some(5),
        duration: 5,
    };
    vec![
        Row {
            name: "ok",
            script: Script::new()
                .attempt(|a| a.wait(5 * MS).token("Hello").wait(5 * MS).token("!")),
            consumer: Consumer::Reads,
            seen: "item item end",
            events: "attempt_started token token attempt_finished finished",
            attempts: vec![Expected {
                tokens: 2,
                outcome: Outcome::Completed,
                error: None,
                start: 0,
                delay: None,
                first_token: Some(5),
                duration: 10,
            }],
            outcome: Outcome::Completed,
            error: None,
            duration: 10,
        },
        Row {
            name: "fails before the first token",
            script: Script::new()
                .attempt(|a| a.connect_wait(3 * MS).connect_error(Failure::status(403))),
            consumer: Consumer::Reads,
            seen: "error",
            events: "attempt_started attempt_finished finished",
            attempts: vec![Expected {
                tokens: 0,
                outcome: Outcome::Failed,
                error: Some("403"),
                start: 0,
                delay: None,
                first_token: None,
                duration: 3,
            }],
            outcome: Outcome::Failed,
            error: Some("403"),
            duration: 3,
        },
        Row {
            name: "fails in mid-stream, twice",
            script: Script::new().attempt(broken),
            consumer: Consumer::Reads,
            seen: "item restart item error",
            events: "attempt_started token network_error attempt_finished retry \
                     attempt_started token network_error attempt_finished finished",
            attempts: vec![
                failed_once,
                Expected {
                    start: 15,
                    delay: Some(10),
                    ..failed_once
                },
            ],
            outcome: Outcome::Failed,
            error: Some("econnreset"),
            duration: 20,
        },
        Row {
            name: "is rate limited once",
            script: Script::new()
                .attempt(|a| a.connect_wait(2 * MS).connect_error(Failure::status(429)))
                .attempt(|a| a.wait(5 * MS).token("Hello")),
            consumer: Consumer::Reads,
            seen: "item end",
            events: "attempt_started network_error attempt_finished retry \
                     attempt_started token attempt_finished finished",
            attempts: vec![
                Expected {
                    tokens: 0,
                    outcome: Outcome::Failed,
                    error: Some("rate_limited"),
                    start: 0,
                    delay: None,
                    first_token: None,
                    duration: 2,
                },
                Expected {
                    tokens: 1,
                    outcome: Outcome::Completed,
                    error: None,
                    start: 12,
                    delay: Some(10),
                    first_token: Some(5),
                    duration: 5,
                },
            ],
            outcome: Outcome::Completed,
            error: None,
            duration: 17,
        },
        Row {
            name: "is halted by a rule",
            script: Script::new().attempt(|a| a.wait(5 * MS).token("Hello").token("harmful")),
            consumer: Consumer::Reads,
            seen: "item error",
            events: "attempt_started token token violation attempt_finished finished",
            attempts: vec![Expected {
                tokens: 2,
                outcome: Outcome::Failed,
                error: Some("guardrail_violation"),
                start: 0,
                delay: None,
                first_token: Some(5),
                duration: 5,
            }],
            outcome: Outcome::Failed,
            error: Some("guardrail_violation"),
            duration: 5,
        },
        Row {
            name: "is aborted in a back-off",
            script: Script::new().attempt(broken),
            consumer: Consumer::AbortsAfter(8),
            seen: "item error",
            events: "attempt_started token network_error attempt_finished retry finished",
            attempts: vec![failed_once],
            outcome: Outcome::Aborted,
            error: Some("aborted"),
            duration: 8,
        },
        Row {
            name: "is dropped",
            script: Script::new().attempt(|a| a.wait(5 * MS).token("Hello").hang()),
            consumer: Consumer::DropsAfter(9),
            seen: "item",
            events: "attempt_started token attempt_finished finished",
            attempts: vec![Expected {
                tokens: 1,
                outcome: Outcome::Dropped,
                error: None,
                start: 0,
                delay: None,
                first_token: Some(5),
                duration: 9,
            }],
            outcome: Outcome::Dropped,
            error: None,
            duration: 9,
        },
    ]
}

/// The expected attempt of a source that is given up after one token.
const GIVEN_UP: Expected = Expected {
    tokens: 1,
    outcome: Outcome::Failed,
    error: Some("401"),
    start: 0,
    delay: None,
    first_token: Some(5),
    duration: 5,
};

fn millis(millis: u32) -> Duration {
    millis * MS
}

fn expected(number: u32, source: u32, offset: u32, attempt: Expected, measured: bool) -> String {
    let times = |start, first_token: Option<u32>, duration| {
        measured.then_some((millis(start), first_token.map(millis), millis(duration)))
    };
    format!(
        "{:?}",
        (
            (number, source, 1),
            (
                Some(format!("model-{source}")),
                Some(format!("provider-{source}"))
            ),
            (attempt.tokens, Some(attempt.outcome), attempt.error),
            attempt.delay.map(millis),
            times(
                offset + attempt.start,
                attempt.first_token,
                attempt.duration
            ),
        )
    )
}

fn recorded(attempt: &AttemptStats) -> String {
    let error = attempt.error.as_ref().map(|error| &*error.error_type);
    let times = attempt.start_offset.map(|start| {
        (
            start,
            attempt.time_to_first_token,
            attempt.duration.expect("it has ended"),
        )
    });
    format!(
        "{:?}",
        (
            (attempt.number, attempt.source, attempt.count),
            (attempt.model.clone(), attempt.provider.clone()),
            (attempt.tokens, attempt.outcome, error),
            attempt.delay,
            times,
        )
    )
}

fn finished_attempts(captured: &Captured) -> Vec<AttemptStats> {
    let events = captured.events().into_iter();
    let attempts = events.filter_map(|event| match event {
        OwnedEvent::AttemptFinished { attempt, .. } => Some(*attempt),
        _ => None,
    });
    attempts.collect()
}

/// A source that yields one token after 5 ms, and then fails with a fatal error.
fn given_up() -> Script {
    Script::new().attempt(|a| a.wait(5 * MS).token("Well").fail(Failure::status(401)))
}

async fn run(row: &Row, sources: u32, measured: bool) {
    let what = format!("{}, {sources} sources, measured: {measured}", row.name);
    let captured = Captured::new();
    let monitoring = if measured {
        Monitoring::new()
    } else {
        Monitoring::off()
    };
    let l0 = L0::builder()
        .monitoring(monitoring)
        .retry(Retry::new().max_retries(1).backoff(Backoff::fixed(10 * MS)))
        .guardrails(|| Halts)
        .interceptor(captured.clone())
        .build();
    let scripts: Vec<Script> = (1..=sources)
        .map(|number| {
            if number < sources {
                given_up()
            } else {
                row.script.clone()
            }
        })
        .collect();
    let name = |what: &str, source: u32| format!("{what}-{source}");
    let offset = 5 * (sources - 1);
    let mut builder = l0
        .stream(scripts[0].source())
        .metadata("model", name("model", 1))
        .metadata("provider", name("provider", 1));
    if let Consumer::AbortsAfter(after) = row.consumer {
        builder = builder.until(sleep(millis(offset + after)));
    }
    for (script, number) in scripts.iter().zip(1..).skip(1) {
        let named = source(script.source())
            .metadata("model", name("model", number))
            .metadata("provider", name("provider", number));
        builder = builder.fallback(named);
    }
    let mut run = builder.start();
    let handle = run.handle();
    let mut seen = Vec::new();
    let reading = async {
        while let Some(chunk) = run.next().await {
            seen.push(match chunk {
                Ok(Chunk::Item(_)) => "item",
                Ok(Chunk::Restart { .. }) => "restart",
                Err(_) => "error",
            });
        }
        if !matches!(seen.last(), Some(&"error")) {
            seen.push("end");
        }
    };
    match row.consumer {
        Consumer::DropsAfter(after) => {
            let _ = timeout(millis(offset + after), reading).await;
        }
        Consumer::Reads | Consumer::AbortsAfter(_) => reading.await,
    }
    drop(run);

    let before = "item restart ".repeat(sources as usize - 1);
    assert_eq!(seen.join(" "), before + row.seen, "{what}");

    let before = "attempt_started token attempt_finished fallback ".repeat(sources as usize - 1);
    let mut events = format!("started {before}{}", row.events);
    if events.contains(" token") {
        events = events.replacen(" token", " first_token token", 1);
    }
    let events: Vec<_> = events.split_whitespace().collect();
    assert_eq!(captured.kinds(), events, "{what}");
    let fallbacks = captured
        .events()
        .into_iter()
        .filter_map(|event| match event {
            OwnedEvent::Fallback { from, to, .. } => Some((from, to)),
            _ => None,
        });
    let one_after_the_other: Vec<_> = (1..sources).map(|from| (from, from + 1)).collect();
    assert_eq!(fallbacks.collect::<Vec<_>>(), one_after_the_other, "{what}");

    let end = handle.end().expect("it has ended");
    assert_eq!(end.outcome(), row.outcome, "{what}");
    assert_eq!(end.error_type().as_deref(), row.error, "{what}");

    let given_up =
        (1..sources).map(|number| expected(number, number, 5 * (number - 1), GIVEN_UP, measured));
    let last = row
        .attempts
        .iter()
        .zip(sources..)
        .map(|(attempt, number)| expected(number, sources, offset, *attempt, measured));
    let all: Vec<_> = given_up.chain(last).collect();
    let finished = finished_attempts(&captured);
    assert_eq!(
        finished.iter().map(recorded).collect::<Vec<_>>(),
        all,
        "{what}"
    );

    let telemetry = handle.telemetry();
    assert_eq!(telemetry.is_some(), measured, "{what}");
    let Some(telemetry) = telemetry else { return };
    assert_eq!(telemetry.attempts, finished, "{what}");
    let json = serde_json::to_string(&telemetry).expect("JSON");
    assert_eq!(
        serde_json::from_str::<Telemetry>(&json).expect("JSON"),
        telemetry,
        "{what}"
    );

    let total = u64::from(sources - 1)
        + row
            .attempts
            .iter()
            .map(|attempt| attempt.tokens)
            .sum::<u64>();
    let answer = row.attempts.last().map_or(0, |attempt| attempt.tokens);
    let metrics = &telemetry.metrics;
    assert_eq!(metrics.total_tokens, total, "{what}");
    assert_eq!(metrics.wasted_tokens, total - answer, "{what}");
    assert_eq!(metrics.attempts as usize, all.len(), "{what}");
    assert_eq!(telemetry.fallbacks(), sources - 1, "{what}");
    let retries = captured
        .kinds()
        .iter()
        .filter(|kind| **kind == "retry")
        .count();
    assert_eq!(metrics.total_retries as usize, retries, "{what}");
    assert_eq!(
        telemetry.duration,
        Some(millis(offset + row.duration)),
        "{what}"
    );
    let own_first = row
        .attempts
        .iter()
        .find_map(|attempt| Some(attempt.start + attempt.first_token?));
    let first_token = if sources > 1 { Some(5) } else { own_first }.map(millis);
    assert_eq!(metrics.time_to_first_token, first_token, "{what}");

    // All measurements of a source belong to its part. Those of the run belong to the last one.
    let mut parts = 0;
    telemetry.by_source(&mut |part| {
        parts += 1;
        let what = format!("{what}, part {parts}");
        assert_eq!(part.source, parts, "{what}");
        assert_eq!(part.is_last, parts == sources, "{what}");
        let is_last = part.is_last;
        let part = part.telemetry;
        if is_last {
            assert_eq!(
                part.metrics.total_tokens,
                total - u64::from(sources - 1),
                "{what}"
            );
            assert_eq!(
                part.metrics.wasted_tokens,
                total - answer - u64::from(sources - 1),
                "{what}"
            );
            assert_eq!(part.metrics.attempts as usize, row.attempts.len(), "{what}");
            assert_eq!(part.metrics.total_retries as usize, retries, "{what}");
            assert_eq!(part.duration, telemetry.duration, "{what}");
            assert_eq!(part.metrics.time_to_first_token, first_token, "{what}");
            assert_eq!(
                part.metrics.tokens_per_second, metrics.tokens_per_second,
                "{what}"
            );
            assert_eq!(part.metrics.wait, metrics.wait, "{what}");
            assert_eq!(
                (part.outcome, &part.error),
                (telemetry.outcome, &telemetry.error),
                "{what}"
            );
            assert_eq!(
                part.network.error_count, telemetry.network.error_count,
                "{what}"
            );
            assert_eq!(
                part.guardrails.as_ref().map(|found| found.violation_count),
                telemetry
                    .guardrails
                    .as_ref()
                    .map(|found| found.violation_count),
                "{what}"
            );
        } else {
            assert_eq!(part.metrics.total_tokens, 1, "{what}");
            assert_eq!(part.metrics.wasted_tokens, 1, "{what}");
            assert_eq!(part.metrics.attempts, 1, "{what}");
            assert_eq!(part.metrics.total_retries, 0, "{what}");
            assert_eq!(part.duration, None, "{what}");
            assert_eq!(part.metrics.time_to_first_token, None, "{what}");
            assert_eq!(part.metrics.tokens_per_second, None, "{what}");
            assert_eq!(part.metrics.wait, None, "{what}");
            assert_eq!((part.outcome, &part.error), (None, &None), "{what}");
            assert_eq!(part.network.error_count, 0, "{what}");
        }
    });
    assert_eq!(parts, sources, "{what}");
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_reported_with_any_number_of_sources_and_any_end() {
    for sources in 1..=3 {
        for measured in [true, false] {
            for row in rows() {
                run(&row, sources, measured).await;
            }
        }
    }
}

/// Returns the number that counters receive.
fn fallbacks(telemetry: &Telemetry) -> u64 {
    let quantity = Quantity::ALL.iter().find(|one| one.name == "fallbacks");
    let value = quantity.expect("a quantity").value(telemetry);
    value.map_or(0, |value| value.as_f64() as u64)
}

#[tokio::test(start_paused = true)]
async fn the_next_source_is_not_called_if_the_consumer_is_gone_after_a_restart() {
    for measured in [true, false] {
        let captured = Captured::new();
        let monitoring = if measured {
            Monitoring::new()
        } else {
            Monitoring::off()
        };
        let l0 = L0::builder()
            .monitoring(monitoring)
            .interceptor(captured.clone())
            .build();
        let (first, second) = (given_up(), Script::new());
        let mut run = l0
            .stream(first.source())
            .fallback(source(second.source()).metadata("model", "other"))
            .start();
        assert!(matches!(run.next().await, Some(Ok(Chunk::Item(_)))));
        assert!(matches!(
            run.next().await,
            Some(Ok(Chunk::Restart { attempt: 2, .. }))
        ));
        drop(run);
        assert_eq!((first.calls(), first.dropped(), second.calls()), (1, 1, 0));
        let expected =
            "started attempt_started first_token token attempt_finished fallback finished";
        assert_eq!(captured.kinds().join(" "), expected);
        let Some(telemetry) = captured.telemetry() else {
            assert!(!measured);
            continue;
        };
        assert_eq!(telemetry.outcome, Some(Outcome::Dropped));
        assert_eq!(telemetry.attempts.len(), 1);
        assert_eq!(telemetry.metrics.wasted_tokens, 0, "no attempt followed it");
        assert_eq!(telemetry.fallbacks(), 1, "like the event");
        telemetry.by_source(&mut |part| {
            assert_eq!((part.source, part.is_last), (1, true));
            assert_eq!(fallbacks(part.telemetry), 1);
        });
    }
}

/// Runs this number of sources, each with this number of attempts of one token.
async fn many(sources: u32, attempts: u32) -> (Captured, Telemetry) {
    let captured = Captured::new();
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().unlimited().backoff(Backoff::fixed(MS)))
        .interceptor(captured.clone())
        .build();
    let script = |number: u32| {
        let mut script = Script::new();
        for attempt in 1..=attempts {
            script = script.attempt(|a| {
                let a = a.wait(MS).tokens(["a", "b"]);
                match attempt {
                    _ if attempt < attempts => a.fail(RESET),
                    _ if number < sources => a.fail(Failure::status(401)),
                    _ => a.token("c"),
                }
            });
        }
        script
    };
    let mut builder = l0.stream(script(1).source()).metadata("model", "model-1");
    for number in 2..=sources {
        let named = source(script(number).source()).metadata("model", format!("model-{number}"));
        builder = builder.fallback(named);
    }
    let mut run = builder.start();
    assert_eq!(run.text().await.expect("it completes"), "abc");
    let telemetry = run.telemetry().expect("measured");
    (captured, telemetry)
}

#[tokio::test(start_paused = true)]
async fn at_most_32_attempts_are_kept_and_their_sums_are_exact() {
    for (sources, attempts) in [
        (1, 32),
        (1, 33),
        (1, 100),
        (2, 31),
        (2, 33),
        (3, 40),
        (40, 1),
        (40, 3),
    ] {
        let what = format!("{sources} sources, {attempts} attempts each");
        let (captured, telemetry) = many(sources, attempts).await;
        let all = sources * attempts;
        let entries = &telemetry.attempts;
        assert_eq!(entries.len(), AttemptStats::MAX.min(all as usize), "{what}");
        assert!(entries.capacity() <= 2 * AttemptStats::MAX, "{what}");
        assert_eq!(
            entries.iter().map(|entry| entry.count).sum::<u32>(),
            all,
            "{what}"
        );
        assert_eq!(telemetry.metrics.attempts, all, "{what}");
        let tokens = u64::from(2 * all + 1);
        assert_eq!(
            entries.iter().map(|entry| entry.tokens).sum::<u64>(),
            tokens,
            "{what}"
        );
        assert_eq!(telemetry.metrics.total_tokens, tokens, "{what}");
        assert_eq!(telemetry.metrics.wasted_tokens, tokens - 3, "{what}");
        let retries = sources * (attempts - 1);
        assert_eq!(
            entries
                .iter()
                .map(|entry| entry.network_retries)
                .sum::<u32>(),
            retries,
            "{what}"
        );
        assert_eq!(telemetry.metrics.network_retries, retries, "{what}");
        let errors: u64 = entries
            .iter()
            .flat_map(|entry| entry.network_errors.values())
            .sum();
        assert_eq!(errors, u64::from(retries), "{what}");
        assert_eq!(telemetry.network.error_count, u64::from(retries), "{what}");
        let gaps = entries
            .iter()
            .filter_map(|entry| entry.inter_token.as_ref());
        assert_eq!(
            gaps.map(l0_core::Distribution::count).sum::<u64>(),
            tokens - u64::from(all),
            "{what}"
        );
        assert_eq!(telemetry.fallbacks(), sources - 1, "{what}");

        // The last entry is the attempt that no other follows.
        let last = entries.last().expect("there is one");
        assert_eq!(
            (last.number, last.count, last.source),
            (all, 1, sources),
            "{what}"
        );
        assert_eq!(
            (last.tokens, last.outcome),
            (3, Some(Outcome::Completed)),
            "{what}"
        );
        let sources_in_order = entries.is_sorted_by_key(|entry| entry.source);
        assert!(
            sources_in_order && entries.is_sorted_by_key(|entry| entry.number),
            "{what}"
        );

        // Each attempt was reported on its own.
        let finished = finished_attempts(&captured);
        let numbers: Vec<_> = finished
            .iter()
            .map(|attempt| (attempt.number, attempt.count))
            .collect();
        assert_eq!(
            numbers,
            (1..=all).map(|number| (number, 1)).collect::<Vec<_>>(),
            "{what}"
        );

        let json = serde_json::to_string(&telemetry).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Telemetry>(&json).expect("JSON"),
            telemetry,
            "{what}"
        );
        let (mut parts, mut counted) = (0, 0);
        telemetry.by_source(&mut |part| {
            parts += part.telemetry.metrics.attempts;
            counted += fallbacks(part.telemetry);
        });
        assert_eq!((parts, counted), (all, u64::from(sources - 1)), "{what}");
    }
}

#[test]
fn no_record_makes_a_reader_panic() {
    let most = u64::MAX;
    let usage = format!(r#"{{"input":{most},"output":{most},"total":{most},"reasoning":{most}}}"#);
    let gaps = format!(r#"{{"count":{most},"sum":9e12,"max":9e12,"buckets":[[null,{most}]]}}"#);
    let full = |source: u32| {
        format!(
            r#"{{"number":{max},"count":{max},"source":{source},"tokens":{most},"startOffset":1e300,
            "delay":1e300,"duration":1e300,"timeToFirstToken":1e300,"usage":{usage},
            "networkErrors":{{"econnreset":{most},"new":{most},"newer":{most}}},"networkRetries":{max},
            "modelRetries":{max},"fallbacks":{max},"outcome":"from the future",
            "guardrails":{{"violationCount":{most},"violationsByRule":{{"r":{most}}}}},
            "drift":{{"detected":true,"types":["a","a"]}}}}"#,
            max = u32::MAX,
        )
    };
    let (one, two, none) = (full(1), full(2), full(0));
    let with_gaps = one.replacen('{', &format!(r#"{{"interToken":{gaps},"#), 1);
    for attempts in [
        "[]".to_owned(),
        "[{}]".to_owned(),
        "[{},{}]".to_owned(),
        r#"[{"count":0}]"#.to_owned(),
        r#"[{"source":4294967295},{"source":0}]"#.to_owned(),
        format!("[{one}]"),
        format!("[{one},{one}]"),
        format!("[{one},{two},{one},{none}]"),
        format!("[{with_gaps},{two},{with_gaps}]"),
        format!("[{}]", vec!["{}"; 10_000].join(",")),
    ] {
        let json = format!(
            r#"{{"sessionId":"x","startTime":{most},"duration":1e300,"outcome":"failed","attempts":{attempts}}}"#
        );
        let telemetry: Telemetry = serde_json::from_str(&json).expect("it reads");
        let mut parts = vec![telemetry.clone()];
        telemetry.by_source(&mut |part| parts.push(part.telemetry.clone()));
        for part in parts {
            let _ = (
                part.to_string(),
                part.fallbacks(),
                part.billed(),
                part.end_time(),
            );
            let _ = (
                part.finish_reason_or_error(),
                part.most_common_network_error(),
            );
            for quantity in Quantity::ALL {
                quantity.values(&part, &mut |value| assert!(value.as_f64() >= 0.0));
                quantity.each(&part, &mut |labels, _| assert!(!labels[0].is_empty()));
            }
            let json = serde_json::to_string(&part).expect("JSON");
            serde_json::from_str::<Telemetry>(&json).expect("it reads back");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_contains_the_open_attempt() {
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
        .build();
    let hangs = Script::new().attempt(|a| a.wait(5 * MS).tokens(["Hello", "!"]).hang());
    let mut run = l0
        .stream(given_up().source())
        .metadata("model", "one")
        .fallback(source(hangs.source()).metadata("model", "two"))
        .start();
    let _ = timeout(20 * MS, async { while run.next().await.is_some() {} }).await;
    for _ in 0..2 {
        let telemetry = run.telemetry().expect("measured");
        let [first, second] = &*telemetry.attempts else {
            panic!("{:?}", telemetry.attempts)
        };
        assert_eq!((first.outcome, first.fallbacks), (Some(Outcome::Failed), 1));
        assert_eq!((second.outcome, second.duration), (None, None));
        assert_eq!((second.model.as_deref(), second.tokens), (Some("two"), 2));
        assert_eq!(second.time_to_first_token, Some(5 * MS));
        assert_eq!(telemetry.metrics.total_tokens, 3);
        assert_eq!(telemetry.metrics.wasted_tokens, 1);
        let mut parts = Vec::new();
        telemetry.by_source(&mut |part| {
            parts.push((
                part.source,
                part.is_last,
                part.telemetry.metrics.total_tokens,
            ));
        });
        assert_eq!(parts, [(1, false, 1), (2, true, 2)]);
        let ended = Quantity::ALL.iter().find(|one| one.name == "attempts");
        let mut counts = Vec::new();
        let known = ended
            .expect("a quantity")
            .each(&telemetry, &mut |result, count| {
                counts.push((result.join(" "), count));
            });
        let failed = ("failed".to_owned(), Value::Count(1));
        assert_eq!((known, counts), (true, vec![failed]));
    }
}
