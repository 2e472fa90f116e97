//! Shows the live runs of `l0-core`: which answer hangs, whether its source or its consumer is the cause, and
//! what failed recently.
//!
//! [`Live`] is an interceptor that keeps a bounded table of the live runs, the runs that ended last, and
//! totals. [`Live::snapshot`] reads it as plain data, from any thread, even if no task polls the
//! runs:
//!
//! ```
//! use std::time::Duration;
//!
//! use l0_core::L0;
//! use l0_live::Live;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), l0_core::KeyError> {
//! # let client = l0_core::testing::Script::new().attempt(|a| a.token("Hello").hang());
//! let live = Live::builder().metadata_keys(["endpoint"])?.build();
//! let l0 = L0::builder().interceptor(live.clone()).build();
//!
//! let mut run = l0
//!     .stream(|_attempt| client.connect())
//!     .metadata("model", "gpt-4")
//!     .metadata("endpoint", "/chat")
//!     .start();
//! # use futures_util::StreamExt;
//! # run.next().await;
//! # tokio::select! { biased; _ = run.next() => {}, () = tokio::time::sleep(Duration::from_secs(11)) => {} }
//!
//! for run in live.stalled() {
//!     let model = run.model.as_deref().unwrap_or("?");
//!     eprintln!("{model} has been silent for {:?}", run.silence);
//! }
//! # assert_eq!(live.stalled()[0].silence, Some(Duration::from_secs(11)));
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `axum`, `routes` serves the same data as a page with live updates, and as JSON.
//!
//! # Stalls
//!
//! A run is *stalled* if its source has yielded nothing for [ten seconds](LiveBuilder::stalls), or, before the
//! first token of an attempt, for a minute. A run that waits for its consumer, or backs off before a retry, is not
//! stalled: see its [state](LiveRun::state). [`Live::watch_stalls`] reports each stall once, in a task that you
//! spawn. Runs beyond the [limit](LiveBuilder::max_live) are not watched. Runs that are not measured, because
//! monitoring is off or they were not sampled, have no times and are never stalled.
//!
//! # Stored data
//!
//! Prompts and answers are never stored. The table keeps the id, model and provider of a run,
//! the metadata whose keys you [list](LiveBuilder::metadata_keys), numbers, and the failure reasons of
//! attempts, in the same words as all of L0 (see `Monitoring::error_text`; the
//! message of a violation comes from its rule). Texts are cut to 256 bytes.
//!
//! A live run takes about 450 bytes, plus its metadata. Beyond the [limit](LiveBuilder::max_live) of the
//! table, 100,000, runs are only counted, so a flood of runs takes no more memory. A
//! snapshot counts all watched runs, and [lists](LiveBuilder::max_listed) 1,000 of them.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `axum` | no | `routes`: the page, as an axum router |
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Live runs](https://docs.rs/l0-core/latest/l0_core/guide/live/)
#![cfg_attr(docsrs, feature(doc_cfg))]

mod live;
#[cfg(feature = "axum")]
mod route;
mod snapshot;
mod table;

pub use live::{Live, LiveBuilder};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use route::routes;
pub use snapshot::{
    FinishedAttempt, FinishedRun, LiveRun, ModelTotals, Reason, Snapshot, Spent, Totals,
};
