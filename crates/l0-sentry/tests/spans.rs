//! The places of spans in traces, and their data.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use common::{Sentry, l0, message, paused, span, stable, status, trace};
use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedToken};
use l0_core::{
    Attempt, Cause, End, Error, Failure, FinishReason, L0, LimitKind, Refusal, Severity,
    TimeoutKind, TokenKind, Usage, Violation,
};
use l0_sentry::{Parent, SentryConfig, with_sentry, with_sentry_by};
use sentry::protocol::SpanStatus;
use sentry::{Hub, TransactionContext};
use serde_json::json;

const MS: Duration = Duration::from_millis(1);

fn hello() -> Script {
    Script::new().attempt(|a| a.wait(5 * MS).tokens(["Hello", "!"]))
}

fn run(config: SentryConfig, script: &Script) {
    let l0 = l0(config).build();
    let run = l0.stream(script.source()).start();
    paused().block_on(run.for_each(|_| async {}));
}

/// Starts the transaction of a request, in the scope of the hub.
fn request(hub: &Arc<Hub>, sampled: bool) -> sentry::Transaction {
    let mut context = TransactionContext::new("GET /chat", "http.server");
    context.set_sampled(sampled);
    let request = hub.start_transaction(context);
    hub.configure_scope(|scope| scope.set_span(Some(request.clone().into())));
    request
}

fn finish(hub: &Arc<Hub>, request: sentry::Transaction) {
    Hub::run(Arc::clone(hub), || request.finish());
}

#[test]
fn a_run_is_a_transaction_in_the_trace_of_the_span_in_scope() {
    let sentry = Sentry::start();
    let request = request(&sentry.hub, true);
    let parent = request.get_trace_context();
    let l0 = l0(sentry.config()).build();
    let run = l0.stream(hello().source()).start();
    // The transaction of a request ends before its body is streamed.
    finish(&sentry.hub, request);
    assert_eq!(sentry.sent().transaction().spans.len(), 0);
    paused().block_on(run.for_each(|_| async {}));

    let sent = sentry.sent();
    let own = trace(sent.transaction());
    assert_eq!(own.trace_id, parent.trace_id);
    assert_eq!(own.parent_span_id, Some(parent.span_id));
    let stream = span(sent.transaction(), "l0.stream.consume");
    assert_eq!(stream.parent_span_id, Some(own.span_id));
    assert_eq!(stream.trace_id, own.trace_id);
}

#[test]
fn a_run_is_a_child_of_the_span_in_scope_on_request() {
    let sentry = Sentry::start();
    let request = request(&sentry.hub, true);
    let parent = request.get_trace_context();
    let config = sentry.config().parent(Parent::Child);
    run(config.tag("service", "chat"), &hello());
    assert!(sentry.sent().transactions.is_empty());
    finish(&sentry.hub, request);

    let sent = sentry.sent();
    let transaction = sent.transaction();
    assert_eq!(transaction.name.as_deref(), Some("GET /chat"));
    let own = span(transaction, "l0.execution");
    assert_eq!(own.parent_span_id, Some(parent.span_id));
    assert_eq!(own.description.as_deref(), Some("l0.execution"));
    assert_eq!(own.status, Some(SpanStatus::Ok));
    assert_eq!(own.tags["service"], "chat");
    assert_eq!(
        (&own.data["tokens"], &own.data["outcome"]),
        (&json!(2), &json!("completed"))
    );
    let stream = span(transaction, "l0.stream.consume");
    assert_eq!(stream.parent_span_id, Some(own.span_id));
    assert!(transaction.tags.is_empty());
    assert!(!transaction.contexts.contains_key("l0_telemetry"));
}

#[test]
fn a_child_without_a_parent_is_a_transaction() {
    let sentry = Sentry::start();
    run(sentry.config().parent(Parent::Child), &hello());
    assert_eq!(
        sentry.sent().spans(),
        ["l0.execution ok", "l0.attempt ok", "l0.stream.consume ok"]
    );
}

#[test]
fn a_run_in_a_trace_that_is_not_sampled_is_not_sampled() {
    for parent in [Parent::Trace, Parent::Child] {
        let sentry = Sentry::start();
        let request = request(&sentry.hub, false);
        run(sentry.config().parent(parent), &hello());
        finish(&sentry.hub, request);
        assert!(sentry.sent().transactions.is_empty());
    }
}

