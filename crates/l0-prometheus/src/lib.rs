//! The telemetry of [`l0_core`] as Prometheus metrics.
//!
//! ```
//! use l0_core::L0;
//! use l0_prometheus::Collector;
//! # use l0_core::testing::Script;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
//!
//! let collector = Collector::builder()
//!     .label("service", "my-app")
//!     .build()?;
//! let l0 = L0::builder()
//!     .interceptor(collector.label_keys(["model", "endpoint"])?)
//!     .build();
//!
//! let mut run = l0
//!     .stream(|_attempt| client.connect())
//!     .metadata("model", "gpt-4")
//!     .metadata("endpoint", "/chat")
//!     .start();
//! run.text().await?;
//!
//! println!("{}", collector.expose()); // what Prometheus scrapes
//! # assert!(collector.expose().contains("l0_requests_total{service=\"my-app\",endpoint=\"/chat\",model=\"gpt-4\"} 1\n"));
//! # Ok(())
//! # }
//! ```
//!
//! # Ways in
//!
//! An interceptor, as above, records every run by itself, and shows live ones.
//! [`Collector::interceptor`] is the one without labels of runs. Without an interceptor,
//! [`Collector::record`] counts the telemetry of a run that has ended, under labels of its own;
//! [`Collector::with_labels`] is for labels that stay the same. Take one of them: a run that is
//! recorded twice counts twice. [`Registry`] holds custom metrics besides.
//!
//! # Ways out
//!
//! [`Collector::expose`] gives the text, to be served as [`CONTENT_TYPE`], and
//! [`Collector::expose_openmetrics`] the other format, which can lead from a bucket to a run. A
//! [`Collector`] is also a [`prometheus::core::Collector`], and joins an existing registry. With the
//! feature `axum`, `metrics_route` is the whole route.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `axum` | no | `metrics_route`: the metrics as a route of axum, compressed if asked for |
//! | `protobuf` | no | with `axum`, protobuf for those who ask; switches on that feature of `prometheus` |
//!
//! # Metrics
//!
//! With the default prefix. Each has the labels of its label set; some have one more.
//!
#![doc = include_str!("../METRICS.md")]
//!
//! The first 14 are the guide's. The others are named after the [quantities](l0_core::Quantity) of
//! `l0-core`: their name, their unit unless the name has it, and `total` if they add up; one more
//! quantity is one more metric.
//!
//! `l0_streams_*`, `l0_stream_oldest_seconds`, `l0_failures_total`, `l0_fallbacks_total` and
//! `l0_backoff_seconds_total` are of all runs that an interceptor sees, measured or not. In every scrape,
//! what started has finished or is active, and no more runs were measured than have finished. Time that runs are live, and wait for a
//! retry, counts while it goes by. The oldest live run is that of its label set, and absent if none is
//! live. By [`Collector::record`], a run that failed is counted in `l0_failures_total` too, and its fallbacks in
//! `l0_fallbacks_total`. The last two metrics
//! are about the collector itself. All others are of measured runs, and are counted
//! when these end, so that their ratios hold at any sample rate.
//!
//! An interceptor counts a run that fell back under the labels of each of its sources: what attempts
//! measured under those of the source that made them; requests, durations, times to first token and
//! failures under those of the source that was tried last; and what started, is active or finished, and
//! fallbacks, under those of the start. A call counts as a stream of one answer.
//!
//! A failure is a run that failed, timed out, was truncated or reached a limit. Its `error_type` is what
//! [`End::error_type`](l0_core::End::error_type) says, the same words as OpenTelemetry's `error.type`:
//! `401`, `rate_limited`, `timeout`, `zero_output`, `guardrail_violation`, `refused` and so on.
//!
//! Unknown is absent, never 0: a run without a token adds nothing to `l0_time_to_first_token_seconds`.
//! Counters start at 0 when their label set is first seen. `rate` and `increase` see the first event
//! only if a scrape comes before it: for label sets that are known, call
//! [`with_labels`](Collector::with_labels) at start-up. Counters by `error_type` and by `rule`, and of
//! fallbacks, appear with their first event, and those of started and active runs and of back-off with the first run. The
//! first 64 values of such a label are told apart in a label set; further ones are counted under
//! `other`, as is what a newer version wrote and this one does not know. Values of labels are cut to 256
//! bytes. A counter that reaches the largest number, 2^64 of its units (584 years for durations, which are
//! added up in nanoseconds), stays there.
//!
//! `l0_tokens_per_second` is the guide's gauge: the run that ended last wins, and instances cannot be
//! added up. For dashboards use the histogram `l0_output_tokens_per_second`, or
//! `rate(l0_tokens_total[5m])`.
//!
//! `l0_inter_token_seconds` is filled from the [`Distribution`](l0_core::Distribution) of a run, at its
//! end: its sum and count are exact, and a gap up to 4 % below a bound may be counted above it. To show
//! gaps and tokens earlier would cost time for each token; that a long run is live, and whether it
//! waits for a retry, shows at once.
//!
//! # Cost
//!
//! `cargo bench -p l0-bench --bench prometheus` measures what it costs: well below a microsecond to
//! count a run, whether there are one or 10,000 label sets, and no allocation unless the label set is
//! new; a few milliseconds to write a thousand label sets, for which those who record do not wait.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod buckets;
mod builder;
mod collector;
mod custom;
mod error;
mod exposition;
mod families;
mod histogram;
mod interceptor;
mod label_sets;
mod labels;
mod layout;
mod metrics;
mod names;
mod number;
mod registry;
#[cfg(feature = "axum")]
mod route;
mod series;

pub use buckets::Buckets;
pub use builder::Builder;
pub use collector::{Collector, LabelledCollector};
pub use error::{BuildError, LabelError, MetricError};
pub use interceptor::MetricsInterceptor;
pub use labels::Labels;
pub use registry::Registry;
#[cfg(feature = "axum")]
pub use route::metrics_route;

/// The content type of what [`Collector::expose`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type of what [`Collector::expose_openmetrics`] gives.
pub const OPENMETRICS_CONTENT_TYPE: &str =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";
