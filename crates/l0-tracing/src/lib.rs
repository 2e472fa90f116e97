//! Emits the runs of [`l0_core`] as spans and events of [`tracing`], with names from the semantic conventions for
//! generative AI.
//!
//! ```
//! use l0_core::{L0, keys};
//! use l0_tracing::TracingInterceptor;
//! # use l0_core::testing::Script;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
//! use tracing_subscriber::fmt::format::FmtSpan;
//!
//! // Writes a log line for each event, and one for each span that ends.
//! tracing_subscriber::fmt()
//!     .json()
//!     .with_span_events(FmtSpan::CLOSE)
//!     .init();
//! let l0 = L0::builder().interceptor(TracingInterceptor::new()).build();
//!
//! let mut run = l0
//!     .stream(|_attempt| {
//!         tracing::info!("calling the model"); // in the attempt's span, so with the run's id
//!         client.connect()
//!     })
//!     .metadata(keys::PROVIDER, "openai")
//!     .metadata(keys::MODEL, "gpt-4o")
//!     .start();
//! run.text().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Spans
//!
//! A run has one span, `l0.run`, and each of its attempts has a child span, `l0.attempt`. Their target is `l0` and
//! their level is INFO. You can change the [target](TracingInterceptor::target) and the
//! [level](TracingInterceptor::level).
//!
//! If the run has a [parent run](l0_core::RunBuilder::parent) that is live and uses the same interceptor, the run's
//! span is a child of that run's span. Otherwise its parent is the span that is current when
//! [`start()`](l0_core::RunBuilder::start) is called.
//!
//! The attempt's span is entered while the source's factory is called and its future is polled, on every thread that
//! polls the run. Spans and events created there are below it. It is not entered while tokens are read. The spans
//! close when the attempt and the run end, on every exit, at the latest when the run is dropped.
//!
//! The subscriber that is current in `start()` receives the whole run, even if other threads have another subscriber.
//!
//! # Fields
//!
//! Fields have the same names and values as the attributes of [`l0-otel`], which its tables describe. With
//! [`tracing-opentelemetry`], the exported spans are those of `l0-otel`. A test compares both for each way a run can
//! end. The differences are:
//!
//! | `l0-otel` | this crate | reason |
//! |---|---|---|
//! | a list, such as `gen_ai.response.finish_reasons` | a JSON string: `["stop"]` | `tracing` has no lists |
//! | all request parameters | the parameters that the conventions name | fields are part of a call site |
//! | name and kind of an attempt's span | the fields `otel.name`, such as `chat gpt-4o`, and `otel.kind` | span names are part of a call site |
//! | status and description of a failed span | the fields `otel.status_code` and `otel.status_description` | `tracing` spans have no status |
//! | | `l0.session_id` on events | a log line names its run even without spans |
//! | | `level` and `target` on events, times and thread on spans | `tracing-opentelemetry` adds them by default |
//! | times from the run's monotonic clock | times that `tracing-opentelemetry` reads | |
//! | optional prompts and answers, and dialects of backends | not available | they do not belong in a log |
//!
//! # Events
//!
//! | `message` | level | span | fields |
//! |---|---|---|---|
//! | `l0.network_error` | DEBUG | attempt | `error.type`, `exception.message`, `l0.retried` |
//! | `exception` | WARN | attempt | `exception.type`, `exception.message` |
//! | `exception` | ERROR | run | `exception.type`, `exception.message` |
//! | `l0.retry` | INFO | run | `l0.attempt`, `l0.retry.reason`, `l0.retry.kind`, `l0.retry.delay` |
//! | `l0.fallback` | WARN | run | `l0.fallback.from`, `l0.fallback.to` |
//! | `l0.violation` | WARN | attempt | `l0.rule`, `l0.severity`, `l0.recoverable` |
//! | `l0.drift` | WARN | attempt | `l0.drift.types`, `l0.drift.confidence` |
//!
//! An attempt that fails emits an `exception`, even if another attempt follows. A network error is DEBUG, because the
//! failed attempt reports it too. Only a failed run emits an ERROR, because `tracing-opentelemetry` marks the span of
//! an ERROR event as failed.
//!
//! Each event also has the run's id, `l0.session_id`, because the filter of a subscriber or a layer, such as
//! `l0=warn`, can disable the spans. The event is then in the span that was current in `start()`, or in the span that
//! is current where the run is polled.
//!
//! # What is sent
//!
//! No prompt, no output and no provider's error text is sent. The only metadata sent are the model, the provider, the
//! operation, the conversation, and the keys that you [list](TracingInterceptor::field_keys). Each value is cut to
//! 256 bytes. Error messages are redacted by core.
//!
//! # Cost
//!
//! A token costs nothing. The cost of a run is the subscriber's cost of two or more spans. If no subscriber is
//! interested in the target, a run has no observer. It is still measured, because the interceptor needs telemetry. Set
//! [`Monitoring::off`](l0_core::Monitoring::off) to disable that.
//!
//! # Features
//!
//! This crate has no features.
//!
//! [`l0-otel`]: https://docs.rs/l0-otel
//! [`tracing-opentelemetry`]: https://docs.rs/tracing-opentelemetry
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [tracing](https://docs.rs/l0-core/latest/l0_core/guide/tracing/)

mod attributes;
mod fields;
mod interceptor;
mod live;
mod names;
mod numbers;
mod run;
mod sites;

pub use interceptor::TracingInterceptor;
