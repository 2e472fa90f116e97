//! Tell Sentry what happens in runs of [`l0_core`]: breadcrumbs, errors and spans, on every exit.
//!
//! ```
//! use l0_core::L0;
//! use l0_sentry::{SentryConfig, SentryInterceptor};
//!
//! # let _guard =
//! sentry::init(sentry::ClientOptions::new().traces_sample_rate(1.0)); // the DSN from SENTRY_DSN
//!
//! let config = SentryConfig::new().tag("environment", "production");
//! let l0 = L0::builder()
//!     .interceptor(SentryInterceptor::new(config))
//!     .build();
//! # drop(l0);
//! ```
//!
//! [`SentryInterceptor`] tells of every run, [`with_sentry`] of a whole future, and
//! [`SentryIntegration`] of what is told by hand. All take one [`SentryConfig`] and tell it in the
//! same words.
//!
//! The `sentry` crate must be of the same version, 0.49: only then is its client found.
//!
//! # What is sent
//!
//! An *execution* has a hub of its own, made from the one that is current when it starts, and
//! everything happens inside of it: nothing gets into the application's scope or into another
//! execution.
//!
//! | what | when |
//! |---|---|
//! | breadcrumbs | start and end of the execution and of its stream, first token, network errors, retries, violations, drift; tokens if [switched on](SentryConfig::breadcrumbs_for_tokens) |
//! | errors | when the execution ends: the network error that ended it; violations, each once for its rule and message, up to 32; any other failure |
//! | spans | `l0.execution` with its child `l0.stream.consume`; with the metadata `model` and `provider`, a child `gen_ai.chat` for the AI dashboards |
//! | context | `l0_telemetry`, the numbers of the run, with the errors and the transaction |
//!
//! A network error that was retried is no error, nor is one that comes when the answer is complete.
//! Neither is an abort, nor a stream that was dropped. An error has the tags `component` and
//! `error_type`, over tags of the same names in the application's scope, and is grouped by them.
//!
//! | outcome | status of the spans | error |
//! |---|---|---|
//! | completed | `ok` | |
//! | failed, truncated | `internal_error` | yes |
//! | timed out | `deadline_exceeded` | yes |
//! | aborted, dropped | `cancelled` | |
//!
//! A run that is not measured is told in the same way, without numbers: the client's own sample rates
//! decide what of it is sent.
//!
//! No text of a prompt or an answer leaves unless it is [switched
//! on](SentryConfig::include_token_text). Of errors the redacted text leaves, and of the metadata
//! the well-known [`keys`](l0_core::keys), the endpoint redacted as well, and those listed with
//! [`tag_keys`](SentryConfig::tag_keys), each value cut to 512 bytes.
//!
//! # Cost
//!
//! Nothing for a token, unless each leaves a breadcrumb; `cargo bench -p l0-bench --bench sentry`
//! tells what a run costs. Sending is the client's transport's task, and no run waits for it. Nor does
//! a run or a future fail if a callback of the client panics.

mod breadcrumb;
mod config;
mod data;
mod event;
mod execution;
mod gen_ai;
mod integration;
mod interceptor;
mod spans;
mod tags;
mod wrapper;

pub use config::{Parent, SentryConfig};
pub use integration::{SentryExecution, SentryIntegration};
pub use interceptor::SentryInterceptor;
pub use wrapper::with_sentry;
