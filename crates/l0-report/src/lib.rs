//! Summarizes many runs: profiles within your process, and reports on the JSON Lines that [`l0_export`] writes.
//!
//! ```
//! use l0_report::Profile;
//!
//! # let runs = [l0_core::Telemetry::example()];
//! let mut profile = Profile::new().group_by("model");
//! for telemetry in &runs {
//!     profile.add(telemetry);
//! }
//! println!("{profile}"); // outcomes, failure reasons, durations
//! ```
//!
//! Call `group_by` again to group by several metadata entries, and read the numbers of each group. Quantities
//! have the names of [`Quantity::ALL`](l0_core::Quantity::ALL). Times are in milliseconds:
//!
//! ```
//! use l0_report::Profile;
//!
//! # let runs = [l0_core::Telemetry::example()];
//! let mut profile = Profile::new().group_by("model").group_by("tenant");
//! for telemetry in &runs {
//!     profile.add(telemetry);
//! }
//! for (name, stats) in profile.groups() {
//!     // The name is `gpt-4o / acme`. The quantile is `None` if no run of the group produced a token.
//!     println!("{name}: {:?}", stats.sample("time_to_first_token").p95());
//! }
//! ```
//!
//! | item | purpose |
//! |---|---|
//! | [`Profile`], [`Stats`], [`Quantiles`] | counts and quantiles of many runs, in groups |
//! | [`Reader`], [`Filter`] | reads JSON Lines on all cores, and selects runs |
//! | [`Summary`] | the summary that `l0-report` prints |
//! | [`compare`] | compares two sets of runs |
//! | [`html`] | runs as a page |
//! | [`timeline`] | runs as a trace |
//! | [`csv`](mod@csv) | a profile as rows (feature `csv`) |
//!
//! The program `l0-report` offers the same on the command line. The guide
//! describes it: see below.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `cli` | yes | the program and its dependencies. A library does not need them: `default-features = false` |
//! | `csv` | with `cli` | the module `csv` |
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Reports](https://docs.rs/l0-core/latest/l0_core/guide/report/)
#![cfg_attr(docsrs, feature(doc_cfg))]

mod blocks;
mod cells;
pub mod compare;
#[cfg(feature = "csv")]
pub mod csv;
mod filter;
mod first;
pub mod html;
mod profile;
mod quantiles;
mod read;
mod reasons;
mod sparkline;
mod stats;
mod summary;
mod table;
mod text;
pub mod timeline;

pub use filter::{Condition, Filter, FilterError, parse_time};
pub use profile::Profile;
pub use quantiles::Quantiles;
pub use read::{Reader, Reading};
pub use reasons::Reason;
pub use stats::Stats;
pub use summary::{Run, Skipped, Summary};
