//! Makes the runs of [`l0_core`] spans and events of [`tracing`], by the conventions for generative AI.
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
//! // A line of log for each event, and one for each span that ends.
//! tracing_subscriber::fmt()
//!     .json()
//!     .with_span_events(FmtSpan::CLOSE)
//!     .init();
//! let l0 = L0::builder().interceptor(TracingInterceptor::new()).build();
//!
//! let mut run = l0
//!     .stream(|_attempt| {
//!         tracing::info!("a model is asked"); // in the attempt's span, and so with the run's id
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
//! A run has one span, `l0.run`, and each of its attempts another one below it, `l0.attempt`. Both are of the
//! target `l0` and of level INFO, unless you choose [another](TracingInterceptor::target)
//! [one](TracingInterceptor::level). The parent of a run's span is that of the run that it
//! [serves](l0_core::RunBuilder::parent), while that is live and goes through the same interceptor; else the
//! span that is current where [`start()`](l0_core::RunBuilder::start) is called.
//!
//! The attempt's span is entered while the source's factory is called and its future is polled, on whatever
//! thread polls the run: spans and events that are made there are below it. It is not entered while tokens
//! are read. Both spans close with the attempt and the run, on every exit: at the latest when the run is
//! dropped.
//!
//! The subscriber that is current in `start()` is told all of the run, also where other threads have another
//! one.
//!
//! # Fields
//!
//! They have the names that [`l0-otel`] gives to attributes, and the same values: its tables say what each
//! is. With [`tracing-opentelemetry`], the spans that are sent are those of `l0-otel`, and a test compares the
//! two for every way in which a run can end. These differ:
//!
//! | `l0-otel` | here | since |
//! |---|---|---|
//! | a list, such as `gen_ai.response.finish_reasons` | its JSON, as one text: `["stop"]` | `tracing` has no lists |
//! | any parameter of a request | those that the conventions name | fields are part of a call site |
//! | the name and the kind of an attempt's span | the fields `otel.name`, such as `chat gpt-4o`, and `otel.kind` | names of spans are part of a call site, too |
//! | status and description of a span that failed | the fields `otel.status_code` and `otel.status_description` | the same |
//! | | `l0.session_id` of events | a line of log names its run, also without spans |
//! | | `level` and `target` of events, times and thread of spans | `tracing-opentelemetry` adds them, unless told otherwise |
//! | times of a run by its own monotonic clock | those that `tracing-opentelemetry` reads | |
//! | prompts and answers by choice, dialects of backends | neither | a log is no place for them |
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
//! An attempt that fails tells its `exception`, also if another one follows. A network error is DEBUG, since
//! the attempt that it ends tells it too. Only a run that fails is an ERROR: `tracing-opentelemetry` takes the
//! span of any other one for one that failed.
//!
//! Each event also has the run's id, `l0.session_id`: the filter of a subscriber or of a layer, such as
//! `l0=warn`, may keep the spans back. The event is then in the span that was current in `start()`, or in
//! the one that is current where the run is polled.
//!
//! # What leaves
//!
//! No prompt, no output and no words of a provider's. Of the metadata, the model, the provider, the
//! operation and the conversation, and the keys that you [list](TracingInterceptor::field_keys), each value
//! cut to 256 bytes. The messages of errors are those that core has redacted.
//!
//! # Cost
//!
//! A token costs nothing. A run costs what its subscriber does with two spans or more. If no subscriber is
//! interested in the target, a run has no observer at all; as the interceptor needs telemetry, it is measured
//! all the same, unless [`Monitoring::off`](l0_core::Monitoring::off) is set.
//!
//! # Features
//!
//! None.
//!
//! [`l0-otel`]: https://docs.rs/l0-otel
//! [`tracing-opentelemetry`]: https://docs.rs/tracing-opentelemetry

mod attributes;
mod fields;
mod interceptor;
mod live;
mod names;
mod numbers;
mod run;
mod sites;

pub use interceptor::TracingInterceptor;
