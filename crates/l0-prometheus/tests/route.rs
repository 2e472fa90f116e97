//! The route for axum, as a client meets it.
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
async fn it_is_compressed_when_asked_for() {
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
async fn exemplars_are_for_those_who_take_open_metrics() {
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
async fn a_head_gets_the_head() {
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
async fn a_router_may_have_any_state() {
    #[derive(Clone)]
    struct State(#[allow(dead_code, reason = "it only has to be there")] u8);

    let app: Router<State> = Router::new().route("/metrics", metrics_route(collector(1)));
    let response = ask(&app.with_state(State(1)), Method::GET, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
}

/// The one thread for blocking work is busy until this is dropped.
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

/// A collector whose every exposition differs: a live run gets older.
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
fn scrapes_at_the_same_time_share_what_is_written() {
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

        // There is no room for one more.
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
        // What comes later is new, and there is room again.
        let response = ask(&app, Method::GET, &[("accept-encoding", "identity")]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_ne!(body(response).await, bodies[0].1);
    });
}

#[test]
fn a_scrape_that_goes_away_leaves_the_others_theirs() {
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
        // Nobody is left in the places for those who wait.
        for _ in 0..100 {
            let response = ask(&app, Method::GET, &[]).await;
            assert_eq!(response.status(), StatusCode::OK);
        }
    });
}

#[test]
fn scrapes_that_go_away_leave_no_more_to_be_written_than_there_are_places() {
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
        // Behind what is written for nobody.
        tokio::task::spawn_blocking(|| {}).await.expect("runs");
        let response = ask(&app, Method::GET, &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
    });
}

/// Without a Tokio runtime too.
#[test]
fn a_scrape_needs_no_runtime() {
    let app = Router::new().route("/metrics", metrics_route(collector(100)));
    let response = ask(&app, Method::GET, &[]).now_or_never();
    assert_eq!(
        response.map(|response| response.status()),
        Some(StatusCode::OK)
    );
}

#[cfg(feature = "protobuf")]
#[tokio::test]
async fn protobuf_is_what_the_prometheus_crate_writes() {
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
