use l0_prometheus::{BuildError, Collector, Trace};
use opentelemetry::trace::TraceContextExt;
use tracing_opentelemetry::OpenTelemetrySpanExt;

fn collector() -> Result<Collector, BuildError> {
    Collector::builder()
        .exemplar_trace(|_run| {
            let context = tracing::Span::current().context();
            let current = context.span().span_context().clone();
            let trace = Trace::new(current.trace_id().to_bytes(), current.span_id().to_bytes());
            current.is_sampled().then_some(trace)
        })
        .build()
}
