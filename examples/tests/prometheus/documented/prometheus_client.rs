use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use l0_prometheus::{Collector, OPENMETRICS_CONTENT_TYPE};
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;

/// Both as one text. L0's metrics come last, because they end with `# EOF`.
fn metrics(registry: &Registry, collector: &Collector) -> impl IntoResponse + use<> {
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode_registry(&mut text, registry);
    text.push_str(&collector.expose_openmetrics());
    ([(CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE)], text)
}

fn router(registry: Registry, collector: Collector) -> Router {
    let registry = std::sync::Arc::new(registry);
    Router::new().route("/metrics", get(async move || metrics(&registry, &collector)))
}
