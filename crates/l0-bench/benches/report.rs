//! Measures reading JSON Lines back and profiling them, compared with `serde_json` alone reading the same lines
//! into the same struct.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench report
//! ```
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use fastrand::Rng;
use l0_core::Telemetry;
use l0_export::json::{read_lines, write_line};
use l0_report::{Profile, Reader, Summary};
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    telemetry: Telemetry,
}

fn report(criterion: &mut Criterion) {
    let mut rng = Rng::with_seed(7);
    let mut lines = Vec::new();
    for number in 0..20_000 {
        let telemetry = l0_bench::telemetry(&mut rng, number);
        write_line(&mut lines, &telemetry).expect("writing to memory succeeds");
    }

    let mut group = criterion.benchmark_group("report");
    group.throughput(Throughput::Bytes(lines.len() as u64));
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("serde_json alone", |bencher| {
        bencher.iter(|| {
            lines
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| {
                    serde_json::from_slice::<Line>(line)
                        .expect("a line")
                        .telemetry
                })
                .map(|telemetry| telemetry.metrics.total_tokens)
                .sum::<u64>()
        });
    });
    group.bench_function("read_lines", |bencher| {
        bencher.iter(|| {
            read_lines(&lines[..])
                .map(|telemetry| telemetry.expect("a line").metrics.total_tokens)
                .sum::<u64>()
        });
    });
    group.bench_function("read_lines and profile by model", |bencher| {
        bencher.iter(|| {
            let mut profile = Profile::new().group_by("model");
            for telemetry in read_lines(&lines[..]) {
                profile.add(&telemetry.expect("a line"));
            }
            profile
        });
    });
    group.bench_function("Reader and summary by model, over all cores", |bencher| {
        bencher.iter(|| {
            let mut summary = Summary::new(Profile::new().group_by("model"));
            Reader::new().read(&lines[..], &mut |run| summary.add(run));
            summary
        });
    });
    group.finish();
}

criterion_group!(benches, report);
criterion_main!(benches);
