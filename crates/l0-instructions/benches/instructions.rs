//! How many instructions the hot paths take, held against kept figures: the guard against growth.
//!
//! Each figure is of [`TOKENS`] tokens or of one run. A path that takes over a tenth more fails; one
//! that takes fewer has earned a smaller figure.
//!
//! ```console
//! $ cargo bench -p l0-instructions --profile instructions
//! ```
#![allow(
    missing_docs,
    unused_qualifications,
    reason = "the macros make public functions, and name things in full"
)]

use std::hint::black_box;
use std::io;

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use l0_bench::{ANSWER, Source, source, waiting};
use l0_core::{L0, L0Builder, Monitor, Run, Telemetry, Watched};
use l0_instructions::{
    TOKENS, facade, full_stack, heard, limited, monitor, off, on, run, stop_clock, take, traced,
    watched,
};
use l0_prometheus::{Collector, LabelledCollector, Labels};
use tokio::time::Instant;

/// A figure that is kept: what was counted.
fn kept(instructions: u64) -> LibraryBenchmarkConfig {
    let limit = instructions + instructions / 10;
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, limit)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

type Counted = Run<'static, &'static str, io::Error>;

#[library_benchmark]
#[bench::off(args = (off(), source), setup = run, config = kept(176_092))]
#[bench::on(args = (on(), source), setup = run, config = kept(392_092))]
#[bench::facade(args = (facade(), source), setup = run, config = kept(572_452))]
#[bench::limited(args = (limited(), source), setup = run, config = kept(1_371_563))]
#[bench::full_stack(args = (full_stack(), source), setup = run, config = kept(1_510_900))]
#[bench::heard(args = (heard(), source), setup = run, config = kept(392_092))]
#[bench::off_waiting(args = (off(), waiting), setup = run, config = kept(310_167))]
#[bench::on_waiting(args = (on(), waiting), setup = run, config = kept(706_167))]
#[bench::full_stack_waiting(args = (full_stack(), waiting), setup = run, config = kept(2_269_975))]
fn tokens(mut run: Counted) -> Counted {
    take(&mut run, TOKENS);
    run
}

#[library_benchmark]
#[bench::off(args = (off(), source), setup = watched, config = kept(151_088))]
#[bench::on(args = (on(), source), setup = watched, config = kept(368_088))]
#[bench::full_stack(args = (full_stack(), source), setup = watched, config = kept(1_483_963))]
fn watched_tokens(mut watched: Watched<Source>) -> Watched<Source> {
    take(&mut watched, TOKENS);
    watched
}

#[library_benchmark]
#[bench::on(setup = monitor, config = kept(138_147))]
fn monitored_tokens((mut monitor, arrivals): (Monitor, Vec<Instant>)) -> Monitor {
    for at in arrivals {
        monitor.record_token_at(at);
    }
    monitor
}

/// An `L0` that has had a run: what the first one finds of the heap depends on what was built before.
fn ready(builder: L0Builder) -> L0 {
    stop_clock();
    one_run(builder.build())
}

fn one_run(l0: L0) -> L0 {
    let source = |_| async { io::Result::Ok(source(ANSWER, 1)) };
    l0_bench::drain(l0.stream(source).start());
    l0
}

// From its start to its end, a run of one token.
#[library_benchmark]
#[bench::off(args = (off()), setup = ready, config = kept(5_605))]
#[bench::on(args = (on()), setup = ready, config = kept(10_643))]
#[bench::facade(args = (facade()), setup = ready, config = kept(16_701))]
#[bench::limited(args = (limited()), setup = ready, config = kept(15_125))]
#[bench::traced(args = (traced()), setup = ready, config = kept(10_384))]
#[bench::heard(args = (heard()), setup = ready, config = kept(22_209))]
#[bench::full_stack(args = (full_stack()), setup = ready, config = kept(22_123))]
fn whole_run(l0: L0) -> L0 {
    one_run(l0)
}

fn recorder() -> (LabelledCollector, Telemetry) {
    let collector = Collector::builder().build().expect("valid");
    let labels = Labels::new([("model", "gpt-4o")]).expect("valid");
    (collector.with_labels(&labels), Telemetry::example())
}

#[library_benchmark]
#[bench::example(setup = recorder, config = kept(6_188))]
// Returned, so that dropping it is not counted.
fn prometheus_record(
    (collector, telemetry): (LabelledCollector, Telemetry),
) -> (LabelledCollector, Telemetry) {
    collector.record(black_box(&telemetry));
    (collector, telemetry)
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [
        tokens,
        watched_tokens,
        monitored_tokens,
        whole_run,
        prometheus_record
    ]
);

main!(library_benchmark_groups = hot_paths);
