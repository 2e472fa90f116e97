//! The sent chats, and their expected counts.

use futures_util::future::join_all;
use l0_examples::MODELS;
use l0_examples::chat_client::ChatEvent;
use l0_examples::server::Fault;

use crate::common::{ANSWER, Samples, Service, count};

/// The number of tokens before a fault in mid-stream that loses none.
const MIDDLE: usize = 12;

/// The number of tokens that the server bills for an answer that violates rules.
const BAD_ANSWER: usize = 13;

/// A kind of chat: the faults of its requests to the model, and its expected counts.
pub(crate) struct Kind {
    faults: &'static [Fault],
    outcome: &'static str,
    network_retries: u32,
    model_retries: u32,
    errors: &'static [&'static str],
    /// Severity and rule.
    violations: &'static [(&'static str, &'static str)],
}

/// A chat without faults.
const PLAIN: Kind = Kind {
    faults: &[],
    outcome: "completed",
    network_retries: 0,
    model_retries: 0,
    errors: &[],
    violations: &[],
};

/// A chat whose client disconnects.
pub(crate) const DROPPED: Kind = Kind {
    faults: &[Fault::Stall],
    outcome: "dropped",
    ..PLAIN
};

/// All kinds of chats with faults.
pub(crate) const KINDS: [Kind; 10] = [
    Kind {
        faults: &[Fault::Break],
        network_retries: 1,
        // A chunked body without its end.
        errors: &["partial_chunks"],
        ..PLAIN
    },
    Kind {
        faults: &[Fault::Cut],
        network_retries: 1,
        errors: &["partial_chunks"],
        ..PLAIN
    },
    Kind {
        faults: &[Fault::RateLimited, Fault::RateLimited],
        network_retries: 2,
        errors: &["rate_limited", "rate_limited"],
        ..PLAIN
    },
    Kind {
        faults: &[Fault::Unavailable],
        network_retries: 1,
        errors: &["server_error"],
        ..PLAIN
    },
    Kind {
        faults: &[Fault::Empty],
        model_retries: 1,
        violations: &[("error", "zero-output")],
        ..PLAIN
    },
    Kind {
        faults: &[Fault::Bad],
        model_retries: 1,
        violations: &[
            ("error", "pattern-meta-commentary"),
            ("error", "markdown-fences"),
            ("error", "markdown-complete"),
            ("warning", "pattern-hedging"),
        ],
        ..PLAIN
    },
    Kind {
        faults: &[Fault::Cut; 7],
        outcome: "truncated",
        network_retries: 6,
        errors: &["partial_chunks"; 7],
        ..PLAIN
    },
    Kind {
        faults: &[Fault::Forbidden],
        outcome: "failed",
        ..PLAIN
    },
    Kind {
        faults: &[Fault::Silence],
        outcome: "timed_out",
        errors: &["timeout"],
        ..PLAIN
    },
    DROPPED,
];

/// The sent chats, with the events of their clients.
#[derive(Default)]
pub(crate) struct Sent(Vec<(&'static str, &'static Kind, Vec<ChatEvent>)>);

impl Sent {
    /// Sends some chats of every kind, and waits until the runs have ended.
    pub(crate) async fn round(&mut self, service: &Service, impatient: &Service) {
        for (kind, model) in KINDS.iter().zip(MODELS[..2].iter().cycle()) {
            let patience = if kind.outcome == "timed_out" {
                impatient
            } else {
                service
            };
            self.one(patience, kind, model).await;
        }
        self.plain(service, 3).await;
        service.at_rest().await;
    }

    /// Sends one chat.
    pub(crate) async fn one(
        &mut self,
        service: &Service,
        kind: &'static Kind,
        model: &'static str,
    ) {
        service.upstream.fail_next(kind.faults.iter().copied());
        let events = if kind.outcome == "dropped" {
            service.go_away(model, MIDDLE).await
        } else {
            service.chat(model).await
        };
        self.0.push((model, kind, events));
    }

    /// Sends chats without faults, all concurrently.
    pub(crate) async fn plain(&mut self, service: &Service, of_each_model: usize) {
        let models = MODELS.repeat(of_each_model);
        let chats = models.iter().map(|model| service.chat(model));
        for (model, events) in models.iter().zip(join_all(chats).await) {
            self.0.push((model, &PLAIN, events));
        }
    }

    fn total(&self, of: impl Fn(&Kind, &[ChatEvent]) -> usize) -> f64 {
        let all = self.0.iter().map(|(_, kind, events)| of(kind, events));
        all.sum::<usize>() as f64
    }

