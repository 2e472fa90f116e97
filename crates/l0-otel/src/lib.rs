//! Sends the runs of [`l0_core`] to OpenTelemetry, as metrics and spans that follow the semantic conventions
//! for generative AI.
//!
//! ```
//! use l0_core::{L0, keys};
//! use l0_otel::OtelInterceptor;
//! # use l0_core::testing::Script;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
//!
//! // First set the global providers, with `opentelemetry::global`.
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
//! This crate depends only on the OpenTelemetry API. Your application brings the SDK, which aggregates, samples
//! and exports. The interceptor uses the global providers, or the meter and the tracer that you pass to the
//! [builder](OtelBuilder). Without an SDK nothing is sent.
//!
//! # Traces
//!
//! A run has one span, and each of its attempts has a child span. The attempt's span is current while the
//! source's factory is called and its future is polled, on every thread that polls the run. A span that the
//! HTTP client creates there becomes its child. The attempt's span is not current while tokens are read.
//!
//! If the run has a [parent run](l0_core::RunBuilder::parent) that is live and uses the same interceptor, the
//! run's span is a child of that run's span. Otherwise its parent is the span that is current when
//! [`start()`](l0_core::RunBuilder::start) is called. Each span ends exactly once on every exit, at the latest
//! when the run is dropped.
//!
//! # Content
//!
//! Prompts and outputs are not sent unless you enable [`Content`](l0_core::Content). The only metadata sent
//! are the keys named in the tables below, the keys that a [`Dialect`] reads, and the keys that you
//! [list](OtelBuilder::attribute_keys). The request parameters that a source describes are sent too. Each
//! value is cut to 256 bytes. Error messages are redacted by core. A session id is never an attribute of a
//! metric.
//!
//! # Cost
//!
//! The gap before a token is buffered when the token arrives. The buffer is recorded every 64 gaps, because an
//! OpenTelemetry histogram takes one value per call. No poll and no drop records more than 256 values, however
//! long the answer is. The other numbers are recorded when the run ends, with one call of the SDK each. Each
//! further source that was called adds a dozen calls. A run with more than fifteen sources can record up to
//! twice as many values in one poll. A view of the SDK that drops a metric saves its cost. `docs/performance.md`
//! in the repository has measurements; `cargo bench -p l0-bench --bench otel` repeats them.
//!
//! Each metric of a number has one series for each set of attributes: the operation, the provider, the
//! requested model, the model that answered, and the metadata that you list.
//!
//! No run waits for a network, as long as the SDK exports from its own thread. Batch span processors and
//! periodic readers do. A `SimpleSpanProcessor` does not.
//!
//! # Features
//!
//! This crate has no features. Your application chooses providers and exporters from OpenTelemetry's crates.
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [OpenTelemetry](https://docs.rs/l0-core/latest/l0_core/guide/otel/)
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
