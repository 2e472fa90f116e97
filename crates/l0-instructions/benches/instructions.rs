//! Counts the instructions of the hot paths, and compares them with recorded figures to prevent growth.
//!
//! Each figure is for [`TOKENS`] tokens or for one run. A path that takes over a tenth more fails; for one that
//! takes fewer, lower the figure. `.ci/instructions` prints all paths as a table, and lists those that fell by
//! over a tenth.
//!
//! ```console
//! $ cargo bench -p l0-instructions --profile instructions
//! $ .ci/instructions
//! ```
#![allow(
    missing_docs,
    unused_qualifications,
    reason = "the macros create public functions and use full paths"
)]

use std::hint::black_box;
use std::io;

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use l0_bench::bodies::{ANTHROPIC, CHAT, GEMINI, OLLAMA, RESPONSES};
use l0_bench::{ANSWER, Source, source, waiting};
use l0_core::{L0, L0Builder, Monitor, Run, Telemetry, Watched};
use l0_instructions::{
    Body, TOKENS, drift, facade, full_stack, heard, large_reads, limited, monitor, off, on,
    progress, prometheus, run, small_reads, stop_clock, take, three_rules, traced, watched,
};
use l0_prometheus::{Collector, LabeledCollector, Labels};
use tokio::time::Instant;

/// A recorded figure.
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
#[bench::off(args = (off(), source), setup = run, config = kept(115_000))]
#[bench::on(args = (on(), source), setup = run, config = kept(311_081))]
#[bench::facade(args = (facade(), source), setup = run, config = kept(595_435))]
#[bench::progress(args = (progress(), source), setup = run, config = kept(317_081))]
#[bench::limited(args = (limited(), source), setup = run, config = kept(1_408_534))]
#[bench::three_rules(args = (three_rules(), source), setup = run, config = kept(566_378))]
#[bench::drift(args = (drift(), source), setup = run, config = kept(986_135))]
#[bench::full_stack(args = (full_stack(), source), setup = run, config = kept(1_190_731))]
#[bench::heard(args = (heard(), source), setup = run, config = kept(311_081))]
#[bench::off_waiting(args = (off(), waiting), setup = run, config = kept(240_078))]
#[bench::on_waiting(args = (on(), waiting), setup = run, config = kept(593_159))]
#[bench::progress_waiting(args = (progress(), waiting), setup = run, config = kept(651_159))]
#[bench::full_stack_waiting(args = (full_stack(), waiting), setup = run, config = kept(2_074_809))]
fn tokens(mut run: Counted) -> Counted {
    take(&mut run, TOKENS);
    run
}

#[library_benchmark]
#[bench::off(args = (off(), source), setup = watched, config = kept(92_092))]
#[bench::on(args = (on(), source), setup = watched, config = kept(287_173))]
#[bench::full_stack(args = (full_stack(), source), setup = watched, config = kept(1_164_809))]
fn watched_tokens(mut watched: Watched<Source>) -> Watched<Source> {
    take(&mut watched, TOKENS);
    watched
}

#[library_benchmark]
#[bench::on(setup = monitor, config = kept(129_162))]
fn monitored_tokens((mut monitor, arrivals): (Monitor, Vec<Instant>)) -> Monitor {
    for at in arrivals {
        monitor.record_token_at(at);
    }
    monitor
}

/// Returns an `L0` that has already had a run. The heap that the first run sees depends on what was built
/// before.
fn ready(builder: L0Builder) -> L0 {
    stop_clock();
    one_run(builder.build())
}

fn one_run(l0: L0) -> L0 {
    let source = |_| async { io::Result::Ok(source(ANSWER, 1)) };
    l0_bench::drain(l0.stream(source).start());
    l0
}

// A run of one token, from its start to its end.
#[library_benchmark]
#[bench::off(args = (off()), setup = ready, config = kept(4_594))]
#[bench::on(args = (on()), setup = ready, config = kept(8_347))]
#[bench::prometheus(args = (prometheus()), setup = ready, config = kept(13_718))]
#[bench::facade(args = (facade()), setup = ready, config = kept(14_416))]
#[bench::limited(args = (limited()), setup = ready, config = kept(12_519))]
#[bench::traced(args = (traced()), setup = ready, config = kept(8_517))]
#[bench::heard(args = (heard()), setup = ready, config = kept(20_224))]
#[bench::full_stack(args = (full_stack()), setup = ready, config = kept(18_709))]
fn whole_run(l0: L0) -> L0 {
    one_run(l0)
}

fn recorder() -> (LabeledCollector, Telemetry) {
    let collector = Collector::builder().build().expect("valid");
    let labels = Labels::new([("model", "gpt-4o")]).expect("valid");
    let (collector, telemetry) = (collector.with_labels(&labels), Telemetry::example());
    // Allocates what the first run of a label set needs.
    collector.record(&telemetry);
    (collector, telemetry)
}

#[library_benchmark]
#[bench::example(setup = recorder, config = kept(4_173))]
// Returned, so that dropping it is not counted.
fn prometheus_record(
    (collector, telemetry): (LabeledCollector, Telemetry),
) -> (LabeledCollector, Telemetry) {
    collector.record(black_box(&telemetry));
    (collector, telemetry)
}

/// Returns a collector of this many label sets that has been scraped before.
fn scraped(label_sets: usize) -> Collector {
    let (collector, telemetry) = (Collector::builder().build(), Telemetry::example());
    let collector = collector.expect("valid");
    for number in 0..label_sets {
        let labels = Labels::new([("model", format!("model-{number}"))]).expect("valid");
        collector.record(&telemetry, &labels);
    }
    drop(collector.expose());
    collector
}

#[library_benchmark]
#[bench::hundred(args = (100), setup = scraped, config = kept(3_994_432))]
fn prometheus_scrape(collector: Collector) -> (Collector, String) {
    let text = collector.expose();
    (collector, text)
}

// As many tokens as elsewhere, decoded from bytes.
#[library_benchmark]
#[bench::chat(args = (CHAT), setup = large_reads, config = kept(7_473_212))]
#[bench::chat_small(args = (CHAT), setup = small_reads, config = kept(7_642_172))]
#[bench::responses(args = (RESPONSES), setup = large_reads, config = kept(5_607_677))]
#[bench::anthropic(args = (ANTHROPIC), setup = large_reads, config = kept(4_083_302))]
#[bench::gemini(args = (GEMINI), setup = large_reads, config = kept(9_098_842))]
#[bench::ollama(args = (OLLAMA), setup = large_reads, config = kept(4_425_932))]
fn decoded_tokens(body: Body) -> Body {
    body.decode();
    body
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [
        tokens,
        watched_tokens,
        monitored_tokens,
        whole_run,
        prometheus_record,
        prometheus_scrape,
        decoded_tokens
    ]
);

main!(library_benchmark_groups = hot_paths);
