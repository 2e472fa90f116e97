//! The code blocks of the guide.

const GUIDE: &str = include_str!("../../../docs/prometheus.md");

pub(crate) mod opentelemetry {
    include!("documented/opentelemetry.rs");

    pub(crate) fn make() -> Result<Collector, BuildError> {
        collector()
    }
}

pub(crate) mod tracing {
    include!("documented/tracing.rs");

    pub(crate) fn make() -> Result<Collector, BuildError> {
        collector()
    }
}

pub(crate) mod prometheus_client {
    include!("documented/prometheus_client.rs");

    pub(crate) fn make(registry: Registry, collector: Collector) -> Router {
        router(registry, collector)
    }
}

#[test]
fn the_guide_has_the_code_that_is_tested() {
    for code in [
        include_str!("documented/opentelemetry.rs"),
        include_str!("documented/tracing.rs"),
        include_str!("documented/prometheus_client.rs"),
    ] {
        let block = format!("```rust\n{code}```\n");
        assert!(GUIDE.contains(&block), "the guide has no block\n{block}");
    }
}
