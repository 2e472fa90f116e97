//! The model that each number belongs to, in Prometheus and in `StatsD`: runs of one to three sources, with
//! every end of the last one.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/samples.rs"]
mod samples;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use fastrand::Rng;
use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedAttempt, ScriptedError, ScriptedToken};
use l0_core::{
    Backoff, Check, Ended, Failure, Findings, FinishReason, L0, Monitoring, Outcome, Quantity,
    Retry, Run, Severity, Source, Telemetry, Timeouts, Usage, Violation, source,
};
use l0_prometheus::{Collector, Labels};
use l0_statsd::StatsdInterceptor;
use samples::{Samples, read};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

/// The names of the sources of a run, in order.
const MODELS: [&str; 3] = ["a", "b", "c"];

/// A rule against this word.
struct Halts(Severity);

const BAD: &str = "bad";

impl Check for Halts {
    fn name(&self) -> &'static str {
        "halts"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        if delta.contains(BAD) {
            findings.report(Violation::new("halts", self.0, "a bad word"));
        }
    }

    fn end(&mut self, _: &Ended, _: &mut Findings) {}
}

/// A `StatsD` server, with sums of its points by name, model and own tag.
struct Statsd {
    socket: UdpSocket,
    sums: BTreeMap<(String, String), f64>,
}

impl Statsd {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(60 * SEC)).unwrap();
        Self {
            socket,
            sums: BTreeMap::new(),
        }
    }

    fn interceptor(&self) -> StatsdInterceptor {
        let address = self.socket.local_addr().unwrap().to_string();
        let builder = StatsdInterceptor::builder(address);
        builder.tag_keys(["model"]).unwrap().build().unwrap()
    }

    /// Receives the points since the last call.
    fn take(&mut self) {
        // The loopback keeps the order, so this arrives last.
        let address = self.socket.local_addr().unwrap();
        self.socket.send_to(b"end", address).unwrap();
        let mut buffer = [0; 65_536];
        loop {
            let length = self.socket.recv(&mut buffer).unwrap();
            let datagram = std::str::from_utf8(&buffer[..length]).unwrap();
            if datagram == "end" {
                return;
            }
            for line in datagram.lines() {
                let (point, tags) = line.split_once("|#").unwrap();
                let (name, value) = point.split_once(':').unwrap();
                let (value, _) = value.split_once('|').unwrap();
                let key = (name.to_owned(), tags.to_owned());
                *self.sums.entry(key).or_default() += value.parse::<f64>().unwrap();
            }
        }
    }

    fn get(&self, name: &str, model: &str, own: &str) -> f64 {
        let key = (name.to_owned(), format!("model:{model}{own}"));
        self.sums.get(&key).copied().unwrap_or_default()
    }

    /// Returns the sum over all models for a value of the own tag.
    fn sum(&self, name: &str, own: &str) -> f64 {
        let all = self.sums.iter().filter(|((point, tags), _)| {
            let rest = tags.split_once(',').map_or("", |(_, rest)| rest);
            point == name && rest == own
        });
        all.map(|(_, value)| value).sum()
    }
}

/// The end of the last source.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Completes,
    FailsBeforeTheFirstToken,
    FailsInMidStream,
    RateLimited,
    Halted,
    AbortedInABackOff,
    Dropped,
}

const ENDINGS: [Ending; 7] = [
    Ending::Completes,
    Ending::FailsBeforeTheFirstToken,
    Ending::FailsInMidStream,
    Ending::RateLimited,
    Ending::Halted,
    Ending::AbortedInABackOff,
    Ending::Dropped,
];

/// The counts of one model.
#[derive(Debug, Default, PartialEq)]
struct Counted {
    /// Attempts by result: failed, completed, aborted, dropped.
    attempts: [f64; 4],
    first_tokens: f64,
    tokens: f64,
    wasted: f64,
    output: f64,
    network_errors: f64,
    rate_limits: f64,
    retries: f64,
    violations: f64,
    /// Back-off, in seconds.
    backoff: f64,
    requests: f64,
    durations: f64,
    /// Runs with a first token.
    run_first_tokens: f64,
    failures: f64,
    started: f64,
    finished: f64,
    fallbacks: f64,
}

/// The results of attempts, in the order of [`Counted`].
const RESULTS: [&str; 4] = ["failed", "completed", "aborted", "dropped"];

