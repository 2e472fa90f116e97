//! The example server, scraped by a real Prometheus.
//!
//! | variable | enables |
//! |---|---|
//! | `L0_PROMETHEUS` | the tests: the program `prometheus`, with `promtool` next to it or on the path |
//! | `L0_PUSHGATEWAY` | the test of a short-lived job: the program `prometheus-pushgateway` |
//! | `L0_PEERS`, `L0_PEERS_PYTHON` | another check of the exposition: the folder of `strict_exposition.py`, and a Python with `prometheus_client` |
//!
//! The queries are those of the guide, of `docs/grafana` and of `docs/prometheus`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails; what is off is said"
)]

#[path = "../common/mod.rs"]
mod common;
mod counted;
mod documented;
mod documents;
mod exemplars;
mod facade;
mod fallback;
mod guide;
mod one_endpoint;
mod programs;
mod sent;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use common::{
    Labels, Samples, Service, check_strictly, counting_stalls, get, read, switched_on, wait_for,
};
use documents::{check_dashboards, check_rules};
use guide::{Window, assert_close, buckets, check_guide, quantile};
use l0_core::testing::Script;
use l0_core::{L0, keys};
use l0_examples::MODELS;
use l0_examples::chat_app::ChatApp;
use l0_prometheus::{CONTENT_TYPE, Collector};
use programs::{Program, Prometheus, argument, promtool, with_one_spelling};
use sent::{DROPPED, KINDS, Sent};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// All L0 series.
const OURS: &str = "{__name__=~\"l0_.+\"}";

/// Serves a router on a free loopback port until the returned guard is dropped.
async fn served(router: Router) -> (SocketAddr, AbortOnDrop) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    (address, AbortOnDrop(task))
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Checks the exposition with external programs.
async fn check_exposition(prometheus: &OsStr, service: &Service) {
    let url = format!("http://{}/metrics", service.address);
    let text = get(&url).await;
    let check = [OsStr::new("check"), OsStr::new("metrics")];
    assert_eq!(promtool(prometheus, &check, &text), "");

    let http = reqwest::Client::new();
    for accept in [
        "text/plain;version=0.0.4",
        // The same header as Prometheus sends.
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
         q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    ] {
        let request = http.get(&url).header("accept", accept);
        let response = request.send().await.unwrap();
        let content_type = response.headers()["content-type"].to_str().unwrap();
        let format = if content_type.starts_with("application/openmetrics-text") {
            "openmetrics"
        } else {
            assert_eq!(content_type, CONTENT_TYPE);
            "text"
        };
        let body = response.text().await.unwrap();
        check_strictly(format, &body);
    }
}

