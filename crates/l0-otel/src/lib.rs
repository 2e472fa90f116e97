//! Sends the runs of [`l0_core`] to OpenTelemetry, as metrics and spans by the conventions for generative AI.
//!
//! ```
//! use l0_core::{L0, keys};
//! use l0_otel::OtelInterceptor;
//! # use l0_core::testing::Script;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
//!
//! // After your application has set its providers, with `opentelemetry::global`.
//! let otel = OtelInterceptor::builder()
//!     .attribute_keys(["environment"])?
//!     .build();
//! let l0 = L0::builder().interceptor(otel).build();
//!
//! let mut run = l0
//!     .stream(|_attempt| client.connect())
//!     .metadata(keys::PROVIDER, "openai")
//!     .metadata(keys::MODEL, "gpt-4o")
//!     .metadata("environment", "production")
//!     .start();
//! run.text().await?;
//! # Ok(())
//! # }
//! ```
//!
//! This crate needs the API of OpenTelemetry only. Your application brings the SDK, which aggregates, samples
//! and exports: through the global providers, or through the meter and the tracer that you give to the
//! [builder](OtelBuilder). Without an SDK nothing is sent.
//!
//! # Traces
//!
//! A run has one span, and each of its attempts another one below it. The attempt's span is current while the
//! source's factory is called and its future is polled, on whatever thread polls the run: a span that the HTTP
//! client makes there is its child. It is not current while tokens are read. The parent of a run's span is that
//! of the run that it [serves](l0_core::RunBuilder::parent), while that is live and goes through the same
//! interceptor; else the span that is current where [`start()`](l0_core::RunBuilder::start) is called. Each span
//! ends exactly once, on every exit: at the latest when the run is dropped.
//!
//! # Content
//!
//! No prompt and no output is sent, unless you choose [`Content`]. Of the metadata, only what the tables below
//! name, what a [`Dialect`] reads and the keys that you [list](OtelBuilder::attribute_keys) are sent, and the
//! parameters that a source tells of its request, each value cut to 256 bytes. The messages of errors are those
//! that core has redacted. The id of a session is never an attribute of a metric.
//!
//! # Cost
//!
//! The gap before a token is noted when the token arrives, which takes a few nanoseconds, and 64 of them are
//! recorded together: a histogram of OpenTelemetry takes one value at a time, about 0.1 µs each. So no poll
//! and no drop records more than 256 values, however long the answer. The other numbers are recorded
//! when the run ends, with one call of the SDK each: a few µs in all, the spans of its attempts included. Each
//! further source that was asked adds a dozen; a run of more than fifteen may record up to twice as many.
//! `cargo bench -p l0-bench --bench otel` measures it. A view of the SDK that drops a metric saves its cost.
//!
//! Every metric of a number has one series for each set of attributes: the operation, the provider, the model
//! asked for, the model that answered, and the metadata that you list.
//!
//! No run waits for a network, as long as the SDK exports from a thread of its own: batch span processors and
//! periodic readers do, a `SimpleSpanProcessor` does not.
//!
//! # Features
//!
//! None: your application chooses its providers and exporters, of crates and features of OpenTelemetry.
#![doc = include_str!("../names.md")]
#![doc = include_str!("../dialects.md")]

mod attributes;
mod builder;
mod conventions;
mod dialect;
mod dialects;
mod gaps;
mod instruments;
mod interceptor;
mod live;
mod numbers;
mod run;

pub use builder::{OtelBuilder, scope};
pub use conventions::Conventions;
pub use dialect::{Dialect, Form, On, Reads, Row};
pub use dialects::{LANGFUSE, OPENINFERENCE, SIGNOZ};
pub use interceptor::OtelInterceptor;
pub use l0_core::Content;
