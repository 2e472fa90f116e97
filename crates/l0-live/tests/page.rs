//! The page, its data and its updates, as served over HTTP.

#![cfg(feature = "axum")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use futures_util::StreamExt;
use l0_core::L0;
use l0_core::testing::Script;
use l0_live::{Live, routes};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::advance;
use tower::ServiceExt as _;

async fn get(app: &Router, path: &str, accept: &str) -> Response {
    let request = Request::get(path).header(header::ACCEPT, accept);
    let request = request.body(Body::empty()).unwrap();
    app.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

fn content_type(response: &Response) -> &str {
    response.headers()[header::CONTENT_TYPE].to_str().unwrap()
}

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[tokio::test(start_paused = true)]
async fn one_address_serves_all_formats_under_any_prefix() {
    let app: Router = Router::new()
        .nest_service("/l0", routes(Live::new()))
        .nest("/a", Router::new().nest_service("/b", routes(Live::new())))
        .nest("/c", routes(Live::new()));
    for (path, accept, expected) in [
        ("/l0", BROWSER, "text/html; charset=utf-8"),
        ("/a/b", BROWSER, "text/html; charset=utf-8"),
        ("/c", BROWSER, "text/html; charset=utf-8"),
        ("/l0/", BROWSER, "text/html; charset=utf-8"),
        ("/a/b/?format=json", BROWSER, "application/json"),
        ("/l0/?format=events", BROWSER, "text/event-stream"),
        ("/l0", "*/*", "text/html; charset=utf-8"),
        ("/l0", "application/json", "application/json"),
        ("/l0?format=json", BROWSER, "application/json"),
        (
            "/l0?format=html",
            "application/json",
            "text/html; charset=utf-8",
        ),
        (
            "/l0?format=events",
            "text/event-stream",
            "text/event-stream",
        ),
        ("/l0", "text/event-stream", "text/event-stream"),
    ] {
        let response = get(&app, path, accept).await;
        assert_eq!(response.status(), StatusCode::OK, "{path} {accept}");
        assert_eq!(content_type(&response), expected, "{path} {accept}");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(
            response.headers()[header::X_CONTENT_TYPE_OPTIONS],
            "nosniff"
        );
    }
    for path in ["/l0/other", "/", "/l", "/l0x", "/c/"] {
        let status = get(&app, path, BROWSER).await.status();
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/l0", "/l0/"] {
        let post = Request::post(path).body(Body::empty()).unwrap();
        let status = app.clone().oneshot(post).await.unwrap().status();
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
}

#[tokio::test]
async fn the_page_can_run_only_its_own_script() {
    let app: Router = routes(Live::new());
    let response = get(&app, "/", BROWSER).await;
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap()
        .to_owned();
    let page = text(response).await;
    for (tag, directive) in [("script", "script-src"), ("style", "style-src")] {
        let (_, rest) = page.split_once(&format!("<{tag}>")).unwrap();
        let (inside, rest) = rest.split_once(&format!("</{tag}>")).unwrap();
        assert!(!rest.contains(&format!("<{tag}")), "unexpected {tag}");
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(inside));
        let expected = format!("{directive} 'sha256-{hash}';");
        assert!(
            policy.contains(&expected),
            "the policy must say: {expected}"
        );
    }
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    for word in ["unsafe", "http:", "https:", "*"] {
        assert!(!policy.contains(word), "{policy}");
    }
    // No external resources, no inline handlers, and no function that parses markup.
    let page = page.replace("http://www.w3.org/2000/svg", "");
    for word in [
        "http://",
        "https://",
        "src=",
        " style=",
        "onclick",
        "onload",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "localStorage",
        "import(",
        "fetch(",
    ] {
        assert!(!page.contains(word), "{word}");
    }
}

#[tokio::test(start_paused = true)]
async fn programs_receive_the_snapshot() {
    let live = Live::builder().metadata_keys(["endpoint"]).unwrap().build();
    let l0 = L0::builder().interceptor(live.clone()).build();
    let script = Script::new().attempt(|a| a.token("secret").hang());
    let hostile = "<script>alert(1)</script>\u{202e}\u{0}\r\n\r\ndata: {}";
    let mut run = l0
        .stream(|_| script.connect())
        .metadata("model", "gpt-4")
        .metadata("endpoint", hostile)
        .start();
    run.next().await.unwrap().unwrap();
    let app: Router = routes(live);
    let json = text(get(&app, "/", "application/json").await).await;
    let data: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(data["live"][0]["state"], "held");
    assert_eq!(data["live"][0]["metadata"]["endpoint"], hostile);
    assert_eq!(data["totals"]["live"], 1);
    assert!(!json.contains("secret"));

    for (query, rows) in [
        ("limit=0", 0),
        ("limit=1", 1),
        ("limit=9", 1),
        ("limit=", 1),
    ] {
        let json = text(get(&app, &format!("/?format=json&{query}"), "*/*").await).await;
        let data: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(data["live"].as_array().unwrap().len(), rows, "{query}");
        assert_eq!(data["totals"]["unlisted"], 1 - rows, "{query}");
        assert_eq!(data["totals"]["states"]["held"], 1, "{query}");
    }

    // Each event is one line, for any names.
    let events = get(&app, "/", "text/event-stream").await;
    let mut events = events.into_body().into_data_stream();
    let event = events.next().await.unwrap().unwrap();
    let event = std::str::from_utf8(&event).unwrap();
    let line = event
        .strip_prefix("data: ")
        .unwrap()
        .strip_suffix("\n\n")
        .unwrap();
    assert!(!line.contains(['\n', '\r', '\0']));
    let data: Value = serde_json::from_str(line).unwrap();
    assert_eq!(data["live"][0]["metadata"]["endpoint"], hostile);
}

#[tokio::test(start_paused = true)]
async fn viewers_see_the_same_and_slow_ones_delay_no_other() {
    let live = Live::new();
    let app: Router = routes(live);
    let mut slow = Vec::new();
    let mut refused = 0;
    for _ in 0..200 {
        let response = get(&app, "/?format=events", "*/*").await;
        match response.status() {
            StatusCode::OK => slow.push(response),
            status => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                refused += 1;
            }
        }
    }
    assert_eq!((slow.len(), refused), (128, 72));
    // One of them reads, and is updated twice a second.
    let mut reads = slow.pop().unwrap().into_body().into_data_stream();
    let start = tokio::time::Instant::now();
    let mut last = Bytes::new();
    for _ in 0..5 {
        last = reads.next().await.unwrap().unwrap();
        assert!(last.starts_with(b"data: {"));
    }
    let is_update = |number: u64| {
        let due = Duration::from_millis(number * 500);
        (due..due + Duration::from_millis(10)).contains(&start.elapsed())
    };
    assert!(is_update(4), "{:?}", start.elapsed());
    // A viewer that joins later receives the same bytes, and each update from then on: two updates a second
    // for any number of viewers.
    advance(Duration::from_millis(400)).await;
    let mut other = slow.pop().unwrap().into_body().into_data_stream();
    let first = other.next().await.unwrap().unwrap();
    assert_eq!(first.as_ptr(), last.as_ptr());
    for number in 5..9 {
        let (one, two) = tokio::join!(reads.next(), other.next());
        let (one, two) = (one.unwrap().unwrap(), two.unwrap().unwrap());
        assert_eq!(one.as_ptr(), two.as_ptr());
        assert!(is_update(number), "{number}: {:?}", start.elapsed());
    }
    // Pages and data are still served, and a viewer that leaves makes space.
    assert_eq!(get(&app, "/", BROWSER).await.status(), StatusCode::OK);
    assert_eq!(
        get(&app, "/", "application/json").await.status(),
        StatusCode::OK
    );
    drop((slow, reads));
    assert_eq!(
        get(&app, "/?format=events", "*/*").await.status(),
        StatusCode::OK
    );
}