/// Checks that each run named by a bucket exists.
async fn check_exemplars(prometheus: &Prometheus, service: &Service) {
    let exposed = service.collector.expose_openmetrics();
    let exposed: BTreeSet<_> = exposed
        .lines()
        .filter_map(|line| line.split_once("# {session_id=\"")?.1.split_once('"'))
        .map(|(id, _)| id.to_owned())
        .collect();
    assert!(exposed.len() > 1, "{exposed:?}");
    let parameters = [
        ("query", OURS),
        ("start", "0"),
        ("end", "9999999999"), // in the year 2286
    ];
    let kept = prometheus
        .api("query_exemplars", &parameters)
        .await
        .unwrap();
    let kept = kept.as_array().unwrap().iter();
    let kept = kept.flat_map(|series| series["exemplars"].as_array().unwrap());
    let kept: BTreeSet<_> = kept
        .map(|exemplar| exemplar["labels"]["session_id"].as_str().unwrap())
        .map(str::to_owned)
        .collect();
    let lost: Vec<_> = exposed.difference(&kept).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_has_the_numbers_of_the_sent_chats() {
    let Some(binary) = switched_on("L0_PROMETHEUS") else {
        return;
    };
    // The formats of the scrapes.
    let formats = Arc::new(Mutex::new(BTreeSet::new()));
    let note = |router: Router| {
        let formats = Arc::clone(&formats);
        router.layer(from_fn(move |request: Request, next: Next| {
            let formats = Arc::clone(&formats);
            async move {
                let agent = request.headers().get("user-agent").cloned();
                let response = next.run(request).await;
                if agent.is_some_and(|agent| agent.as_bytes().starts_with(b"Prometheus/")) {
                    let format = response.headers()["content-type"].to_str().unwrap();
                    let (format, _) = format.split_once(';').unwrap();
                    formats.lock().unwrap().insert(format.to_owned());
                }
                response
            }
        }))
    };
    // Exemplars need OpenMetrics.
    let collector = counting_stalls(Collector::builder().exemplars(true));
    let collector = collector.build().unwrap();
    let service = Service::with(|app| ChatApp { collector, ..app }, note).await;
    let impatient = service.impatient().await;
    let targets = [service.address];
    let more = ["--enable-feature=exemplar-storage"];
    let text = Prometheus::start(&binary, &targets, &more).await;
    // With native histograms enabled, Prometheus requests protobuf.
    let more = ["--enable-feature=native-histograms"];
    let protobuf = Prometheus::start(&binary, &targets, &more).await;
    let both = [&text, &protobuf];

    let mut sent = Sent::default();
    sent.round(&service, &impatient).await;
    let before = with_one_spelling(service.metrics().await);
    sent.check(&before);
    let mut starts = Vec::new();
    for prometheus in both {
        prometheus.wait_for(OURS, &before).await;
        starts.push(prometheus.scraped().await);
    }
    sent.round(&service, &impatient).await;
    let after = with_one_spelling(service.metrics().await);
    sent.check(&after);
    check_exposition(&binary, &service).await;

    for (prometheus, start) in both.into_iter().zip(starts) {
        prometheus.wait_for(OURS, &after).await;
        sent.check(&prometheus.samples().await);
        let targets = prometheus.api("targets", &[("state", "active")]).await;
        let target = &targets.unwrap()["activeTargets"][0];
        assert_eq!(target["health"], "up", "{target}");
        assert_eq!(target["lastError"], "", "{target}");
        let window = Window {
            before: before.clone(),
            after: after.clone(),
            start,
            end: prometheus.scraped().await,
        };
        check_guide(prometheus, &window).await;
        // No run is live, so none has an age.
        check_dashboards(prometheus, &window, &["l0_stream_oldest_seconds"]).await;
        check_rules(&binary, prometheus, &window).await;
    }
    check_exemplars(&text, &service).await;
    let formats = formats.lock().unwrap();
    let formats: Vec<_> = formats.iter().map(String::as_str).collect();
    assert_eq!(
        formats,
        [
            "application/openmetrics-text",
            "application/vnd.google.protobuf"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sums_over_three_instances_are_exact() {
    let Some(binary) = switched_on("L0_PROMETHEUS") else {
        return;
    };
    let services = [
        Service::start().await,
        Service::start().await,
        Service::start().await,
    ];
    let targets: Vec<_> = services.iter().map(|service| service.address).collect();
    let prometheus = Prometheus::start(&binary, &targets, &[]).await;

    let mut sent = Sent::default();
    for (index, service) in services.iter().enumerate() {
        // A different number for each instance.
        sent.one(service, &KINDS[index], MODELS[0]).await;
        sent.one(service, &DROPPED, MODELS[1]).await;
        sent.plain(service, index + 1).await;
    }
    let mut exposed = Samples::default();
    for service in &services {
        exposed.add(&service.at_rest().await);
    }
    sent.check(&exposed);

    // Gauges of the last run cannot be summed.
    exposed
        .0
        .retain(|labels, _| labels["__name__"] != "l0_tokens_per_second");
    let labels = "__name__, model, endpoint, outcome, result, error_type, severity, rule, currency, \
                  wasted, le";
    let ours = "{__name__=~\"l0_.+\", __name__!=\"l0_tokens_per_second\"}";
    let sums = format!("sum by ({labels}) ({ours})");
    // The last digits of a sum of seconds depend on the order of addition.
    let rounded = |samples: Samples| {
        let samples = samples.0.into_iter();
        let samples = samples.map(|(labels, value)| (labels, (value * 1e9).round() / 1e9));
        with_one_spelling(Samples(samples.collect()))
    };
    let expected = rounded(exposed);
    wait_for("all was scraped", async || {
        let sums = rounded(prometheus.query(&sums, None).await);
        (sums == expected).then_some(())
    })
    .await;
    sent.check(&prometheus.query(&sums, None).await);
    let up = prometheus.value("sum(up)", None).await;
    assert_eq!(up, 3.0);

    let name = "l0_inter_token_seconds_bucket";
    let p90 = format!("histogram_quantile(0.9, sum by (le) ({name}))");
    let p90 = prometheus.value(&p90, None).await;
    assert_close(p90, quantile(0.9, &buckets(&expected, name)), "P90 gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_lived_job_pushes_its_counts() {
    let Some(binary) = switched_on("L0_PUSHGATEWAY") else {
        return;
    };
    let gateway = Program::start(&binary, |_, address| {
        vec![argument("--web.listen-address=", address.to_string())]
    })
    .await;

    // The job: some runs, and a push at the end.
    let collector = Collector::builder().build().unwrap();
    let l0 = L0::builder()
        .interceptor(collector.label_keys([keys::MODEL]).unwrap())
        .build();
    for _ in 0..3 {
        let script = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
        let run = l0.stream(script.source()).metadata(keys::MODEL, "gpt-4o");
        run.start().text().await.unwrap();
    }
    let url = format!("http://{}/metrics/job/nightly", gateway.address);
    let response = reqwest::Client::new()
        .put(url)
        .header("content-type", CONTENT_TYPE)
        .body(collector.expose())
        .send()
        .await
        .unwrap();
    assert!(response.status().is_success(), "{response:?}");

    let pushed = read(&collector.expose());
    let text = get(&format!("http://{}/metrics", gateway.address)).await;
    let ours = text.lines().filter(|line| line.starts_with("l0_"));
    let ours: Vec<_> = ours.collect();
    let ours = read(&ours.join("\n"));
    let nightly = |labels: &Labels| labels["job"] == "nightly";
    assert!(ours.0.keys().all(nightly));
    assert_eq!(ours.without(&["instance", "job"]), pushed);
    assert_eq!(pushed.sum("l0_tokens_total", &[]), 6.0);

    let Some(binary) = switched_on("L0_PROMETHEUS") else {
        return;
    };
    let prometheus = Prometheus::start(&binary, &[gateway.address], &[]).await;
    let query = "{__name__=~\"l0_.+\", job=\"nightly\"}";
    prometheus.wait_for(query, &with_one_spelling(pushed)).await;
}
