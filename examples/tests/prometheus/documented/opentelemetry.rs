use l0_prometheus::{BuildError, Collector, Trace};
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

fn collector() -> Result<Collector, BuildError> {
    Collector::builder()
        .exemplar_trace(|_run| {
            let current = Context::current().span().span_context().clone();
            let trace = Trace::new(current.trace_id().to_bytes(), current.span_id().to_bytes());
            current.is_sampled().then_some(trace) // only sampled traces can be looked up
        })
        .build()
}