#[test]
fn an_error_is_linked_to_the_span_of_its_execution() {
    let sentry = Sentry::start();
    run(
        sentry.config(),
        &Script::new().attempt(|a| a.fail("broken")),
    );
    let sent = sentry.sent();
    let own = json!(trace(sent.transaction()));
    let linked = json!(sent.event().contexts["trace"]);
    assert_eq!(linked["span_id"], own["span_id"]);
    assert_eq!(linked["trace_id"], own["trace_id"]);
}

#[test]
fn a_call_of_a_known_model_is_a_span_of_the_ai_dashboards() {
    let sentry = Sentry::start();
    let l0 = sentry.l0().build();
    let usage = {
        let mut usage = Usage::default();
        (usage.input, usage.output, usage.total) = (Some(12), Some(2), Some(14));
        (usage.cached_input, usage.reasoning) = (Some(8), Some(1));
        usage.cache_write_input = Some(3);
        usage
    };
    let mut first = ScriptedToken::new(TokenKind::Text, "Hello");
    first.model = Some("gpt-4-0613".to_owned());
    first.response_id = Some("resp_1".to_owned());
    let script = Script::new().attempt(|a| {
        let a = a.wait(5 * MS).item(first.clone()).wait(5 * MS).token("!");
        a.usage(usage).finish(FinishReason::Stop)
    });
    paused().block_on(async {
        let run = l0
            .stream(script.source())
            .metadata("model", "gpt-4")
            .metadata("provider", "openai")
            .metadata("conversation_id", "c-1")
            .metadata("agent_name", "researcher")
            .metadata("pipeline_name", "summaries")
            .start();
        run.for_each(|_| async {}).await;
    });

    let sent = sentry.sent();
    let call = span(sent.transaction(), "gen_ai.chat");
    assert_eq!(call.description.as_deref(), Some("chat gpt-4"));
    assert_eq!(call.status, Some(SpanStatus::Ok));
    let stream = span(sent.transaction(), "l0.stream.consume");
    assert_eq!(call.parent_span_id, Some(stream.span_id));
    assert_eq!(
        json!(call.data),
        json!({
            "attempt": 1,
            "source": 1,
            "outcome": "completed",
            "attempt_tokens": 2,
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4",
            "gen_ai.conversation.id": "c-1",
            "gen_ai.agent.name": "researcher",
            "gen_ai.pipeline.name": "summaries",
            "gen_ai.response.model": "gpt-4-0613",
            "gen_ai.response.id": "resp_1",
            "gen_ai.response.streaming": true,
            "gen_ai.response.finish_reasons": "stop",
            "gen_ai.response.time_to_first_chunk": 0.005,
            "gen_ai.response.tokens_per_second": 200.0,
            "gen_ai.usage.input_tokens": 12,
            "gen_ai.usage.output_tokens": 2,
            "gen_ai.usage.total_tokens": 14,
            "gen_ai.usage.cache_read.input_tokens": 8,
            "gen_ai.usage.cache_creation.input_tokens": 3,
            "gen_ai.usage.cache_write.input_tokens": 3,
            "gen_ai.usage.reasoning.output_tokens": 1,
        })
    );
    let own = &trace(sent.transaction()).data;
    assert_eq!(own["agent_name"], "researcher");
    assert_eq!(own["pipeline_name"], "summaries");
}

