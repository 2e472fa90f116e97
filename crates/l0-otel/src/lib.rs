//! The runs of [`l0_core`] as OpenTelemetry metrics and spans, by the conventions for generative AI.
//!
//! ```
//! use l0_core::{L0, keys};
//! use l0_otel::OtelInterceptor;
//! # use l0_core::testing::Script;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
//!
//! // After the application has set its providers, with `opentelemetry::global`.
//! let otel = OtelInterceptor::builder()
//!     .attribute_keys(["environment"])
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
//! This crate needs the API of OpenTelemetry only. The SDK, which aggregates, samples and exports, is the
//! application's: through the global providers, or through the meter and tracer that the
//! [builder](OtelBuilder) is given. Without an SDK all of it does nothing.
//!
//! # Traces
//!
//! The parent of a run's span is the span that is current where [`start()`](l0_core::RunBuilder::start) is
//! called. The run's span is current while the source's factory is called and its future is polled, on
//! whatever thread polls the run: a span that the HTTP client makes there is its child. It is not current
//! while tokens are read. It ends exactly once, on every exit: at the latest when the run is dropped.
//!
//! # Content
//!
//! No prompt and no output leaves, since core hands neither out. Of the metadata what the tables below name
//! leaves, and what is [listed](OtelBuilder::attribute_keys), each value cut to 256 bytes. Messages of errors
//! are those that core has redacted. A session or conversation id is never an attribute of a metric.
//!
//! # Cost
//!
//! A token costs nothing when it arrives: the interceptor does not ask for tokens. Gaps are recorded when the
//! run ends, from its [`Distribution`](l0_core::Distribution), since instruments of OpenTelemetry take one
//! value at a time: one call of the SDK's histogram for each gap, about 0.1 µs. So a run of 1,000 tokens spends
//! 0.1 ms on them, once, after its last token was handed out, and shows its gaps at its end only. Number, sum and
//! maximum of the gaps are exact; one that lies within 4 % of a boundary may be counted on its other side.
//! Recording each gap as it happens would make all of them exact, at the cost of the same call, with its locks,
//! between two tokens. All the rest of a run takes about 2 µs. `cargo bench -p l0-bench --bench otel` measures
//! it. Where it is too much, a view of the SDK that drops the histogram saves it.
//!
//! Nothing waits for a network, as long as the SDK exports from a thread of its own: batch span processors and
//! periodic readers do, a `SimpleSpanProcessor` does not.
//!
//! # Features
//!
//! None: which providers and exporters there are is the application's choice, of crates and features of
//! OpenTelemetry.
#![doc = include_str!("../names.md")]

mod attributes;
mod builder;
mod conventions;
mod error_type;
mod gaps;
mod instruments;
mod interceptor;
mod run;

pub use builder::{OtelBuilder, scope};
pub use interceptor::OtelInterceptor;
