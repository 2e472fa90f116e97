//! Export the telemetry of [`l0_core`]: JSON and JSON Lines.
//!
//! Pure formatters: they write into what they are given, and hold nothing.
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
//! let mut file = std::fs::File::options().create(true).append(true).open(&path)?;
//! l0_export::json::write_line(&mut file, &telemetry)?;
//! # std::fs::remove_file(&path)?;
//! # Ok(())
//! # }
//! ```

pub mod json;
