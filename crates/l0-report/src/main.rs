//! Reports on the JSON Lines that `l0_export::json::write_line` writes.
//!
//! ```console
//! $ l0-report --by model l0.jsonl
//! $ l0-report compare base.jsonl new.jsonl
//! ```
//!
//! `docs/report.md` is the guide. `l0-report help` lists all options.
//!
//! Memory use does not depend on the length of the input. Broken lines are skipped. Standard error names each
//! one, with its position and what is wrong, but without quoting it. Lines of other versions of L0 are not
//! broken.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::run()
}
