//! The telemetry of [`l0_core`] through the [`metrics`] facade, to whichever exporter is installed.
//!
//! ```
//! use l0_core::L0;
//! use l0_metrics::MetricsInterceptor;
//! # use l0_core::testing::Script;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
//! # let recorder = metrics_util::debugging::DebuggingRecorder::new();
//! # let snapshotter = recorder.snapshotter();
//! # recorder.install()?;
//!
//! let l0 = L0::builder()
//!     .interceptor(MetricsInterceptor::new().label_keys(["model", "endpoint"])?)
//!     .build();
//!
//! let mut run = l0
//!     .stream(|_attempt| client.connect())
//!     .metadata("model", "gpt-4")
//!     .metadata("endpoint", "/chat")
//!     .start();
//! run.text().await?; // l0_requests_total, l0_tokens_total, l0_request_duration_seconds ...
//! # let names = snapshotter.snapshot().into_vec();
//! # assert!(names.iter().any(|one| one.0.key().name() == "l0_requests_total"));
//! # Ok(())
//! # }
//! ```
//!
//! # Prometheus
//!
//! Through `metrics-exporter-prometheus`, the names, the labels and the values are those of `l0-prometheus`,
//! so that its dashboard, its rules and its alerts fit. The exporter makes summaries of what it is not told
//! the buckets of: give it [those of the interceptor](MetricsInterceptor::buckets).
//!
//! ```
//! use l0_core::L0;
//! use l0_metrics::MetricsInterceptor;
//! use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let metrics = MetricsInterceptor::new().label_keys(["model", "endpoint"])?;
//! let mut exporter = PrometheusBuilder::new();
//! for (name, bounds) in metrics.buckets() {
//!     exporter = exporter.set_buckets_for_metric(Matcher::Full(name), bounds)?;
//! }
//! let handle = exporter.install_recorder()?;
//! let l0 = L0::builder().interceptor(metrics.clone()).build();
//!
//! // In the handler of `/metrics`:
//! metrics.refresh();
//! let text = handle.render();
//! # drop((l0, text));
//! # Ok(())
//! # }
//! ```
//!
//! The exporter keeps every value of a histogram until somebody renders, or calls `run_upkeep`: with
//! `install_recorder`, that is up to you. Its `idle_timeout` takes metrics away that did not change for a
//! while, and what their handles record after that is lost: leave it off, and bound the label sets by
//! [`max_series`](MetricsInterceptor::max_series).
//!
//! # Metrics
//!
//! With the default prefix. Each has the labels of its label set; some have more.
//!
#![doc = include_str!("../METRICS.md")]
//!
//! Their names come from the [quantities](l0_core::Quantity) of `l0-core`, and one more quantity is one more
//! metric. All are described, with their units: `seconds` or `count`; rates have none, which exporters could
//! only add to a name that says it already.
//!
//! A counter of the facade takes whole numbers. So what adds up in seconds is a gauge that only rises:
//! `rate` and `increase` read it as they read a counter, and it begins at 0 with the process.
//!
//! `l0_streams_*`, `l0_stream_oldest_seconds`, `l0_failures_total`, `l0_fallbacks_total` and
//! `l0_backoff_seconds_total` are of all runs, measured or not. All others are of measured runs, and are
//! recorded when these end; the gaps between tokens before, some at a time. The interceptor switches
//! monitoring on. Which label set a number of a run with several sources goes to is said at
//! [`label_keys`](MetricsInterceptor::label_keys). Unknown is absent, never 0: a run without a token adds
//! nothing to `l0_time_to_first_token_seconds`. Counters of a label set begin at 0 when it is first seen,
//! but those by `error_type`, by `rule` and of fallbacks with their first event. The first 64 values of
//! such a label are told apart in a label set; further ones are counted under `other`.
//!
//! No exporter asks the facade for a value when it needs one. What grows while nothing happens is brought up
//! to date when a run of the same label set starts or ends, and by
//! [`refresh`](MetricsInterceptor::refresh).
//!
//! # Gaps
//!
//! Each gap between two tokens is recorded by itself, so that buckets, sum and count are exact. The run's
//! [`Distribution`](l0_core::Distribution) would have to be recorded as the middles of its buckets, up to 2 %
//! off, and not even faster: exporters record many equal values one by one. They are recorded 64 at a time,
//! so that no poll and no drop records more than 256 values.
//!
//! # Recorders
//!
//! Handles are asked of the recorder that is current where a run starts, once for each label set, and
//! kept for as long as it is current. So a recorder may be installed after the interceptor was made, and
//! after runs: what these recorded is lost, and the next one is recorded.
//!
//! A local recorder (`with_local_recorder`, `set_default_local_recorder`) stands before the global one on its
//! thread only. A run goes on with the handles of its start, wherever it is polled. What is registered only
//! when it happens, an error type or another source's label set, needs the recorder to be current then, too:
//! poll such runs on the thread that has it. A recorder is known by its place in memory, so make one
//! interceptor for each local recorder: another one might come to lie where one was that is gone.
//!
//! What a layer adds when a handle is registered, as one for the labels of the current span does, is what was
//! current where the label set was first seen.
//!
//! # Cost
//!
//! A run takes no lock but those of a look-up by its labels and of its start, its end and its waits. A token
//! writes its gap into a list. What recording costs is up to the exporter.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod breakdown;
mod buckets;
mod gaps;
mod handles;
mod interceptor;
mod label_sets;
mod labels;
mod layout;
mod series;
mod streams;
mod sum;

pub use interceptor::MetricsInterceptor;