/// A source that fails twice, each time after two tokens.
fn given_up() -> Script {
    Script::new().attempt(|a| {
        let usage = Usage::new().input(10).output(3);
        a.tokens(["x", "y"])
            .usage(usage)
            .fail(ErrorKind::ConnectionReset)
    })
}

/// The counts of that source.
const GIVEN_UP: Counted = Counted {
    attempts: [2.0, 0.0, 0.0, 0.0],
    first_tokens: 2.0,
    tokens: 4.0,
    wasted: 4.0,
    output: 6.0,
    network_errors: 2.0,
    rate_limits: 0.0,
    retries: 1.0,
    violations: 0.0,
    backoff: 1.0,
    requests: 0.0,
    durations: 0.0,
    run_first_tokens: 0.0,
    failures: 0.0,
    started: 0.0,
    finished: 0.0,
    fallbacks: 1.0,
};

impl Ending {
    fn script(self) -> Script {
        let script = Script::new();
        match self {
            Self::Completes => {
                script.attempt(|a| a.tokens(["x", "y", "z"]).usage(Usage::new().output(5)))
            }
            Self::FailsBeforeTheFirstToken => {
                script.attempt(|a| a.connect_error(Failure::status(401)))
            }
            Self::FailsInMidStream => script.attempt(|a| a.token("x").fail(Failure::status(401))),
            Self::RateLimited => script.attempt(|a| a.connect_error(Failure::status(429))),
            Self::Halted => script.attempt(|a| a.tokens(["x", BAD, "y"])),
            Self::AbortedInABackOff => {
                script.attempt(|a| a.token("x").fail(ErrorKind::ConnectionReset))
            }
            Self::Dropped => script.attempt(|a| a.token("x").hang()),
        }
    }

    /// Returns the counts of the source, without those of the run.
    fn counted(self) -> Counted {
        let none = Counted::default();
        match self {
            Self::Completes => Counted {
                attempts: [0.0, 1.0, 0.0, 0.0],
                first_tokens: 1.0,
                tokens: 3.0,
                output: 5.0,
                ..none
            },
            Self::FailsBeforeTheFirstToken => Counted {
                attempts: [1.0, 0.0, 0.0, 0.0],
                failures: 1.0,
                ..none
            },
            Self::FailsInMidStream => Counted {
                attempts: [1.0, 0.0, 0.0, 0.0],
                first_tokens: 1.0,
                tokens: 1.0,
                failures: 1.0,
                ..none
            },
            Self::RateLimited => Counted {
                attempts: [2.0, 0.0, 0.0, 0.0],
                network_errors: 2.0,
                rate_limits: 2.0,
                retries: 1.0,
                backoff: 1.0,
                failures: 1.0,
                ..none
            },
            Self::Halted => Counted {
                attempts: [1.0, 0.0, 0.0, 0.0],
                first_tokens: 1.0,
                tokens: 2.0,
                violations: 1.0,
                failures: 1.0,
                ..none
            },
            // The last attempt is the one before the back-off.
            Self::AbortedInABackOff => Counted {
                attempts: [1.0, 0.0, 0.0, 0.0],
                first_tokens: 1.0,
                tokens: 1.0,
                network_errors: 1.0,
                retries: 1.0,
                backoff: 0.5,
                ..none
            },
            Self::Dropped => Counted {
                attempts: [0.0, 0.0, 0.0, 1.0],
                first_tokens: 1.0,
                tokens: 1.0,
                ..none
            },
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Self::Completes => Outcome::Completed,
            Self::AbortedInABackOff => Outcome::Aborted,
            Self::Dropped => Outcome::Dropped,
            _ => Outcome::Failed,
        }
    }

    /// Returns `true` if its source yields a token.
    fn has_token(self) -> bool {
        !matches!(self, Self::FailsBeforeTheFirstToken | Self::RateLimited)
    }

    async fn end(self, mut run: Run<'_, ScriptedToken, ScriptedError>, sources: usize) {
        match self {
            Self::AbortedInABackOff => {
                let handle = run.handle();
                let waits = SEC * (sources as u32 - 1) + 500 * MS;
                let (text, ()) = tokio::join!(run.text(), async {
                    tokio::time::sleep(waits).await;
                    handle.abort();
                });
                text.unwrap_err();
            }
            Self::Dropped => {
                // The source hangs after that.
                while let Ok(Some(item)) = tokio::time::timeout(2 * SEC, run.next()).await {
                    item.unwrap();
                }
            }
            _ => drop(run.text().await),
        }
    }
}

