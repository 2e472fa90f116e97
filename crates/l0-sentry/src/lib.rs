//! Reports the runs of [`l0_core`] to Sentry, as breadcrumbs, errors and spans, on every exit.
//!
//! ```
//! use l0_core::L0;
//! use l0_sentry::{SentryConfig, SentryInterceptor};
//!
//! let options = sentry::ClientOptions::new() // the DSN from SENTRY_DSN
//!     .traces_sample_rate(1.0)
//!     .shutdown_timeout(std::time::Duration::from_secs(5)); // time limit for the guard's flush
//! let guard = sentry::init(options);
//!
//! let config = SentryConfig::new().tag("environment", "production");
//! let l0 = L0::builder()
//!     .interceptor(SentryInterceptor::new(config))
//!     .build();
//! # drop((l0, guard));
//! ```
//!
//! [`SentryInterceptor`] reports every run, [`with_sentry`] reports a whole future, and
//! [`SentryIntegration`] is for manual reports. All of them take a [`SentryConfig`] and use the same
//! names.
//!
//! Use the same version of the `sentry` crate as this crate does, 0.49. With another version, this crate
//! does not find its client.
//!
//! # What is sent
//!
//! An *execution* is a run, a future, or a manual report. Each execution has its own hub, created from the hub
//! that is current when it starts. Nothing gets into the application's scope or into another execution.
//!
//! | what | content |
//! |---|---|
//! | breadcrumbs | start and end of the execution and of its stream, first token, network errors, retries, fallbacks, violations, drift; tokens if [enabled](SentryConfig::breadcrumbs_for_tokens) |
//! | errors | captured when the execution ends: violations, once for each rule and message, up to 32; and the failure of the execution if it is not one of these violations |
//! | spans | `l0.execution`, its child `l0.stream.consume`, and below that one span for each attempt: `gen_ai.chat` for the AI dashboards if its model and provider are known, otherwise `l0.attempt` |
//! | context | `l0_telemetry`, the numbers of the run, on the errors and the transaction |
//!
//! The [`End`](l0_core::End) of an execution determines its outcome. A network error that was retried is not
//! captured. An error after a complete answer, an abort, and a dropped stream are not captured either. An error
//! has the tags `component` and `error_type`, which override tags of the same names in the application's scope.
//! Errors are grouped by these tags. `error_type` is the value of
//! [`End::error_type`](l0_core::End::error_type), or the type of a network error.
//!
//! Usage is only on the attempts, each under the model that it called, so no sum counts it twice. A call has no
//! stream: its attempts are direct children of `l0.execution`. A run with a
//! [parent run](l0_core::RunBuilder::parent) is placed below the parent's `l0.execution`, if the parent is live
//! and uses the same interceptor.
//!
//! | outcome | status of the spans | error captured |
//! |---|---|---|
//! | completed | `ok` | |
//! | failed, truncated | `internal_error` | yes |
//! | timed out | `deadline_exceeded` | yes |
//! | limited | `resource_exhausted` | yes |
//! | aborted, dropped | `cancelled` | |
//!
//! The numbers are those of [`Quantity::ALL`](l0_core::Quantity::ALL). The key of a number is its name in snake
//! case, with the suffix `_ms` for times, as in `time_to_first_text_ms`, `tokens_wasted`, `inter_token_p90_ms` and
//! `network_errors_by_type.rate_limited`. Four numbers have a shorter key: `tokens`, `ttft_ms`, `retries` and
//! `guardrail_violations`. An unknown number is absent, except `guardrail_violations`, which is then 0.
//!
//! A run that is not measured is reported in the same way, but without numbers. The sample rates of the client
//! still apply.
//!
//! Prompts and answers are not sent unless you enable [`Content`](l0_core::Content) or
//! [`include_token_text`](SentryConfig::include_token_text). Error messages are L0's own words. To send redacted
//! error texts instead, use [`Monitoring::error_text`](l0_core::Monitoring::error_text) for runs, and
//! [`SentryConfig::error_text`] for manual reports and [`with_sentry`]. The only metadata sent are the well-known
//! [`keys`](l0_core::keys), with the endpoint redacted, and the keys listed with
//! [`tag_keys`](SentryConfig::tag_keys). The server and the request parameters that a source describes are sent
//! too. Each value is cut to 256 bytes.
//!
//! # Cost
//!
//! A token costs nothing, unless breadcrumbs for tokens or content are enabled. `docs/performance.md` in the
//! repository has measurements of a run; `cargo bench -p l0-bench --bench sentry` has more. The client's transport
//! sends the data, and no run waits for it. A panic in a callback of the client does not fail a run or a future.
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Sentry](https://docs.rs/l0-core/latest/l0_core/guide/sentry/)

mod breadcrumb;
mod config;
mod content;
mod data;
mod ending;
mod event;
mod execution;
mod gen_ai;
mod integration;
mod interceptor;
mod live;
mod spans;
mod tags;
mod wrapper;

pub use config::{Parent, SentryConfig};
pub use integration::{SentryExecution, SentryIntegration};
pub use interceptor::SentryInterceptor;
pub use wrapper::{with_sentry, with_sentry_by};
