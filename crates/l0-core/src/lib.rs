//! Wraps an LLM token stream: retries, timeouts, abort, and telemetry that is final however the run
//! ends.
//!
//! ```
//! use futures_util::StreamExt;
//! use l0_core::{Chunk, L0, Monitoring, Token};
//! # use l0_core::testing::Script;
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
//!
//! let l0 = L0::builder().monitoring(Monitoring::new()).build();
//!
//! let mut run = l0
//!     .stream(|_attempt| client.connect()) // called again for every retry
//!     .metadata("model", "gpt-4")
//!     .start();
//!
//! let mut text = String::new();
//! while let Some(chunk) = run.next().await {
//!     match chunk? {
//!         Chunk::Item(token) => text.push_str(token.view().answer()),
//!         Chunk::Restart { .. } => text.clear(), // a retry, after items were yielded
//!     }
//! }
//!
//! let telemetry = run.telemetry().expect("monitoring is on");
//! println!("{telemetry}");
//! # assert_eq!(text, "Hello, world");
//! # assert_eq!(telemetry.metrics.total_tokens, 2);
//! # Ok(())
//! # }
//! ```
//!
//! A *run* is one request of an application. It consists of one or more *attempts*, which are calls
//! of the source.
//!
//! - [`L0::stream`] wraps a source that can be called again, and retries it.
//! - [`L0::call`] does the same for a request with a single answer.
//! - [`L0::watch`] wraps an existing stream, and only measures it.
//!
//! The items are the source's own; their [`Token`] implementation describes how they are read. Each
//! run reports typed [`Event`]s to the [`Observer`]s that its [`Interceptor`]s create. What was
//! measured is [`Telemetry`], plain data.
//!
//! Everything happens inside the consumer's polls: no task is spawned, and dropping a run stops it.
//! A run that has started finishes exactly once, however it ends, with its [`Outcome`].
//!
//! Types that only appear in signatures, such as the adaptors of a [`Source`], are in [`builder`] and
//! [`source`](mod@source).
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `testing` | no | scripted sources, captured events, constructors of events, every way a run can end |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod attempt_stats;
mod budget;
pub mod builder;
mod check;
mod clock;
mod content;
mod distribution;
mod end;
mod error;
mod estimate;
mod event;
mod failure;
// Only for docs.rs: the code in the pages is compiled by the tests of the repository.
#[cfg(all(doc, not(doctest)))]
pub mod guide;
mod keep;
pub mod keys;
mod l0;
mod label;
mod limits;
mod live;
mod metadata;
mod money;
mod monitor;
mod monitoring;
mod observe;
mod observe_fn;
mod options;
mod price;
mod progress;
mod quantity;
mod recorder;
mod recording;
pub mod redact;
mod retry;
mod run;
pub mod source;
mod spending;
mod stalls;
mod stats;
mod stop;
mod sync;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod timeout;
mod token;
mod units;
mod usage;
mod verdict;

pub use attempt_stats::AttemptStats;
pub use budget::{Budget, Budgets};
pub use check::{Check, Checks, Effect, Ended, Finding, Findings};
pub use content::{AnswerBuffer, Content, Prompt};
pub use distribution::{Bucket, Distribution};
pub use end::{Cause, End, LimitKind, TimeoutKind};
pub use error::{Error, Refusal, SourceError};
pub use estimate::Unfinished;
pub use event::{Event, RetryKind, RetryReason};
pub use failure::{Failure, FailureKind, NetworkErrorKind};
pub use keep::{Keep, KeepReason};
pub use keys::{KeyError, KeyList, KeyRules};
pub use l0::{L0, L0Builder};
pub use limits::Limits;
pub use metadata::Metadata;
pub use money::{Currency, Money, ParseCurrencyError, ParseMoneyError};
pub use monitor::Monitor;
pub use monitoring::Monitoring;
pub use observe::{Interceptor, Interest, NewRun, Observer, Observers, RunInfo, SourceInfo};
pub use observe_fn::{Finished, ObserveFn, OnFinish, observe_fn, on_finish};
pub use price::{Cost, CostSource, Price, Priced, Pricing, Tier, TokenPrices};
pub use progress::{Progress, RunState};
pub use quantity::{Quantity, QuantityKind, Unit, Value};
pub use retry::{Backoff, Retry, RetryBudget, RetryContext};
pub use run::{Call, CallBuilder, Chunk, Run, RunBuilder, WatchBuilder, Watched};
pub use source::source::{Attempt, Description, Source, source};
pub use stalls::Stalls;
pub use stats::{DriftStats, ErrorRecord, GuardrailStats, SeverityCounts};
pub use stop::RunHandle;
pub use telemetry::{
    Metrics, Network, NetworkErrorRecord, SourcePart, Summary, Telemetry, Timestamp,
};
pub use timeout::Timeouts;
pub use token::{FinishReason, Token, TokenKind, TokenView};
pub use usage::Usage;
pub use verdict::{DriftReport, Outcome, Severity, Violation};