#[tokio::test(start_paused = true)]
async fn viewers_that_stop_reading_do_not_keep_others_out() {
    let app: Router = routes(Live::new());
    let events = || get(&app, "/?format=events", "*/*");
    let mut stuck = Vec::new();
    for _ in 0..128 {
        let response = events().await;
        assert_eq!(response.status(), StatusCode::OK);
        stuck.push(response);
    }
    assert_eq!(events().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    // After the time in which all streams end.
    advance(Duration::from_secs(5)).await;
    let mut viewers = Vec::new();
    for _ in 0..128 {
        let response = events().await;
        assert_eq!(response.status(), StatusCode::OK);
        viewers.push(response);
    }
    // The end of a stream whose place another viewer has makes no space.
    drop(stuck);
    assert_eq!(events().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    viewers.pop();
    assert_eq!(events().await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn updates_end_with_a_request_to_reconnect_so_a_server_can_stop() {
    let app: Router = routes(Live::new());
    for _ in 0..2 {
        let response = get(&app, "/", "text/event-stream").await;
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let start = tokio::time::Instant::now();
        let events: Vec<_> = response.into_body().into_data_stream().collect().await;
        let (last, updates) = events.split_last().unwrap();
        assert_eq!(last.as_ref().unwrap(), "event: again\ndata: {}\n\n");
        assert!(updates.len() >= 10, "{}", updates.len());
        for update in updates {
            assert!(update.as_ref().unwrap().starts_with(b"data: {"));
        }
        let passed = start.elapsed();
        assert!(passed <= Duration::from_secs(6), "{passed:?}");
    }
    assert_eq!(
        get(&app, "/", "*/*")
            .await
            .headers()
            .get("x-accel-buffering"),
        None
    );
}
