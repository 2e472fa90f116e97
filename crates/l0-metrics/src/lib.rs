//! The telemetry of [`l0_core`] through the [`metrics`] facade, with any exporter.
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
//! With `metrics-exporter-prometheus`, names, labels and values match those of `l0-prometheus`, so its
//! dashboard, rules and alerts work. The exporter creates summaries for histograms without configured buckets,
//! so pass it [those of the interceptor](MetricsInterceptor::buckets).
//!
//! ```
//! use std::sync::Arc;
//!
//! use l0_core::L0;
//! use l0_metrics::MetricsInterceptor;
//! use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let metrics = MetricsInterceptor::new().label_keys(["model", "endpoint"])?;
//! let metrics = Arc::new(metrics);
//! let mut exporter = PrometheusBuilder::new();
//! for (name, bounds) in metrics.buckets() {
//!     exporter = exporter.set_buckets_for_metric(Matcher::Full(name), bounds)?;
//! }
//! let handle = exporter.install_recorder()?;
//! let l0 = L0::builder().interceptor(Arc::clone(&metrics)).build();
//!
//! // In the handler of `/metrics`:
//! metrics.refresh();
//! let text = handle.render();
//! # drop((l0, text));
//! # Ok(())
//! # }
//! ```
//!
//! The exporter keeps every value of a histogram until it renders or runs `run_upkeep`. With
//! `install_recorder`, calling these is up to you. Do not use its `idle_timeout`: it removes metrics that did
//! not change for a while, and their handles then lose what they record. Limit the label sets with
//! [`max_series`](MetricsInterceptor::max_series) instead.
//!
//! # Metrics
//!
//! Names are shown with the default prefix. Each metric has the labels of its label set; some have more.
//!
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Exporters](https://docs.rs/l0-core/latest/l0_core/guide/exporters/)
//! - [Prometheus](https://docs.rs/l0-core/latest/l0_core/guide/prometheus/)
#![doc = include_str!("../METRICS.md")]
//!
//! The names come from the [quantities](l0_core::Quantity) of `l0-core`: each new quantity adds one metric. All
//! metrics are described with their units, `seconds` or `count`. Rates have no unit, because an exporter would
//! repeat it in the name.
//!
//! A counter of the facade accepts only whole numbers. Sums of seconds are therefore monotonic gauges, which
//! start at 0 with the process. `rate` and `increase` read them like counters.
//!
//! `l0_streams_*`, `l0_stream_oldest_seconds`, `l0_failures_total`, `l0_fallbacks_total` and
//! `l0_backoff_seconds_total` cover all runs, measured or not. All others cover measured runs and are recorded
//! when a run ends, except the gaps between tokens, which are recorded during the run in batches. The
//! interceptor enables monitoring. [`label_keys`](MetricsInterceptor::label_keys) describes the label sets of a
//! run with several sources. Unknown values are absent, never 0: a run without a token adds nothing to
//! `l0_time_to_first_token_seconds`. The counters of a label set start at 0 when it is first seen, except those
//! by `error_type`, by `rule` and of fallbacks, which appear with their first event. A label set keeps the
//! first 64 values of each of these labels; further values are counted under `other`.
//!
//! The facade has no way for an exporter to request a value when it needs one. Values that change while nothing
//! happens are updated when a run of the same label set starts or ends, and by
//! [`refresh`](MetricsInterceptor::refresh). `l0_streams_stalled` is updated by `refresh` only, counts
//! measured runs only, and is present only if the interceptor defines [a stall](MetricsInterceptor::stalls).
//!
//! # Gaps
//!
//! Each gap between two tokens is recorded as its own value, so buckets, sum and count are exact. Recording the
//! run's [`Distribution`](l0_core::Distribution) would mean recording the middles of its buckets, up to 2 %
//! off. It would not be faster either: exporters record equal values one by one. Gaps are recorded in batches
//! of 64, so no poll and no drop records more than 256 values.
//!
//! # Recorders
//!
//! Handles are registered with the recorder that is current where a run starts, once for each label set, and
//! kept while that recorder is current. You can therefore install a recorder after creating the interceptor,
//! and even after runs. Earlier runs are lost; the next one is recorded.
//!
//! A local recorder (`with_local_recorder`, `set_default_local_recorder`) replaces the global one on its thread
//! only. A run keeps the handles from its start, wherever it is polled. Some metrics are registered only when
//! they occur, such as an error type or another source's label set. For these, the recorder must be current at
//! that time: poll such runs on the thread that has it. A recorder is identified by its address, so create one
//! interceptor for each local recorder: a new recorder could get the address of one that was dropped.
//!
//! A layer that adds labels when a handle is registered, such as the labels of the current span, adds those
//! that were current when the label set was first seen.
//!
//! # Cost
//!
//! A run takes a lock only to look up its labels and for its start, end and waits. A token writes its gap into
//! a list. The cost of recording depends on the exporter.
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
