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
//! println!("{}", collector.expose()); // what Prometheus is to get
//! # assert!(collector.expose().contains("l0_requests_total{service=\"my-app\",endpoint=\"/chat\",model=\"gpt-4\"} 1\n"));
//! # Ok(())
//! # }
//! ```
//!
//! # Ways in
//!
//! An interceptor, as above, records every run by itself, and shows live ones. Without it,
//! [`Collector::record`] counts the telemetry of a run that has ended, under labels of its own;
//! [`Collector::with_labels`] is for labels that stay the same. Take one of them: a run that is
//! recorded twice counts twice. [`Registry`] holds metrics of one's own besides.
//!
//! # Ways out
//!
//! [`Collector::expose`] gives the text, to be served as [`CONTENT_TYPE`], and
//! [`Collector::expose_openmetrics`] the other one, which can lead from a bucket to a run. A
//! [`Collector`] is also a [`prometheus::core::Collector`], and joins the registry that an application
//! has. With the feature `axum`, `metrics_route` is the whole route.
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
//! | metric | type | label | what it says |
//! |---|---|---|---|
//! | `l0_requests_total` | counter |  | Total L0 requests |
//! | `l0_request_duration_seconds` | histogram |  | L0 request duration in seconds |
//! | `l0_tokens_total` | counter |  | Total tokens generated |
//! | `l0_tokens_per_second` | gauge |  | Tokens generated per second, by the request that ended last |
//! | `l0_time_to_first_token_seconds` | histogram |  | Time to first token in seconds |
//! | `l0_retries_total` | counter |  | Total retry attempts |
//! | `l0_retries_network_total` | counter |  | Network-related retry attempts |
//! | `l0_retries_model_total` | counter |  | Model-related retry attempts |
//! | `l0_network_errors_total` | counter |  | Total network errors |
//! | `l0_network_errors_by_type_total` | counter | `error_type` | Network errors by type |
//! | `l0_guardrail_violations_total` | counter |  | Total guardrail violations |
//! | `l0_guardrail_violations_by_severity_total` | counter | `severity` | Guardrail violations by severity |
//! | `l0_guardrail_violations_by_rule_total` | counter | `rule` | Guardrail violations by rule |
//! | `l0_drift_detected_total` | counter |  | Requests with drift |
//! | `l0_inter_token_seconds` | histogram |  | Time between two tokens of one attempt in seconds |
//! | `l0_stream_max_gap_seconds` | histogram |  | Longest time between two tokens of a request in seconds |
//! | `l0_output_tokens_per_second` | histogram |  | Tokens per second of a request while tokens flow |
//! | `l0_wasted_tokens_total` | counter |  | Tokens of attempts that a retry threw away |
//! | `l0_usage_input_tokens_total` | counter |  | Tokens of prompts, as far as providers told them |
//! | `l0_usage_output_tokens_total` | counter |  | Tokens of answers, as far as providers told them |
//! | `l0_consumer_wait_seconds_total` | counter |  | Time that requests were held up by their consumer in seconds |
//! | `l0_backoff_seconds_total` | counter |  | Time that runs were to wait before retries in seconds, measured or not |
//! | `l0_streams_finished_total` | counter | `outcome` | Runs finished, measured or not, by outcome |
//! | `l0_streams_started_total` | counter |  | Runs started, measured or not |
//! | `l0_streams_active` | gauge |  | Runs started and not finished, measured or not |
//! | `l0_series_overflow_total` | counter |  | Look-ups of label sets beyond the limit, counted under other |
//! | `l0_observer_panics_total` | counter |  | Panics of observers that runs contained |
//!
//! Those from `l0_requests_total` to `l0_consumer_wait_seconds_total` are of measured runs, and
//! counted when these end, so that their ratios hold at any sample rate. The next four are of all runs
//! that an interceptor sees, and counted as they happen. The last two are about the collector itself.
//!
//! Unknown is absent, never 0: a run without a token adds nothing to `l0_time_to_first_token_seconds`.
//! Counters start at 0 when their label set is first seen. `rate` and `increase` see the first event
//! only if a scrape comes before it: for label sets that are known, call
//! [`with_labels`](Collector::with_labels) at start-up. Counters by type and by rule appear with their
//! first event, and those of started, finished and active runs and of back-off with the first run. The
//! rules of a label set are the first 64 by name; further ones are counted under `other`.
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
//! `cargo bench -p l0-bench --bench prometheus` tells what it costs: about 0.25 µs to count a run
//! with its labels looked up, 0.4 µs with labels given and 0.1 µs more to make them, whether there are
//! one or 10,000 label sets; a few milliseconds to write a thousand label sets, for which those who
//! record do not wait.
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
