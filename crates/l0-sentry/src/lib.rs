//! Report runs of [`l0_core`] to Sentry: breadcrumbs, errors and spans, on every exit.
//!
//! ```
//! use l0_core::L0;
//! use l0_sentry::{SentryConfig, SentryInterceptor};
//!
//! let options = sentry::ClientOptions::new() // the DSN from SENTRY_DSN
//!     .traces_sample_rate(1.0)
//!     .shutdown_timeout(std::time::Duration::from_secs(5)); // how long the guard may flush
//! let guard = sentry::init(options);
//!
//! let config = SentryConfig::new().tag("environment", "production");
//! let l0 = L0::builder()
//!     .interceptor(SentryInterceptor::new(config))
//!     .build();
//! # drop((l0, guard));
//! ```
//!
//! [`SentryInterceptor`] reports every run, [`with_sentry`] a whole future, and
//! [`SentryIntegration`] what you report manually. All take one [`SentryConfig`] and use the same
//! words.
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
//! | breadcrumbs | start and end of the execution and of its stream, first token, network errors, retries, fallbacks, violations, drift; tokens if [switched on](SentryConfig::breadcrumbs_for_tokens) |
//! | errors | when the execution ends: violations, each once for its rule and message, up to 32; and what it failed with, if that is not one of them: the network error, or any other failure |
//! | spans | `l0.execution`, below it `l0.stream.consume`, and below that one for each attempt: `gen_ai.chat` for the AI dashboards if its model and provider are known, else `l0.attempt` |
//! | context | `l0_telemetry`, the numbers of the run, with the errors and the transaction |
//!
//! How an execution ended, its [`End`](l0_core::End) says. A network error that was retried is no
//! error, nor is one that comes when the answer is complete. Neither is an abort, nor a stream that was
//! dropped. An error has the tags `component` and `error_type`, over tags of the same names in the
//! application's scope, and is grouped by them; `error_type` is the word of
//! [`End::error_type`](l0_core::End::error_type), and for network errors their type.
//!
//! Usage stands on the attempts only, each at the model that it asked, so that no sum has it twice. A call has no
//! stream: its attempts stand right below `l0.execution`. A run that [serves](l0_core::RunBuilder::parent) another
//! one nests below that one's `l0.execution`, while it is live and goes through the same interceptor.
//!
//! | outcome | status of the spans | error |
//! |---|---|---|
//! | completed | `ok` | |
//! | failed, truncated | `internal_error` | yes |
//! | timed out | `deadline_exceeded` | yes |
//! | limited | `resource_exhausted` | yes |
//! | aborted, dropped | `cancelled` | |
//!
//! The numbers are those of [`Quantity::ALL`](l0_core::Quantity::ALL). A key is the name in snake case,
//! with `_ms` after times, except for those that are better known as `tokens`, `ttft_ms`, `retries` and
//! `guardrail_violations`: `time_to_first_text_ms`, `tokens_wasted`, `inter_token_p90_ms`,
//! `network_errors_by_type.rate_limited`. What is not known is absent.
//!
//! A run that is not measured is reported in the same way, without numbers: the client's own sample
//! rates decide what of it is sent.
//!
//! No prompt and no text of an answer leaves unless you choose [`Content`], or
//! [`include_token_text`](SentryConfig::include_token_text). Messages of errors are in L0's own words, unless
//! [`Monitoring::error_text`](l0_core::Monitoring::error_text) or, for what is reported manually,
//! [`SentryConfig::error_text`] lets their texts out. Of the metadata, the well-known
//! [`keys`](l0_core::keys) leave, the endpoint redacted, and those listed with
//! [`tag_keys`](SentryConfig::tag_keys), each value cut to 256 bytes. Of what a source says of its request, the
//! server and the parameters leave, cut likewise.
//!
//! # Cost
//!
//! A token costs nothing, unless each leaves a breadcrumb or content is sent, which takes its text; `cargo bench -p l0-bench --bench sentry`
//! measures what a run costs. Sending is the client's transport's task, and no run waits for it. Nor
//! does a run or a future fail if a callback of the client panics.

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
pub use l0_core::Content;
pub use wrapper::{with_sentry, with_sentry_by};
