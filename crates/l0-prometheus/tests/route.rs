//! The axum route, as a client sees it.
#![cfg(feature = "axum")]

mod support;

use std::io::Read;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode};
use flate2::read::GzDecoder;
use futures_util::FutureExt;
use l0_core::Telemetry;
use l0_prometheus::{CONTENT_TYPE, Collector, Labels, OPENMETRICS_CONTENT_TYPE, metrics_route};
use tower::ServiceExt;

fn collector(models: usize) -> Collector {
    let collector = Collector::builder().build().expect("valid");
    for model in 0..models {
        let labels = Labels::new([("model", model.to_string())]).expect("valid");
        collector.record(&Telemetry::example(), &labels);
    }
    collector
}

async fn ask(app: &Router, method: Method, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::builder().method(method).uri("/metrics");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("valid");
    app.clone().oneshot(request).await.expect("infallible")
}

async fn body(response: Response<Body>) -> Vec<u8> {
    to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("a body")
        .into()
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().expect("text"))
}

#[tokio::test]
async fn a_scrape_gets_the_exposition() {
    for models in [0, 1, 100] {
        let collector = collector(models);
        let app = Router::new().route("/metrics", metrics_route(collector.clone()));
        let response = ask(&app, Method::GET, &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "content-type"), Some(CONTENT_TYPE));
        assert_eq!(header(&response, "vary"), Some("accept, accept-encoding"));
        assert_eq!(header(&response, "content-encoding"), None);
        assert_eq!(body(response).await, collector.expose().into_bytes());
    }
}

#[tokio::test]
async fn it_is_compressed_on_request() {
    for models in [0, 1, 100] {
        let collector = collector(models);
        let app = Router::new().route("/metrics", metrics_route(collector.clone()));
        let response = ask(&app, Method::GET, &[("accept-encoding", "gzip")]).await;
        assert_eq!(header(&response, "content-encoding"), Some("gzip"));
        assert_eq!(header(&response, "content-type"), Some(CONTENT_TYPE));
        let compressed = body(response).await;
        let mut text = String::new();
        GzDecoder::new(&*compressed)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, collector.expose());
        assert!(models < 100 || compressed.len() * 10 < text.len());
    }
}

#[tokio::test]
async fn clients_that_prefer_open_metrics_get_exemplars() {
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    for exemplars in [false, true] {
        let collector = Collector::builder().exemplars(exemplars).build().unwrap();
        collector.record(&Telemetry::example(), &Labels::none());
        let app = Router::new().route("/metrics", metrics_route(collector.clone()));
        let response = ask(&app, Method::GET, &[("accept", accept)]).await;
        let content_type = if exemplars {
            OPENMETRICS_CONTENT_TYPE
        } else {
            CONTENT_TYPE
        };
        assert_eq!(header(&response, "content-type"), Some(content_type));
        let text = String::from_utf8(body(response).await).unwrap();
        assert_eq!(text.contains(&Telemetry::example().session_id), exemplars);
        let response = ask(&app, Method::GET, &[]).await;
        assert_eq!(body(response).await, collector.expose().into_bytes());
    }
}

#[tokio::test]
async fn a_head_request_gets_the_headers() {
    let app = Router::new().route("/metrics", metrics_route(collector(1)));
    let get = ask(&app, Method::GET, &[]).await;
    let head = ask(&app, Method::HEAD, &[]).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers(), get.headers());
    assert!(header(&head, "content-length").is_some());
    assert!(body(head).await.is_empty());
    let post = ask(&app, Method::POST, &[]).await;
    assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_router_can_have_any_state() {
    #[derive(Clone)]
    struct State(#[allow(dead_code, reason = "it only has to exist")] u8);

    let app: Router<State> = Router::new().route("/metrics", metrics_route(collector(1)));
    let response = ask(&app.with_state(State(1)), Method::GET, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
}

/// Blocks the only blocking thread until the result is dropped.
fn hold_up_blocking_work() -> impl Sized {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || wait.recv());
    release
}

fn with_one_blocking_thread(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).build().expect("a runtime");
    runtime.block_on(test);
}

/// A collector whose every exposition differs, because a live run gets older.
fn collector_with_a_live_run() -> (Collector, impl Sized) {
    let collector = collector(100);
    let l0 = l0_core::L0::builder()
        .interceptor(collector.interceptor())
        .build();
    let script = l0_core::testing::Script::new().attempt(|a| a.hang());
    let run = l0.stream(script.source()).start();
    (collector, (run, script))
}