/// Returns the counts of a model in Prometheus.
fn in_prometheus(metrics: &Samples, model: &str) -> Counted {
    let of = |name: &str, own: &[(&str, &str)]| {
        let labels: Vec<_> = own.iter().copied().chain([("model", model)]).collect();
        metrics.sum(name, &labels)
    };
    let all = |name: &str| of(name, &[]);
    Counted {
        attempts: RESULTS.map(|result| of("l0_attempts_total", &[("result", result)])),
        first_tokens: all("l0_attempt_time_to_first_token_seconds_count"),
        tokens: all("l0_tokens_total"),
        wasted: all("l0_wasted_tokens_total"),
        output: all("l0_usage_output_tokens_total"),
        network_errors: all("l0_network_errors_total"),
        rate_limits: of(
            "l0_network_errors_by_type_total",
            &[("error_type", "rate_limited")],
        ),
        retries: all("l0_retries_total"),
        violations: all("l0_guardrail_violations_total"),
        backoff: all("l0_backoff_seconds_total"),
        requests: all("l0_requests_total"),
        durations: all("l0_request_duration_seconds_count"),
        run_first_tokens: all("l0_time_to_first_token_seconds_count"),
        failures: all("l0_failures_total"),
        started: all("l0_streams_started_total"),
        finished: all("l0_streams_finished_total"),
        // Counted under the labels of the start. The abandoned source is another label.
        fallbacks: metrics.sum("l0_fallbacks_total", &[("from", model)]),
    }
}

/// Returns the counts of a model in `StatsD`, where it has them.
fn in_statsd(statsd: &Statsd, model: &str, expected: &Counted) -> Counted {
    let all = |name: &str| statsd.get(name, model, "");
    Counted {
        attempts: RESULTS
            .map(|result| statsd.get("l0.attempts", model, &format!(",result:{result}"))),
        tokens: all("l0.tokens.total"),
        wasted: all("l0.tokens.wasted"),
        output: all("l0.usage.output"),
        network_errors: all("l0.network.errors"),
        rate_limits: statsd.get(
            "l0.network.errors_by_type",
            model,
            ",error_type:rate_limited",
        ),
        retries: all("l0.retries.total"),
        violations: all("l0.guardrails.violations"),
        requests: Outcome::ALL
            .iter()
            .map(|outcome| statsd.get("l0.runs", model, &format!(",outcome:{outcome}")))
            .sum(),
        fallbacks: all("l0.fallbacks"),
        // Sent in another form, or not at all.
        first_tokens: expected.first_tokens,
        backoff: expected.backoff,
        durations: expected.durations,
        run_first_tokens: expected.run_first_tokens,
        failures: expected.failures,
        started: expected.started,
        finished: expected.finished,
    }
}

fn retry() -> Retry {
    Retry::new().max_retries(1).backoff(Backoff::fixed(SEC))
}

/// Starts a run of these sources.
fn begin(l0: &L0, scripts: &[Script]) -> Run<'static, ScriptedToken, ScriptedError> {
    let [first, others @ ..] = scripts else {
        panic!("a run has a source");
    };
    let mut run = l0.stream(first.source()).metadata("model", MODELS[0]);
    for (script, model) in others.iter().zip(&MODELS[1..]) {
        run = run.fallback(source(script.source()).metadata("model", *model));
    }
    run.start()
}

