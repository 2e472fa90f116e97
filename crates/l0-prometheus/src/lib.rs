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
//! # Recording runs
//!
//! Add an interceptor, as above, to record every run and to see live runs. [`Collector::interceptor`] adds no
//! labels of its own. Without an interceptor, [`Collector::record`] counts the telemetry of a finished run
//! under the labels that you pass. [`Collector::with_labels`] does the same for labels that do not change. Use
//! one of these: a run that is recorded twice counts twice. [`Registry`] also holds custom metrics.
//!
//! # Exposing metrics
//!
//! [`Collector::expose`] returns the text format; serve it as [`CONTENT_TYPE`].
//! [`Collector::expose_openmetrics`] returns OpenMetrics, whose exemplars link a bucket to a run. A
//! [`Collector`] is also a [`prometheus::core::Collector`], so it can join an existing registry. With the
//! feature `axum`, `metrics_route` is a complete route.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `axum` | no | `metrics_route`: the metrics as an axum route, compressed on request |
//! | `protobuf` | no | with `axum`, protobuf for clients that prefer it; enables that feature of `prometheus` |
//!
//! # Metrics
//!
//! Names are shown with the default prefix. Each metric has the labels of its label set; some have one or two
//! more.
//!
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Prometheus](https://docs.rs/l0-core/latest/l0_core/guide/prometheus/)
#![doc = include_str!("../METRICS.md")]
//!
//! The first 14 are those of the TypeScript L0. The others are named after the
//! [quantities](l0_core::Quantity) of `l0-core`: the quantity's name, its unit unless the name contains it, and
//! `total` for sums. Each new quantity adds one metric.
//!
//! `l0_streams_*`, `l0_stream_oldest_seconds`, `l0_failures_total`, `l0_fallbacks_total` and
//! `l0_backoff_seconds_total` cover all runs that an interceptor sees, measured or not. In every scrape, each
//! started run is either finished or active, and there are at least as many finished runs as measured ones. The
//! time that runs are live or wait for a retry is counted as it passes. The oldest live run is reported for
//! each label set, and is absent if no run is live. `l0_streams_stalled` is present only if the
//! [builder](PrometheusBuilder::stalls) defines a stall, and counts measured runs only.
//! [`Collector::record`] also counts a failed run in `l0_failures_total` and its fallbacks in
//! `l0_fallbacks_total`. The last two metrics describe the collector itself. All others cover measured runs and
//! are counted when a run ends, so their ratios hold at any sample rate.
//!
//! An interceptor counts a run with fallbacks under the labels of each of its sources. Measurements of attempts
//! go to the source that made them. Requests, durations, times to first token and failures go to the source
//! that was tried last. Started, active and finished runs, and fallbacks, go to the labels known at the start.
//! A call counts as a stream with one answer.
//!
//! A failure is a run that failed, timed out, was truncated or reached a limit. Its `error_type` is that of
//! [`End::error_type`](l0_core::End::error_type), with the same values as OpenTelemetry's `error.type`: `401`,
//! `rate_limited`, `timeout`, `zero_output`, `guardrail_violation`, `refused` and so on.
//!
//! Unknown values are absent, never 0: a run without a token adds nothing to `l0_time_to_first_token_seconds`.
//! Counters start at 0 when their label set is first seen. `rate` and `increase` see the first event only if a
//! scrape comes before it, so call [`with_labels`](Collector::with_labels) at start-up for label sets that you
//! know. Counters by `error_type`, by `rule` and of fallbacks appear with their first event. Those of started
//! and active runs and of back-off appear with the first run. A label set keeps the first 64 values of each of
//! these labels. Further values are counted under `other`, as are values from a newer version that this one
//! does not know. Label values are cut to 256 bytes. A counter that reaches its maximum stays there: 2^64 of
//! its units, or 584 years for durations, which are summed in nanoseconds.
//!
//! `l0_tokens_per_second` is a gauge: the run that ended last sets it, and it cannot be summed over
//! instances. For dashboards, use the histogram `l0_output_tokens_per_second` or `rate(l0_tokens_total[5m])`.
//!
//! `l0_inter_token_seconds` is filled from the [`Distribution`](l0_core::Distribution) of a run when the run
//! ends. Its sum and count are exact; a gap up to 4 % below a bound can be counted above it. Reporting gaps and
//! tokens earlier would cost time for each token. Live runs and their waits for retries are visible
//! immediately.
//!
//! # Cost
//!
//! Run `cargo bench -p l0-bench --bench prometheus` to measure the cost. Counting a run takes well below a
//! microsecond, with one label set or 10,000, and allocates only if the label set is new. Writing a thousand
//! label sets takes a few milliseconds, and does not block recording.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod buckets;
mod builder;
mod collector;
mod custom;
mod error;
mod exemplar;
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
mod roster;
#[cfg(feature = "axum")]
mod route;
mod series;

pub use buckets::Buckets;
pub use builder::PrometheusBuilder;
pub use collector::{Collector, LabeledCollector};
pub use error::{BuildError, LabelError, MetricError};
pub use exemplar::Trace;
pub use interceptor::PrometheusInterceptor;
pub use labels::Labels;
pub use registry::Registry;
#[cfg(feature = "axum")]
pub use route::metrics_route;

/// The content type of the text that [`Collector::expose`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type of the text that [`Collector::expose_openmetrics`] returns.
pub const OPENMETRICS_CONTENT_TYPE: &str =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";