#[test]
fn concurrent_scrapes_share_one_result() {
    with_one_blocking_thread(async {
        let (collector, _run) = collector_with_a_live_run();
        let app = Router::new().route("/metrics", metrics_route(collector));
        let held_up = hold_up_blocking_work();
        let scrapes = (0..32).map(|number| {
            let gzip = if number % 4 == 3 { "gzip" } else { "identity" };
            let app = app.clone();
            async move {
                let response = ask(&app, Method::GET, &[("accept-encoding", gzip)]).await;
                assert_eq!(response.status(), StatusCode::OK);
                (number % 4 == 3, body(response).await)
            }
        });
        let mut scrapes = Box::pin(futures_util::future::join_all(scrapes));
        assert!((&mut scrapes).now_or_never().is_none());

        // The limit is reached.
        let response = ask(&app, Method::GET, &[]).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);

        drop(held_up);
        let bodies = scrapes.await;
        for form in [false, true] {
            let of_form = bodies.iter().filter(|(gzip, _)| *gzip == form);
            let mut of_form: Vec<_> = of_form.map(|(_, body)| body).collect();
            assert!(of_form.len() > 7);
            of_form.dedup();
            assert_eq!(of_form.len(), 1);
        }
        // A later scrape gets a new result, and permits are free again.
        let response = ask(&app, Method::GET, &[("accept-encoding", "identity")]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_ne!(body(response).await, bodies[0].1);
    });
}

#[test]
fn a_dropped_scrape_does_not_affect_the_others() {
    with_one_blocking_thread(async {
        let (collector, _run) = collector_with_a_live_run();
        let app = Router::new().route("/metrics", metrics_route(collector));
        let held_up = hold_up_blocking_work();
        let mut first = Box::pin(ask(&app, Method::GET, &[]));
        let mut second = Box::pin(ask(&app, Method::GET, &[]));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        drop(held_up);
        assert_eq!(second.await.status(), StatusCode::OK);
        // No permit is left in use.
        for _ in 0..100 {
            let response = ask(&app, Method::GET, &[]).await;
            assert_eq!(response.status(), StatusCode::OK);
        }
    });
}

#[test]
fn dropped_scrapes_leave_no_more_work_than_there_are_permits() {
    with_one_blocking_thread(async {
        let app = Router::new().route("/metrics", metrics_route(collector(100)));
        let held_up = hold_up_blocking_work();
        for _ in 0..32 {
            let scrape = ask(&app, Method::GET, &[]).now_or_never();
            assert!(scrape.is_none());
        }
        let scrape = ask(&app, Method::GET, &[]).now_or_never();
        let status = scrape.map(|response| response.status());
        assert_eq!(status, Some(StatusCode::SERVICE_UNAVAILABLE));

        drop(held_up);
        // Queued behind the abandoned work.
        tokio::task::spawn_blocking(|| {}).await.expect("runs");
        let response = ask(&app, Method::GET, &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
    });
}

/// The route also works outside of a Tokio runtime.
#[test]
fn a_scrape_needs_no_tokio_runtime() {
    let app = Router::new().route("/metrics", metrics_route(collector(100)));
    let response = ask(&app, Method::GET, &[]).now_or_never();
    assert_eq!(
        response.map(|response| response.status()),
        Some(StatusCode::OK)
    );
}

#[cfg(feature = "protobuf")]
#[tokio::test]
async fn protobuf_matches_that_of_the_prometheus_crate() {
    use prometheus::core::Collector as _;
    use prometheus::{Encoder, PROTOBUF_FORMAT, ProtobufEncoder};

    let collector = collector(100);
    let app = Router::new().route("/metrics", metrics_route(collector.clone()));
    let accept = format!("{PROTOBUF_FORMAT};q=0.7,text/plain;version=0.0.4;q=0.3");
    let response = ask(&app, Method::GET, &[("accept", &accept)]).await;
    assert_eq!(header(&response, "content-type"), Some(PROTOBUF_FORMAT));
    let mut expected = Vec::new();
    ProtobufEncoder::new()
        .encode(&collector.collect(), &mut expected)
        .unwrap();
    assert_eq!(body(response).await, expected);
}
