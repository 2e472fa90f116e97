//! Prints JSON Lines of this many runs, always the same, as input for `l0-report`.
//!
//! ```console
//! $ cargo run --release -p l0-bench --example telemetry_lines -- 1000000 > runs.jsonl
//! $ cargo run --release -p l0-report -- --by model runs.jsonl
//! ```

use std::error::Error;
use std::io::{self, BufWriter, Write};

use fastrand::Rng;

fn main() -> Result<(), Box<dyn Error>> {
    let runs = std::env::args().nth(1).and_then(|runs| runs.parse().ok());
    let runs: u64 = runs.ok_or("the number of runs is missing: pass one, such as 3000")?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut rng = Rng::with_seed(7);
    for number in 0..runs {
        l0_export::json::write_line(&mut out, &l0_bench::telemetry(&mut rng, number))?;
    }
    Ok(out.flush()?)
}
