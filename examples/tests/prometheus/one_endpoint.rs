//! The metrics of `prometheus-client` and of L0 on one endpoint, with the code of the guide.

use l0_core::testing::Script;
use l0_core::{L0, keys};
use l0_prometheus::{Collector, OPENMETRICS_CONTENT_TYPE};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::common::{check_strictly, switched_on, wait_for};
use crate::programs::Prometheus;
use crate::{documented, served};

/// The metrics of an application.
fn registry() -> Registry {
    let mut registry = Registry::with_prefix("app");
    let logins = Family::<Vec<(String, String)>, Counter>::default();
    let by = |way: &str| vec![("way".to_owned(), way.to_owned())];
    logins.get_or_create(&by("password")).inc_by(2);
    logins.get_or_create(&by("key \"x\"")).inc();
    registry.register("logins", "Logins", logins);
    let sizes = Histogram::new([1e3, 1e6]);
    sizes.observe(2_000.0);
    registry.register_with_unit("uploads", "Uploads", Unit::Bytes, sizes);
    registry
}

/// Records runs of two models, with exemplars.
async fn collector(runs: usize) -> Collector {
    let collector = Collector::builder().exemplars(true).build().unwrap();
    let interceptor = collector.label_keys([keys::MODEL]).unwrap();
    let l0 = L0::builder().interceptor(interceptor).build();
    for model in ["gpt-4o", "gpt-4o-mini"].into_iter().cycle().take(runs) {
        let script = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
        let run = l0.stream(script.source()).metadata(keys::MODEL, model);
        run.start().text().await.unwrap();
    }
    collector
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_prometheus_client_and_l0_are_one_valid_scrape() {
    for (registry, runs) in [(registry(), 4), (registry(), 0), (Registry::default(), 4)] {
        let collector = collector(runs).await;
        let router = documented::prometheus_client::make(registry, collector.clone());
        let (address, _server) = served(router).await;
        let response = reqwest::get(format!("http://{address}/metrics")).await;
        let response = response.unwrap();
        assert_eq!(response.headers()["content-type"], OPENMETRICS_CONTENT_TYPE);
        let text = response.text().await.unwrap();
        assert!(text.ends_with(&collector.expose_openmetrics()));
        assert_eq!(text.matches("# EOF\n").count(), 1, "{text}");
        check_strictly("openmetrics", &text);
    }

    let Some(binary) = switched_on("L0_PROMETHEUS") else {
        return;
    };
    let router = documented::prometheus_client::make(registry(), collector(4).await);
    let (address, _server) = served(router).await;
    let prometheus = Prometheus::start(&binary, &[address], &[]).await;
    wait_for("both are scraped", async || {
        let sum = |name| prometheus.query(name, None);
        let theirs = sum("sum(app_logins_total)").await;
        let ours = sum("sum(l0_requests_total)").await;
        let values: Vec<_> = theirs.0.values().chain(ours.0.values()).copied().collect();
        (values == [3.0, 4.0]).then_some(())
    })
    .await;
}
