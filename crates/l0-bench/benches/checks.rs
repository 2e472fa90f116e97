//! Measures guardrails and drift detection per token of 5 bytes, beyond the monitored stream.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench checks
//! ```
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::io;

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use l0_bench::{ANSWER, DOCUMENT, drain, source};
use l0_core::{Checks, L0, L0Builder, Monitoring, Retry};
use l0_guardrails::{Drift, Guardrails, Json, Latex, Markdown, Patterns, StrictJson, ZeroOutput};

fn configurations() -> Vec<(&'static str, &'static str, L0Builder)> {
    let base = || {
        L0::builder()
            .monitoring(Monitoring::new())
            .retry(Retry::none())
    };
    let with = |guardrails: Checks| base().guardrails(guardrails);
    let none = Guardrails::none;
    vec![
        ("monitored", ANSWER, base()),
        ("zero output", ANSWER, with(none().with(ZeroOutput::new))),
        ("json, on prose", ANSWER, with(none().with(Json::new))),
        ("json, on json", DOCUMENT, with(none().with(Json::new))),
        (
            "strict json, on json",
            DOCUMENT,
            with(none().with(StrictJson::new)),
        ),
        ("markdown", ANSWER, with(none().with(Markdown::new))),
        ("latex", ANSWER, with(none().with(Latex::new))),
        ("patterns", ANSWER, with(none().with(Patterns::new))),
        ("drift", ANSWER, base().drift(Drift::new())),
        (
            "json + markdown + zero output + drift",
            ANSWER,
            with(
                none()
                    .with(Json::new)
                    .with(Markdown::new)
                    .with(ZeroOutput::new),
            )
            .drift(Drift::new()),
        ),
        (
            "strict + drift",
            ANSWER,
            with(Guardrails::strict()).drift(Drift::new()),
        ),
    ]
}

fn checks(criterion: &mut Criterion) {
    for tokens in [2_000, 20_000, 1_000_000] {
        let mut group = criterion.benchmark_group("checks");
        group
            .throughput(Throughput::Elements(tokens))
            .sampling_mode(SamplingMode::Flat);
        for (name, text, builder) in configurations() {
            let l0 = builder.build();
            group.bench_function(BenchmarkId::new(name, tokens), |bencher| {
                bencher.iter(|| {
                    let run = l0.stream(|_| async move { io::Result::Ok(source(text, tokens)) });
                    drain(run.start());
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).without_plots();
    targets = checks
}
criterion_main!(benches);