#[tokio::test(start_paused = true)]
async fn each_number_belongs_to_the_model_that_produced_it() {
    for (sources, ending) in (1..=3).flat_map(|sources| ENDINGS.map(|ending| (sources, ending))) {
        for measured in [true, false] {
            let case = format!("{sources} sources, {ending:?}, measured: {measured}");
            let collector = Collector::builder().build().unwrap();
            let mut statsd = Statsd::start();
            let monitoring = if measured {
                Monitoring::new()
            } else {
                Monitoring::off()
            };
            let l0 = L0::builder()
                .monitoring(monitoring)
                .retry(retry())
                .guardrails(|| Halts(Severity::Fatal))
                .interceptor(collector.label_keys(["model"]).unwrap())
                .interceptor(statsd.interceptor())
                .build();
            let mut scripts = vec![given_up(); sources - 1];
            scripts.push(ending.script());
            ending.end(begin(&l0, &scripts), sources).await;
            statsd.take();

            let text = collector.expose();
            let metrics = read(&text);
            for (index, model) in MODELS.into_iter().enumerate().take(sources) {
                let is_last = index + 1 == sources;
                let mut expected = if is_last { ending.counted() } else { GIVEN_UP };
                if is_last {
                    expected.requests = 1.0;
                    expected.durations = 1.0;
                    let has_token = sources > 1 || ending.has_token();
                    expected.run_first_tokens = f64::from(u8::from(has_token));
                }
                if index == 0 {
                    (expected.started, expected.finished) = (1.0, 1.0);
                }
                if !measured {
                    expected = Counted {
                        backoff: expected.backoff,
                        failures: expected.failures,
                        started: expected.started,
                        finished: expected.finished,
                        fallbacks: expected.fallbacks,
                        ..Counted::default()
                    };
                }
                assert_eq!(in_prometheus(&metrics, model), expected, "{case}: {model}");
                if measured {
                    let counted = in_statsd(&statsd, model, &expected);
                    assert_eq!(counted, expected, "{case}: {model}, StatsD");
                }
            }
            let outcome = [("model", MODELS[0]), ("outcome", ending.outcome().as_str())];
            assert_eq!(
                metrics.sum("l0_streams_finished_total", &outcome),
                1.0,
                "{case}"
            );
            assert_eq!(metrics.sum("l0_streams_active", &[]), 0.0, "{case}");
            for pair in MODELS[..sources].windows(2) {
                let [from, to] = [pair[0], pair[1]];
                let labels = [("model", MODELS[0]), ("from", from), ("to", to)];
                assert_eq!(metrics.sum("l0_fallbacks_total", &labels), 1.0, "{case}");
            }
            // No other labels exist, and StatsD sends nothing for unmeasured runs.
            let known = |model: &str| MODELS[..sources].contains(&model);
            for labels in metrics.0.keys() {
                let model = labels.get("model");
                assert!(model.is_none_or(|model| known(model)), "{case}: {labels:?}");
            }
            assert_eq!(statsd.sums.is_empty(), !measured, "{case}");
        }
    }
}

/// The waiting model is visible only during the back-off.
#[tokio::test(start_paused = true)]
async fn a_back_off_is_visible_at_once_for_its_source() {
    let collector = Collector::builder().build().unwrap();
    let l0 = L0::builder()
        .retry(retry())
        .interceptor(collector.label_keys(["model"]).unwrap())
        .build();
    let denied = Script::new().attempt(|a| a.connect_error(Failure::status(401)));
    let limited = Script::new().attempt(|a| a.connect_error(Failure::status(429)));
    let mut run = begin(&l0, &[denied, limited]);
    let waited = tokio::time::timeout(250 * MS, run.next()).await;
    assert!(waited.is_err());
    let metrics = read(&collector.expose());
    let of = |name, model| metrics.sum(name, &[("model", model)]);
    assert_eq!(of("l0_backoff_seconds_total", "a"), 0.0);
    assert_eq!(of("l0_backoff_seconds_total", "b"), 0.25);
    assert_eq!(of("l0_streams_active", "a"), 1.0);
    assert_eq!(of("l0_streams_active_seconds_total", "a"), 0.25);
    let fallback = [("model", "a"), ("from", "a"), ("to", "b")];
    assert_eq!(metrics.sum("l0_fallbacks_total", &fallback), 1.0);
    // The run does not count for that model.
    for name in ["l0_streams_started_total", "l0_streams_active"] {
        let there = metrics.0.keys().any(|labels| {
            labels["__name__"] == name && labels.get("model").is_some_and(|model| model == "b")
        });
        assert!(!there, "{name}");
    }
}

