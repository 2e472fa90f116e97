//! Export the telemetry of [`l0_core`]: JSON, CSV, structured logs, metric points, profiles of many
//! runs, and a queue to an exporting task.
//!
//! The formatters are pure: they write into what they are given, and hold nothing.
//!
//! ```
//! use l0_core::Telemetry;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let telemetry = Telemetry::default();
//! println!("{}", l0_export::json::to_string_pretty(&telemetry)?);
//!
//! // One line per run, in a file that several processes may append to.
//! # let path = std::env::temp_dir().join(format!("l0-doc-{}.jsonl", std::process::id()));
//! let mut file = l0_export::AppendFile::open(&path)?;
//! l0_export::json::write_line(&mut file, &telemetry)?;
//! # std::fs::remove_file(&path)?;
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it gives |
//! |---|---|
//! | [`json`] | a document, or lines of a log that read back equal; [`AppendFile`] keeps them whole |
//! | [`csv`](mod@csv) | a row under a header that is written once (feature `csv`) |
//! | [`log`] | a record with the keys of a structured log; as an event of `tracing` (feature `tracing`) |
//! | [`metrics`] | a list of named numbers with tags, for time-series systems |
//! | [`profile`] | counts and quantiles of many runs, in groups |
//! | [`queue()`] | final telemetry in a task of the application, which may wait where a run may not |
//!
//! Which numbers there are says [`Quantity::ALL`](l0_core::Quantity::ALL); every format here goes
//! through it, and derives its own spelling of the names.
//!
//! JSON, CSV and logs carry all of the metadata. Metric points carry only what is listed with
//! [`tags`](metrics::Points::tags). A run that failed says why in each of them.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `csv` | no | the module `csv` |
//! | `tracing` | no | `log::LogRecord::emit` |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod append_file;
#[cfg(feature = "csv")]
pub mod csv;
pub mod json;
pub mod log;
pub mod metrics;
mod numbers;
pub mod profile;
mod quantiles;
mod queue;
mod reasons;
mod sources;
mod sparkline;
mod values;

pub use append_file::AppendFile;
pub use queue::{Queue, QueueReceiver, queue};
