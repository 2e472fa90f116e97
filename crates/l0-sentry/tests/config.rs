//! The effect of each option of the configuration, and its default.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;

use common::{Sentry, forbids, l0, message, paused, tags};
use futures_util::StreamExt;
use l0_core::testing::Script;
use l0_core::{
    End, Error, Failure, Interceptor, Keep, Monitoring, Retry, Severity, Violation, redact,
};
use l0_sentry::{
    SentryConfig, SentryExecution, SentryIntegration, SentryInterceptor, with_sentry,
    with_sentry_by,
};
use sentry::{ClientOptions, Hub};
use serde_json::json;

/// Runs a source to its end.
fn run(config: SentryConfig, script: &Script) {
    let odd = Violation::new("no-odds", Severity::Warning, "an odd phrase");
    let l0 = l0(config)
        .retry(Retry::new().max_retries(0))
        .guardrails(forbids("odd", odd))
        .build();
    let run = l0
        .stream(script.source())
        .metadata("model", "gpt-4")
        .metadata("tenant", "t-1")
        .metadata("unlisted", "x")
        .start();
    paused().block_on(run.for_each(|_| async {}));
}

fn odd() -> Script {
    Script::new().attempt(|a| a.token("an odd answer ").fail(Failure::status(404)))
}

#[test]
fn options_decide_what_is_captured() {
    type Change = fn(SentryConfig) -> SentryConfig;
    let reset = Script::new().attempt(|a| a.fail(std::io::ErrorKind::ConnectionReset));
    let cause = message(std::io::ErrorKind::ConnectionReset);
    let network = format!("error Network error: econnreset: {cause}");
    let network = &[&*network][..];
    let failure = message(Failure::status(404));
    let failure = &*format!("error L0 execution failed: {failure}");
    let violation = "warning Guardrail violation: no-odds: an odd phrase";
    for (change, script, titles) in [
        ((|config| config) as Change, &reset, network),
        (|config| config.capture_network_errors(false), &reset, &[]),
        (|config| config, &odd(), &[failure]),
        (
            |config| config.min_guardrail_severity(Severity::Warning),
            &odd(),
            &[violation, failure],
        ),
        (
            |config| {
                let config = config.min_guardrail_severity(Severity::Warning);
                config.capture_guardrail_violations(false)
            },
            &odd(),
            &[failure],
        ),
    ] {
        let sentry = Sentry::start();
        run(change(sentry.config()), script);
        assert_eq!(sentry.sent().titles(), titles);
        // The breadcrumbs are always the same.
        let trail = sentry.trail();
        let left = trail.iter().any(|line| line.contains("l0.network"));
        assert_eq!(left, std::ptr::eq(script, &raw const reset), "{trail:?}");
    }
}

