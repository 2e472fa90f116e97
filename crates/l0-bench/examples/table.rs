//! Prints what criterion measured as tables in Markdown, ratios first.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench tokens
//! $ cargo run -q -p l0-bench --example table -- tokens
//! ```
#![allow(clippy::print_stdout, reason = "what this is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::{env, io};

use serde::Deserialize;

/// What was measured: for each row, how many ns one element takes, by the size of the whole.
type Rows = BTreeMap<String, BTreeMap<u64, f64>>;

#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
    throughput: Option<Throughput>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Throughput {
    elements: Option<u64>,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// The folders of the latest measurements under this one.
fn measurements(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name == "new") {
                found.push(path);
            } else {
                measurements(&path, found)?;
            }
        }
    }
    Ok(())
}

fn read<T: for<'de> Deserialize<'de>>(path: PathBuf) -> Result<T, Box<dyn Error>> {
    Ok(serde_json::from_reader(io::BufReader::new(File::open(
        path,
    )?))?)
}

fn rows(group: &str) -> Result<Rows, Box<dyn Error>> {
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let mut folders = Vec::new();
    measurements(&Path::new(&target).join("criterion"), &mut folders)?;
    let mut rows = Rows::new();
    for folder in folders {
        let benchmark: Benchmark = read(folder.join("benchmark.json"))?;
        if benchmark.group_id != group {
            continue;
        }
        let estimates: Estimates = read(folder.join("estimates.json"))?;
        let elements = benchmark.throughput.and_then(|one| one.elements);
        let nanos = estimates.median.point_estimate / elements.unwrap_or(1) as f64;
        let size = benchmark.value_str.and_then(|value| value.parse().ok());
        let row = rows.entry(benchmark.function_id.unwrap_or_default());
        row.or_default().insert(size.unwrap_or(1), nanos);
    }
    Ok(rows)
}

/// What a row is held against: the source alone, which may be one that waits.
fn base(name: &str) -> Option<&'static str> {
    match name {
        "clock read" => None,
        _ if name.ends_with(", waiting") => Some("bare, waiting"),
        _ => Some("bare"),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let group = env::args().nth(1).ok_or("which group? Try `tokens`.")?;
    let rows = rows(&group)?;
    let sizes: BTreeSet<u64> = rows.values().flat_map(BTreeMap::keys).copied().collect();
    // Ratios are of the middle one.
    let size = sizes
        .iter()
        .nth(sizes.len() / 2)
        .ok_or("nothing measured")?;
    let at = |name: &str| rows.get(name)?.get(size).copied();
    let clock = at("clock read");

    let mut header = vec!["what".to_owned()];
    header.extend(clock.map(|_| "over bare, in clock reads".to_owned()));
    header.extend(sizes.iter().map(|size| format!("ns at {size}")));
    println!("| {} |", header.join(" | "));
    println!("|---{}|", "|--:".repeat(header.len() - 1));
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by(|a, b| {
        let nanos = |row: &BTreeMap<u64, f64>| row.get(size).copied().unwrap_or(f64::INFINITY);
        nanos(a.1).total_cmp(&nanos(b.1))
    });
    for (name, row) in sorted {
        let mut cells = vec![name.clone()];
        if let Some(clock) = clock {
            let base = base(name).and_then(at);
            let over = at(name).zip(base).map(|(nanos, base)| nanos - base);
            cells.push(over.map_or_else(String::new, |over| format!("{:.2}", over / clock)));
        }
        cells.extend(sizes.iter().map(|size| match row.get(size) {
            Some(nanos) => format!("{nanos:.1}"),
            None => String::new(),
        }));
        println!("| {} |", cells.join(" | "));
    }
    Ok(())
}