/// A source without a model is named by its number, and a long name is truncated.
#[tokio::test(start_paused = true)]
async fn fallbacks_name_models_or_else_numbers() {
    let collector = Collector::builder().build().unwrap();
    let l0 = L0::builder().interceptor(collector.interceptor()).build();
    let denied = Script::new().attempt(|a| a.connect_error(Failure::status(401)));
    let long = "x".repeat(300);
    let run = l0
        .stream(denied.source())
        .fallback(source(denied.source()).metadata("model", &*long))
        .fallback(source(denied.source()).metadata("model", ""));
    run.start().text().await.unwrap_err();
    let metrics = read(&collector.expose());
    for (from, to) in [("1", &long[..256]), (&long[..256], "3")] {
        let pair = [("from", from), ("to", to)];
        assert_eq!(metrics.sum("l0_fallbacks_total", &pair), 1.0, "{from} {to}");
    }
    // A manual record gives the same, from its attempts.
    let by_hand = Collector::builder().build().unwrap();
    let l0 = l0.to_builder().monitoring(Monitoring::new()).build();
    let mut run = l0
        .stream(denied.source())
        .metadata("model", "m")
        .fallback(source(denied.source()))
        .start();
    run.text().await.unwrap_err();
    by_hand.record(&run.telemetry().unwrap(), &Labels::none());
    let pair = [("from", "m"), ("to", "2")];
    assert_eq!(
        read(&by_hand.expose()).sum("l0_fallbacks_total", &pair),
        1.0
    );
}

/// A call counts as a stream of one answer.
#[tokio::test(start_paused = true)]
async fn a_call_counts_as_a_run() {
    let collector = Collector::builder().build().unwrap();
    let l0 = L0::builder()
        .retry(Retry::none())
        .interceptor(collector.label_keys(["model"]).unwrap())
        .build();
    let answer = |text: &str| {
        let mut answer = ScriptedToken::new(l0_core::TokenKind::Text, text);
        answer.usage = Some(Usage::new().input(7).output(2));
        answer
    };
    let call = l0
        .call(|_attempt| async { Err::<ScriptedToken, ScriptedError>(Failure::status(503).into()) })
        .metadata("model", "a")
        .fallback(
            source(move |_attempt| {
                let answer = answer("yes");
                async move { Ok(answer) }
            })
            .metadata("model", "b"),
        );
    call.start().await.unwrap();
    let metrics = read(&collector.expose());
    let of = |name, model| metrics.sum(name, &[("model", model)]);
    for (name, a, b) in [
        ("l0_streams_started_total", 1.0, 0.0),
        ("l0_streams_finished_total", 1.0, 0.0),
        ("l0_streams_active", 0.0, 0.0),
        ("l0_requests_total", 0.0, 1.0),
        ("l0_request_duration_seconds_count", 0.0, 1.0),
        ("l0_usage_input_tokens_total", 0.0, 7.0),
        ("l0_usage_output_tokens_total", 0.0, 2.0),
        ("l0_network_errors_total", 1.0, 0.0),
        ("l0_attempts_total", 1.0, 1.0),
        // The answer of a call is not a token.
        ("l0_tokens_total", 0.0, 0.0),
        ("l0_time_to_first_token_seconds_count", 0.0, 0.0),
        ("l0_attempt_time_to_first_token_seconds_count", 0.0, 0.0),
    ] {
        assert_eq!((of(name, "a"), of(name, "b")), (a, b), "{name}");
    }
}

/// Returns a random attempt.
fn any_attempt(rng: &mut Rng, mut attempt: ScriptedAttempt) -> ScriptedAttempt {
    if rng.u8(..4) == 0 {
        attempt = attempt.connect_wait(rng.u32(1..400) * MS);
    }
    match rng.u8(..12) {
        0 => return attempt.connect_error(Failure::status(429)),
        1 => return attempt.connect_error(Failure::status(401)),
        2 => return attempt.connect_hang(),
        _ => {}
    }
    for _ in 0..rng.u8(..5) {
        if rng.bool() {
            attempt = attempt.wait(rng.u32(1..50) * MS);
        }
        attempt = attempt.token(["x", "y", " ", BAD][rng.usize(..4)]);
    }
    if rng.bool() {
        let usage = Usage::new().input(rng.u64(..100)).output(rng.u64(..100));
        attempt = attempt.usage(usage.reasoning(rng.u64(..50)));
    }
    match rng.u8(..6) {
        0 => attempt.fail(ErrorKind::ConnectionReset),
        1 => attempt.fail(Failure::status(503)),
        2 => attempt.fail(Failure::status(400)),
        3 => attempt.hang(),
        4 => attempt.finish(FinishReason::Stop),
        _ => attempt,
    }
}