#[test]
fn the_span_of_the_stream_ends_when_the_stream_is_complete() {
    let sentry = Sentry::start();
    let integration = l0_sentry::SentryIntegration::new(sentry.config());
    let mut execution = integration.start_execution("manual", [("list", json!([1, "a"]))]);
    execution.start_stream();
    execution.record_first_token(5 * MS);
    execution.complete_stream(7);
    execution.start_stream(); // has no effect
    drop(execution);

    let sent = sentry.sent();
    let transaction = sent.transaction();
    assert_eq!(transaction.name.as_deref(), Some("manual"));
    assert_eq!(
        sent.spans(),
        ["l0.execution cancelled", "l0.stream.consume ok"]
    );
    let stream = span(transaction, "l0.stream.consume");
    assert!(stream.timestamp.unwrap() <= transaction.timestamp.unwrap());
    assert_eq!(
        stable(&stream.data),
        json!({ "token_count": 7, "tokens": 7, "ttft_ms": 5 })
    );
    // Spans cannot have lists.
    assert_eq!(trace(transaction).data["list"], r#"[1,"a"]"#);
}

#[test]
fn the_source_connects_inside_the_hub_of_the_run() {
    let sentry = Sentry::start();
    let l0 = l0(sentry.config()).build();
    // The actions of an HTTP client that reports to Sentry.
    let request = |attempt: Attempt| {
        let script = Script::new().attempt(|a| a.fail("broken"));
        async move {
            let parent = sentry::configure_scope(|scope| scope.get_span()).unwrap();
            let child = parent.start_child("http.client", "POST /v1/chat");
            tokio::time::sleep(MS).await;
            sentry::add_breadcrumb(sentry::Breadcrumb {
                category: Some("http".to_owned()),
                message: Some(format!("attempt {}", attempt.number())),
                ..sentry::Breadcrumb::default()
            });
            child.finish();
            script.connect().await
        }
    };
    paused().block_on(l0.stream(request).start().for_each(|_| async {}));

    let sent = sentry.sent();
    let trail = &sent.event().breadcrumbs;
    let trail: Vec<_> = trail.iter().map(common::breadcrumb).collect();
    assert_eq!(trail[2], "info http: attempt 1");
    let http = span(sent.transaction(), "http.client");
    let attempt = span(sent.transaction(), "l0.attempt");
    assert_eq!(http.parent_span_id, Some(attempt.span_id));
    let host = sentry
        .hub
        .configure_scope(|scope| scope.apply_to_event(Default::default()));
    assert!(host.unwrap().breadcrumbs.is_empty());
}

#[test]
fn a_run_inside_with_sentry_is_in_its_trace() {
    let sentry = Sentry::start();
    let inner = l0(SentryConfig::new()).build();
    let script = hello();
    Hub::run(Arc::clone(&sentry.hub), || {
        paused().block_on(async {
            let text = async { inner.stream(script.source()).start().text().await };
            with_sentry(SentryConfig::new(), text).await.unwrap();
        });
    });
    let sent = sentry.sent();
    let [run, whole] = &*sent.transactions else {
        panic!("{:?}", sent.transactions);
    };
    assert_eq!(
        (status(run), status(whole)),
        (SpanStatus::Ok, SpanStatus::Ok)
    );
    assert_eq!(trace(run).parent_span_id, Some(trace(whole).span_id));
}

/// Returns the output of a future, and the data sent for it.
fn sent_of<T>(report: impl FnOnce(SentryConfig) -> T) -> (T::Output, common::Sent)
where
    T: Future,
{
    let sentry = Sentry::start();
    let output = paused().block_on(report(sentry.config()));
    (output, sentry.sent())
}

#[test]
fn the_status_of_a_future_is_that_of_its_result() {
    type Ends = Result<(), Error<std::io::Error>>;
    let violation = Violation::new("no-harm", Severity::Fatal, "not fit");
    let (failed, cancelled) = (SpanStatus::InternalError, SpanStatus::Cancelled);
    let cases: [(Ends, _, &[&str]); 9] = [
        (Ok(()), SpanStatus::Ok, &[]),
        (Err(Error::Aborted), cancelled, &[]),
        (
            Err(Error::Timeout(TimeoutKind::Total)),
            SpanStatus::DeadlineExceeded,
            &["error Network error: timeout: the run took too long"],
        ),
        (
            Err(Error::Truncated),
            failed,
            &["error Network error: partial_chunks: the stream ended without a finish reason"],
        ),
        (
            Err(Error::Limit(LimitKind::Cost)),
            SpanStatus::ResourceExhausted,
            &["error L0 execution failed: the limit of cost was reached"],
        ),
        (
            Err(Error::Refused(Refusal::new("the budget is spent"))),
            failed,
            &["error L0 execution failed: refused: the budget is spent"],
        ),
        (
            Err(Error::Guardrail(violation)),
            failed,
            &["fatal Guardrail violation: no-harm: not fit"],
        ),
        (Err(Error::Ended(End::of(Cause::Aborted))), cancelled, &[]),
        (
            Err(Error::Ended(End::of(Cause::Panic))),
            failed,
            &["error L0 execution failed: the source, the factory or a hook panicked"],
        ),
    ];
    for (result, expected, titles) in cases {
        let ok = result.is_ok();
        let (output, sent) = sent_of(|config| with_sentry(config, async { result }));
        assert_eq!(output.is_ok(), ok);
        assert_eq!(status(sent.transaction()), expected);
        assert_eq!(sent.titles(), titles);
    }
}

#[test]
fn a_future_fails_with_the_failure_read_from_the_sources_error() {
    let l0 = L0::builder().retry(l0_core::Retry::none()).build();
    let reset = std::io::ErrorKind::ConnectionReset;
    let classified = Failure::status(402);
    for (classify, title, error_type) in [
        (
            None,
            format!("error Network error: econnreset: {}", message(reset)),
            "econnreset",
        ),
        (
            Some(classified),
            // The failure that was read has the type, the transport's error has the cause.
            "error L0 execution failed: status 402 Payment Required: connection reset".to_owned(),
            "402",
        ),
    ] {
        let script = Script::new().attempt(|a| a.fail(reset));
        let run = async {
            let run = l0.stream(script.source()).classify(move |_| classify);
            run.start().text().await
        };
        let (output, sent) = sent_of(|config| with_sentry(config, run));
        output.unwrap_err();
        assert_eq!(sent.titles(), [title]);
        assert_eq!(sent.event().tags["error_type"], error_type);
    }
}

/// For any output: the end of a run inside the future, or an end read from the future's own error.
#[test]
fn a_future_ends_with_the_end_that_its_caller_returns() {
    let script = Script::new().attempt(|a| a.token("a").hang());
    let stopped = async {
        let mut run = L0::default().stream(script.source()).start();
        run.next().await;
        run.handle().abort();
        let text = run.text().await;
        // An error that the application wraps.
        let error = text.map_err(std::io::Error::other).unwrap_err();
        (error, run.end().cloned())
    };
    let (_, sent) =
        sent_of(|config| with_sentry_by(config, stopped, |(_, end)| end.clone().unwrap()));
    assert_eq!(status(sent.transaction()), SpanStatus::Cancelled);
    assert!(sent.events.is_empty());

    let failing = async { Err::<(), _>(std::io::Error::other(Failure::status(401))) };
    let (_, sent) = sent_of(|config| {
        with_sentry_by(config, failing, |result| match result {
            Ok(()) => End::completed(),
            Err(error) => End::failed(error),
        })
    });
    assert_eq!(status(sent.transaction()), SpanStatus::InternalError);
    assert_eq!(sent.event().tags["error_type"], "401");
}

#[test]
fn the_drop_of_a_future_belongs_to_its_execution() {
    struct Leaves;

    impl Drop for Leaves {
        fn drop(&mut self) {
            sentry::add_breadcrumb(sentry::Breadcrumb::default());
            let span = sentry::configure_scope(|scope| scope.get_span());
            span.unwrap().start_child("cleanup", "").finish();
        }
    }

    for polled in [false, true] {
        let sentry = Sentry::start();
        let leaves = Leaves;
        let pending = async move {
            let _leaves = leaves;
            std::future::pending::<Result<(), Error<std::io::Error>>>().await
        };
        let mut reported = Box::pin(with_sentry(sentry.config(), pending));
        if polled {
            let mut context = Context::from_waker(Waker::noop());
            assert!(reported.as_mut().poll(&mut context).is_pending());
        }
        drop(reported);
        let trail = sentry.trail();
        assert_eq!(trail[1], "info : ");
        assert_eq!(trail.len(), 3);
        span(sentry.sent().transaction(), "cleanup");
    }
}

#[test]
fn a_dropped_future_is_cancelled_and_a_panicking_future_has_failed() {
    for polled in [false, true] {
        let sentry = Sentry::start();
        let pending = std::future::pending::<Result<(), Error<std::io::Error>>>();
        let mut reported = Box::pin(with_sentry(sentry.config(), pending));
        if polled {
            let mut context = Context::from_waker(Waker::noop());
            assert!(reported.as_mut().poll(&mut context).is_pending());
        }
        drop(reported);
        assert_eq!(status(sentry.sent().transaction()), SpanStatus::Cancelled);
    }
    let sentry = Sentry::start();
    let reported = with_sentry(sentry.config(), async {
        if true {
            panic!("a bug");
        }
        Ok::<_, Error<std::io::Error>>(())
    });
    let caught =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| paused().block_on(reported)));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"a bug"));
    let sent = sentry.sent();
    assert_eq!(status(sent.transaction()), SpanStatus::InternalError);
    assert_eq!(sent.events.len(), 1);
}