    /// Compares the metrics with the sent chats.
    pub(crate) fn check(&self, metrics: &Samples) {
        let is = |name: &str, labels: &[(&str, &str)], expected: f64| {
            assert_eq!(metrics.sum(name, labels), expected, "{name} {labels:?}");
        };
        let attempts = |events: &[ChatEvent]| -> Vec<usize> {
            let attempts = events.split(|event| event.name == "restart");
            attempts.map(|events| count(events, "token")).collect()
        };
        for model in MODELS {
            let of_model = |(one, _, _): &&(&str, _, Vec<ChatEvent>)| *one == model;
            let chats: Vec<_> = self.0.iter().filter(of_model).collect();
            let tokens = chats.iter().map(|(_, _, events)| count(events, "token"));
            let labels = [("model", model), ("endpoint", "/chat")];
            is("l0_requests_total", &labels, chats.len() as f64);
            is("l0_tokens_total", &labels, tokens.sum::<usize>() as f64);
        }
        let chats = self.total(|_, _| 1);
        is("l0_requests_total", &[], chats);
        is("l0_request_duration_seconds_count", &[], chats);
        is("l0_streams_started_total", &[], chats);
        is("l0_streams_active", &[], 0.0);
        let with_tokens = self.total(|_, events| (count(events, "token") > 0).into());
        is("l0_time_to_first_token_seconds_count", &[], with_tokens);
        is("l0_stream_max_gap_seconds_count", &[], with_tokens);
        is("l0_output_tokens_per_second_count", &[], with_tokens);
        let gaps = self.total(|_, events| {
            let gaps = attempts(events).into_iter();
            gaps.map(|tokens| tokens.saturating_sub(1)).sum()
        });
        is("l0_inter_token_seconds_count", &[], gaps);
        let wasted = self.total(|_, events| {
            let attempts = attempts(events);
            attempts[..attempts.len() - 1].iter().sum()
        });
        is("l0_wasted_tokens_total", &[], wasted);
        let complete = self.total(|kind, _| (kind.outcome == "completed").into());
        // The discarded answers were billed too.
        let bad = self.total(|kind, _| (kind.faults == [Fault::Bad]).into());
        let wasted = bad * BAD_ANSWER as f64;
        is(
            "l0_usage_output_tokens_total",
            &[],
            complete * ANSWER as f64 + wasted,
        );
        is("l0_usage_wasted_output_tokens_total", &[], wasted);

        let network = self.total(|kind, _| kind.network_retries as usize);
        let model = self.total(|kind, _| kind.model_retries as usize);
        is("l0_retries_network_total", &[], network);
        is("l0_retries_model_total", &[], model);
        is("l0_retries_total", &[], network + model);
        let errors = self.total(|kind, _| kind.errors.len());
        is("l0_network_errors_total", &[], errors);
        is("l0_network_errors_by_type_total", &[], errors);
        let violations = self.total(|kind, _| kind.violations.len());
        is("l0_guardrail_violations_total", &[], violations);
        let drifted = self.total(|kind, _| (kind.faults == [Fault::Bad]).into());
        is("l0_drift_detected_total", &[], drifted);
        for kind in KINDS.iter().chain([&PLAIN]) {
            let outcome = self.total(|one, _| (one.outcome == kind.outcome).into());
            let label = [("outcome", kind.outcome)];
            is("l0_streams_finished_total", &label, outcome);
            for error in kind.errors {
                let of_type =
                    |one: &Kind, _: &[_]| one.errors.iter().filter(|one| *one == error).count();
                let label = [("error_type", *error)];
                let expected = self.total(of_type);
                is("l0_network_errors_by_type_total", &label, expected);
            }
            for (severity, rule) in kind.violations {
                let expected = self.total(|one, _| {
                    let of_rule = one.violations.iter().filter(|(_, one)| one == rule);
                    of_rule.count()
                });
                let label = [("rule", *rule)];
                is("l0_guardrail_violations_by_rule_total", &label, expected);
                let expected = self.total(|one, _| {
                    let of_severity = one.violations.iter().filter(|(one, _)| one == severity);
                    of_severity.count()
                });
                let label = [("severity", *severity)];
                is(
                    "l0_guardrail_violations_by_severity_total",
                    &label,
                    expected,
                );
            }
        }
        is("l0_streams_finished_total", &[], chats);
        is("l0_series_overflow_total", &[], 0.0);
        is("l0_observer_panics_total", &[], 0.0);
    }
}
