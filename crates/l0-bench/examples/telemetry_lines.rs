//! Prints JSON Lines of so many runs, always the same: something to try `l0-report` on.
//!
//! ```console
//! $ cargo run --release -p l0-bench --example telemetry_lines -- 1000000 > runs.jsonl
//! $ cargo run --release -p l0-report -- --by model runs.jsonl
//! ```

use std::error::Error;
use std::io::{self, BufWriter, Write};

use fastrand::Rng;

fn main() -> Result<(), Box<dyn Error>> {
    let runs: u64 = std::env::args()
        .nth(1)
        .ok_or("how many runs? Give a number.")?
        .parse()?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut rng = Rng::with_seed(7);
    for number in 0..runs {
        l0_export::json::write_line(&mut out, &l0_bench::telemetry(&mut rng, number))?;
    }
    Ok(out.flush()?)
}
