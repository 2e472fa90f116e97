//! Exports the telemetry of [`l0_core`]: JSON, CSV, structured logs, metric points, and a
//! queue to an exporting task. The crate `l0-report` profiles many runs.
//!
//! The formatters write into the writer or buffer that you pass, and keep no state.
//!
//! ```
//! use l0_core::Telemetry;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let telemetry = Telemetry::default();
//! println!("{}", l0_export::json::to_string_pretty(&telemetry)?);
//!
//! // One line per run, in a file to which several processes can append.
//! # let path = std::env::temp_dir().join(format!("l0-doc-{}.jsonl", std::process::id()));
//! let mut file = l0_export::AppendFile::open(&path)?;
//! l0_export::json::write_line(&mut file, &telemetry)?;
//! # std::fs::remove_file(&path)?;
//! # Ok(())
//! # }
//! ```
//!
//! | module | purpose |
//! |---|---|
//! | [`json`] | a document, or log lines that read back equal; [`AppendFile`] keeps the lines whole |
//! | [`csv`](mod@csv) | a row under a header that is written once (feature `csv`) |
//! | [`log`] | a record with the keys of a structured log; as a `tracing` event (feature `tracing`) |
//! | [`metrics`] | a list of named numbers with tags, for time-series systems |
//! | [`names`] | the names of the numbers, for custom formats; [`by_source`] splits a run by source for them |
//! | [`queue()`] | final telemetry in a task of the application, which can wait where a run cannot |
//!
//! [`Quantity::ALL`](l0_core::Quantity::ALL) lists all numbers. Every format here iterates over it and
//! derives its own spelling of the names.
//!
//! JSON, CSV and logs carry all metadata. Metric points carry only the keys that you list with
//! [`tags`](metrics::Points::tags). In each format, a failed run includes its reason.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `csv` | no | the module `csv` |
//! | `tracing` | no | `log::LogRecord::emit` |
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Exporters](https://docs.rs/l0-core/latest/l0_core/guide/exporters/)
#![cfg_attr(docsrs, feature(doc_cfg))]

mod append_file;
#[cfg(feature = "csv")]
pub mod csv;
pub mod json;
pub mod log;
pub mod metrics;
pub mod names;
mod numbers;
mod queue;
mod sources;
mod values;

pub use append_file::AppendFile;
pub use queue::{Queue, QueueReceiver, queue};
pub use sources::by_source;