#[test]
fn tokens_add_breadcrumbs_and_their_texts_when_enabled() {
    let long = "a long token of which no more than fifty characters are shown";
    for (tokens, text, expected) in [
        (false, false, vec![]),
        (false, true, vec![]),
        (true, false, vec!["Token received"; 2]),
        (
            true,
            true,
            vec![
                "Token: Hello",
                "Token: a long token of which no more than fifty character",
            ],
        ),
    ] {
        let sentry = Sentry::start();
        let config = sentry.config().breadcrumbs_for_tokens(tokens);
        run(
            config.include_token_text(text),
            &Script::new().attempt(|a| a.tokens(["Hello", long])),
        );
        let trail = sentry.trail();
        let left = trail
            .iter()
            .filter_map(|line| line.strip_prefix("debug l0.token: "));
        assert_eq!(left.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn spans_are_sent_if_enabled_in_the_configuration_and_the_client() {
    for (client, config, expected) in [
        (true, true, 1),
        (true, false, 0),
        (false, true, 0),
        (false, false, 0),
    ] {
        let sentry = Sentry::with(|options| match client {
            true => options.traces_sample_rate(1.0),
            false => options,
        });
        run(sentry.config().enable_tracing(config), &odd());
        let sent = sentry.sent();
        assert_eq!((sent.events.len(), sent.transactions.len()), (1, expected));
    }
}

#[test]
fn the_sampler_of_the_client_decides_for_each_run() {
    for rate in [0.0, 1.0] {
        let sentry = Sentry::with(|options| {
            options.traces_sampler(move |context| {
                assert_eq!(context.operation(), "l0.execution");
                // The sampler can use Sentry itself.
                sentry::configure_scope(|scope| scope.set_tag("sampled", rate));
                rate
            })
        });
        run(sentry.config(), &odd());
        let sent = sentry.sent();
        assert_eq!(sent.transactions.len(), rate as usize);
        assert_eq!(sent.event().tags["sampled"], rate.to_string());
    }
}

#[test]
fn tags_come_from_the_configuration_and_the_listed_metadata() {
    let sentry = Sentry::start();
    let config = sentry
        .config()
        .tag("environment", "staging")
        .tag("environment", "production")
        .tag("tenant", "none")
        .tag("a b", "c\nd")
        .tag("", "nothing")
        .tag("nothing", " ")
        .tag_keys(["model"])
        .and_then(|config| config.tag_keys(["tenant", "absent"]))
        .unwrap();
    run(config, &odd());
    let sent = sentry.sent();
    let expected = [
        ("a_b", "c d"),
        ("environment", "production"),
        ("model", "gpt-4"),
        ("tenant", "t-1"),
    ];
    assert_eq!(tags(&sent.transaction().tags), expected);
    let mut all = tags(&sent.event().tags);
    all.retain(|(key, _)| !["component", "error_type"].contains(key));
    assert_eq!(all, expected);
    assert!(!sent.text.contains("unlisted"));
}

#[test]
fn a_key_that_cannot_be_a_tag_is_an_error() {
    for (keys, error) in [
        (
            vec!["model", ""],
            "the metadata key \"\" cannot be sent: it is not a text of at least one character",
        ),
        (
            vec!["rule"],
            "the metadata key \"rule\" cannot be sent as `rule`, which is a reserved name: \
             choose another key",
        ),
        (
            vec!["error type"],
            "the metadata key \"error type\" cannot be sent as `error_type`, which is a reserved \
             name: choose another key",
        ),
        (
            vec!["user id", "user/id"],
            "the metadata keys \"user/id\" and \"user id\" would both be sent as `user_id`",
        ),
    ] {
        let refused = SentryConfig::new().tag_keys(keys).unwrap_err();
        assert_eq!(refused.to_string(), error);
    }
    // Names that only other exporters send are allowed.
    let config = SentryConfig::new().tag_keys(["environment", "level", "outcome"]);
    assert!(config.is_ok());
}

/// Manual reports only. For runs, `Monitoring` decides.
#[test]
fn texts_of_errors_are_sent_when_enabled() {
    let error = || std::io::Error::other("the prompt is too long");
    let text = redact::error_text(&error());
    for (switch, expected) in [(false, redact::message(&error())), (true, text)] {
        let sentry = Sentry::start();
        let config = || sentry.config().error_text(switch);
        let start = || SentryIntegration::new(config()).start_execution("", [("a", 1)]);
        start().fail(&error(), None);

        let mut execution = start();
        execution.record_network_error(&error(), false);
        execution.complete(None);

        let l0 = l0_core::L0::default();
        let run = async {
            let mut run = l0
                .stream(|_attempt| async { Err::<futures_util::stream::Empty<_>, _>(error()) })
                .view_with(|_: &()| l0_core::TokenView::text(""))
                .start();
            run.text().await
        };
        paused().block_on(with_sentry(config(), run)).unwrap_err();
        assert_eq!(
            sentry.sent().titles(),
            [
                format!("error L0 execution failed: {expected}"),
                format!("error Network error: unknown: {expected}"),
                format!("error L0 execution failed: {expected}"),
            ]
        );
        let trail = sentry.trail();
        let left = format!(r#""message":"{expected}""#);
        assert!(trail.iter().any(|line| line.contains(&left)), "{trail:?}");
    }
}

#[test]
fn only_well_known_and_listed_metadata_is_sent() {
    for (config, expected) in [
        (SentryConfig::new(), json!({ "model": "gpt-4" })),
        (
            SentryConfig::new().tag_keys(["tenant"]).unwrap(),
            json!({ "model": "gpt-4", "tenant": "t-1" }),
        ),
    ] {
        let sentry = Sentry::start();
        run(config.hub(Arc::clone(&sentry.hub)), &odd());
        let started = format!("info l0: L0 execution started {expected}");
        assert_eq!(sentry.trail()[0], started);
    }
}

#[test]
fn an_envelope_stays_within_sentrys_limit_for_metadata_of_any_size() {
    let long = "é".repeat(1_000_000);
    for value in [json!(long), json!([long, 1]), json!({ "a": [long] })] {
        let sentry = Sentry::start();
        let l0 = l0(sentry.config().tag_keys(["tenant"]).unwrap()).build();
        let script = odd();
        let mut run = l0.stream(script.source());
        for key in ["model", "provider", "endpoint", "tenant"] {
            run = run.metadata(key, value.clone());
        }
        paused().block_on(run.start().for_each(|_| async {}));
        let sent = sentry.sent();
        assert_eq!((sent.events.len(), sent.transactions.len()), (1, 1));
        assert!(sent.text.len() < 32 * 1024, "{}", sent.text.len());
    }
}

#[test]
fn the_hub_of_the_configuration_takes_precedence_over_the_current_one() {
    let (given, current) = (Sentry::start(), Sentry::start());
    Hub::run(Arc::clone(&current.hub), || {
        run(given.config(), &odd());
        assert_eq!(given.sent().events.len(), 1);
        assert!(current.sent().events.is_empty());
        run(SentryConfig::new(), &odd());
        assert_eq!(current.sent().events.len(), 1);
    });
}

#[test]
fn without_an_enabled_client_nothing_is_reported_and_nothing_fails() {
    for client in [None, Some(ClientOptions::new())] {
        let client = client.map(|options| Arc::new(options.into()));
        let hub = Arc::new(Hub::new(client, Arc::default()));
        let config = SentryConfig::new().hub(hub);
        run(config.clone(), &odd());
        let mut execution =
            SentryIntegration::new(config).start_execution("x", [("user_id", "123")]);
        execution.start_stream();
        execution.complete(None);
    }
}

#[test]
fn types_are_send_and_debug_hides_the_hub() {
    fn check<T: Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
    check::<SentryConfig>();
    check::<SentryInterceptor>();
    check::<SentryIntegration>();
    check::<SentryExecution>();
    fn send(_: &(impl Send + Unpin)) {}
    send(&with_sentry(SentryConfig::new(), async {
        Ok::<_, Error<std::io::Error>>(())
    }));
    send(&with_sentry_by(SentryConfig::new(), async {}, |()| {
        End::completed()
    }));
    let interceptor: Box<dyn Interceptor> = Box::new(SentryInterceptor::default());
    assert!(interceptor.needs_telemetry());

    let hub = Sentry::start().hub;
    hub.configure_scope(|scope| scope.set_tag("canary", "c4n4ry"));
    let config = SentryConfig::new().hub(hub).tag("service", "chat");
    let shown = format!("{config:?}");
    assert!(
        shown.contains("chat") && !shown.contains("c4n4ry"),
        "{shown}"
    );
}

#[test]
fn a_run_that_is_not_kept_sends_nothing() {
    let denied = Script::new().attempt(|a| a.token("no").fail(Failure::status(401)));
    let fine = Script::new().attempt(|a| a.token("yes"));
    for (keep, script, events, transactions) in [
        (Keep::all(), &denied, 1, 1),
        (Keep::all(), &fine, 0, 1),
        (Keep::rate(0.0), &denied, 0, 0),
        (Keep::rate(0.0).failures(), &denied, 1, 1),
        (Keep::rate(0.0).failures(), &fine, 0, 0),
    ] {
        let sentry = Sentry::start();
        let l0 = sentry.l0().monitoring(Monitoring::new().keep(keep)).build();
        let run = l0.stream(script.source()).retry(Retry::none()).start();
        paused().block_on(run.for_each(|_| async {}));
        let sent = sentry.sent();
        let sent = (sent.events.len(), sent.transactions.len());
        assert_eq!(sent, (events, transactions), "{keep:?}");
    }
}