fn any_script(rng: &mut Rng) -> Script {
    (0..rng.u8(1..4)).fold(Script::new(), |script, _| {
        script.attempt(|attempt| any_attempt(rng, attempt))
    })
}

/// Runs random sources, read to the end or not. Returns the telemetry.
async fn any_run(l0: &L0, rng: &mut Rng) -> Telemetry {
    let scripts: Vec<_> = (0..rng.usize(1..=3)).map(|_| any_script(rng)).collect();
    let mut run = begin(l0, &scripts);
    let handle = run.handle();
    match rng.u8(..4) {
        0 => {
            for _ in 0..rng.u8(..6) {
                let _ = tokio::time::timeout(rng.u32(1..2_000) * MS, run.next()).await;
            }
            drop(run);
        }
        1 => {
            let abort = async {
                tokio::time::sleep(rng.u32(..5_000) * MS).await;
                handle.abort();
            };
            let _ = tokio::join!(run.text(), abort);
        }
        _ => drop(run.text().await),
    }
    handle.telemetry().unwrap()
}

/// Sums over all models the series that must be equal everywhere. A record does not contain the model of a
/// source that was never called.
fn without_model(samples: Samples) -> BTreeMap<samples::Labels, f64> {
    let mut sums: BTreeMap<samples::Labels, f64> = BTreeMap::new();
    for (mut labels, value) in samples.0 {
        labels.remove("model");
        labels.remove("to");
        *sums.entry(labels).or_default() += value;
    }
    sums
}

#[tokio::test(start_paused = true)]
async fn sums_over_all_models_equal_those_of_the_runs() {
    /// Metrics of interceptors only, the gauge of the last run, and metrics with a value for each source of a
    /// run.
    const APART: [&str; 6] = [
        "l0_output_tokens_per_second",
        "l0_streams_",
        "l0_stream_oldest_",
        "l0_backoff_",
        "l0_tokens_per_second",
        "l0_stream_max_gap_",
    ];

    let (by_model, in_all) = (
        Collector::builder().build().unwrap(),
        Collector::builder().build().unwrap(),
    );
    let mut statsd = Statsd::start();
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(retry())
        .timeouts(Timeouts::new().inter_token(3 * SEC).first_token(3 * SEC))
        .guardrails(|| Halts(Severity::Error))
        .interceptor(by_model.label_keys(["model"]).unwrap())
        .interceptor(statsd.interceptor())
        .build();
    let mut rng = Rng::with_seed(7);
    let mut totals: BTreeMap<(String, String), f64> = BTreeMap::new();
    let mut fell_back = 0;
    for number in 0..10_000 {
        let telemetry = any_run(&l0, &mut rng).await;
        fell_back += u32::from(telemetry.fallbacks() > 0);
        in_all.record(&telemetry, &Labels::none());
        statsd.take();
        for quantity in Quantity::ALL {
            let name = format!("l0.{}", quantity.name);
            let mut add = |own: String, value: f64| {
                *totals.entry((name.clone(), own)).or_default() += value;
            };
            if let Some(l0_core::Value::Count(count)) = quantity.value(&telemetry) {
                add(String::new(), count as f64);
            }
            quantity.each(&telemetry, &mut |values, number| {
                let labels = quantity.labels().iter().zip(values);
                let labels = labels.map(|(label, value)| format!("{label}:{value}"));
                add(labels.collect::<Vec<_>>().join(","), number.as_f64());
            });
        }
        if number % 500 == 499 {
            let apart = |labels: &samples::Labels| {
                APART
                    .iter()
                    .any(|name| labels["__name__"].starts_with(name))
            };
            let mut sums = without_model(read(&by_model.expose()));
            let mut expected = without_model(read(&in_all.expose()));
            sums.retain(|labels, _| !apart(labels));
            expected.retain(|labels, _| !apart(labels));
            assert_eq!(sums.len(), expected.len());
            for (labels, expected) in &expected {
                let sum = sums[labels];
                // Seconds are summed in another order.
                let close = (sum - expected).abs() <= expected.abs() * 1e-9;
                assert!(close, "run {number}: {labels:?}: {sum} is not {expected}");
            }
            for ((name, own), total) in &totals {
                assert_eq!(statsd.sum(name, own), *total, "run {number}: {name} {own}");
            }
        }
    }
    assert!(fell_back > 2_000, "{fell_back}");
    assert_eq!(l0.observer_panics(), 0);
}
