//! Meaning of a provider's error: whether to retry, and when.
#![cfg(feature = "reqwest")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::server::{APIS, Api, answer, server};
use common::*;
use futures_util::{StreamExt, stream};
use l0_core::FailureKind::{self, Fatal, RateLimited, Server};
use l0_core::{Backoff, L0, Retry};
use l0_providers::{ApiError, ProviderError};
use tokio::time::Instant;

async fn error_of(api: Api, head: &str, body: &str) -> ApiError {
    let (address, _requests) = server(answer(head, body)).await;
    let response = reqwest::get(address).await.unwrap();
    match (api.from_response)(response).await {
        Err(ProviderError::Api(error)) => *error,
        other => panic!("no API error: {other:?}"),
    }
}

/// Status and headers, body; kind, wait in milliseconds, detail.
type Case = (
    &'static str,
    &'static str,
    FailureKind,
    Option<u64>,
    Option<&'static str>,
);

const MILLISECOND: Duration = Duration::from_millis(1);
const NO_CREDIT: Option<&str> = Some("no credit left");

/// Number of requests of a run with at most two attempts, and the delay between them.
async fn calls_and_wait(api: Api, head: &str, body: &str) -> (usize, Duration) {
    let (address, mut requests) = server(answer(head, body)).await;
    let l0 = L0::builder()
        .retry(Retry::new().max_retries(1).backoff(Backoff::none()))
        .build();
    let started = Instant::now();
    let mut run = l0
        .stream(move |_| {
            let address = address.clone();
            async move { (api.from_response)(reqwest::get(address).await.unwrap()).await }
        })
        .start();
    while run.next().await.is_some() {}
    let mut calls = 0;
    while requests.try_recv().is_ok() {
        calls += 1;
    }
    (calls, started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn status_headers_and_body_decide_whether_to_retry() {
    let rate = r#"{"error":{"type":"rate_limit_error","message":"m"}}"#;
    let quota = r#"{"error":{"code":"insufficient_quota","message":"m"}}"#;
    let cases: &[Case] = &[
        // The status alone.
        ("400 x", "", Fatal, None, None),
        ("401 x", "", Fatal, None, None),
        ("402 x", "", Fatal, None, NO_CREDIT),
        ("403 x", "", Fatal, None, None),
        ("404 x", "", Fatal, None, None),
        ("408 x", "", Server, None, None),
        (
            "409 x",
            r#"{"error":{"message":"lock timeout","type":"conflict","code":null}}"#,
            Server,
            None,
            None,
        ),
        ("413 x", "", Fatal, None, None),
        ("422 x", "", Fatal, None, None),
        ("425 x", "", Server, None, None),
        ("429 x", "", RateLimited, None, None),
        ("500 x", "", Server, None, None),
        ("502 x", "<html>bad gateway</html>", Server, None, None),
        ("503 x", "", Server, None, None),
        ("504 x", "", Server, None, None),
        ("529 x", "", Server, None, None),
        // The server's own statement on retries, both ways.
        ("429 x\r\nx-should-retry: false", rate, Fatal, None, None),
        ("500 x\r\nx-should-retry: false", "", Fatal, None, None),
        ("400 x\r\nx-should-retry: true", "", Server, None, None),
        (
            "429 x\r\nx-should-retry: true",
            rate,
            RateLimited,
            None,
            None,
        ),
        ("429 x\r\nx-should-retry: true", quota, Server, None, None),
        (
            "429 x\r\nx-should-retry: maybe",
            "",
            RateLimited,
            None,
            None,
        ),
        // No credit, in several wordings.
        ("429 x", quota, Fatal, None, NO_CREDIT),
        (
            "429 x",
            r#"{"error":{"message":"please recharge","type":"exceeded_current_quota_error"}}"#,
            Fatal,
            None,
            NO_CREDIT,
        ),
        (
            "429 x",
            r#"{"error":{"message":"Your account has insufficient balance"}}"#,
            Fatal,
            None,
            NO_CREDIT,
        ),
        (
            "403 x",
            r#"{"error":{"code":"insufficient_user_quota","message":"m"}}"#,
            Fatal,
            None,
            NO_CREDIT,
        ),
        (
            "400 x",
            r#"{"error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API"}}"#,
            Fatal,
            None,
            NO_CREDIT,
        ),
        (
            "429 x",
            r#"{"code":"Arrearage","message":"m"}"#,
            Fatal,
            None,
            NO_CREDIT,
        ),
        (
            "429 x",
            r#"{"error":{"type":"billing_error","message":"m"}}"#,
            Fatal,
            None,
            NO_CREDIT,
        ),
        // Throttling, in several wordings, including statuses that do not indicate it.
        (
            "400 x",
            r#"{"code":"Throttling.RateQuota","message":"m"}"#,
            RateLimited,
            None,
            None,
        ),
        (
            "400 x",
            r#"{"__type":"com.amazon#ThrottlingException","message":"m"}"#,
            RateLimited,
            None,
            None,
        ),
        (
            "403 x",
            r#"{"error":{"errors":[{"reason":"x"}],"status":"userRateLimitExceeded","code":403,"message":"m"}}"#,
            RateLimited,
            None,
            None,
        ),
        (
            "429 x",
            r#"{"error":{"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota","details":[{"retryDelay":"27s"}]}}"#,
            RateLimited,
            Some(27_000),
            None,
        ),
        (
            "503 x",
            r#"{"error":{"message":"Too many requests, slow down"}}"#,
            RateLimited,
            None,
            None,
        ),
        (
            "400 x",
            r#"{"error":{"type":"invalid_request_error","message":"the text `rate limit` is too long, try again in 5s"}}"#,
            Fatal,
            None,
            None,
        ),
        // Delays, from every place that may have one.
        ("429 x\r\nretry-after: 7", "", RateLimited, Some(7000), None),
        ("503 x\r\nretry-after: 7", "", Server, Some(7000), None),
        (
            "429 x\r\nretry-after-ms: 1500\r\nretry-after: 9",
            "",
            RateLimited,
            Some(1500),
            None,
        ),
        (
            "429 x\r\ndate: Wed, 21 Oct 2015 07:28:00 GMT\r\nretry-after: Wed, 21 Oct 2015 07:28:05 GMT",
            "",
            RateLimited,
            Some(5000),
            None,
        ),
        (
            "429 x\r\nx-ratelimit-reset-requests: 1m30s\r\nx-ratelimit-reset-tokens: 20ms",
            "",
            RateLimited,
            Some(90_000),
            None,
        ),
        (
            "429 x\r\nx-ratelimit-remaining-requests: 5\r\nx-ratelimit-reset-requests: 1m30s\r\nx-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 20ms",
            "",
            RateLimited,
            Some(20),
            None,
        ),
        (
            "500 x\r\nx-ratelimit-reset-requests: 1m30s",
            "",
            Server,
            None,
            None,
        ),
        (
            "429 x\r\nretry-after: 3\r\nx-ratelimit-reset-requests: 1m30s",
            "",
            RateLimited,
            Some(3000),
            None,
        ),
        (
            "429 x",
            r#"{"error":{"message":"Limit reached. Please try again in 6.379s. See the docs."}}"#,
            RateLimited,
            Some(6379),
            None,
        ),
        (
            "429 x\r\nretry-after: 2",
            r#"{"error":{"message":"Please try again in 6.379s."}}"#,
            RateLimited,
            Some(2000),
            None,
        ),
        (
            "429 x",
            r#"{"error":{"message":"m","retry_after":1.5}}"#,
            RateLimited,
            Some(1500),
            None,
        ),
        (
            "429 x",
            r#"{"message":"m","retry_after_ms":1500}"#,
            RateLimited,
            Some(1500),
            None,
        ),
        (
            "429 x",
            r#"{"error":{"type":"usage_limit_reached","message":"m","resets_in_seconds":90}}"#,
            RateLimited,
            Some(90_000),
            None,
        ),
        (
            "429 x",
            r#"{"error":{"message":"m","metadata":{"headers":{"Retry-After":"4"}}}}"#,
            RateLimited,
            Some(4000),
            None,
        ),
        // Other shapes of bodies.
        (
            "429 x\r\ncontent-type: text/event-stream",
            "event: error\ndata: {\"error\":{\"code\":\"insufficient_quota\",\"message\":\"m\"}}\n\n",
            Fatal,
            None,
            NO_CREDIT,
        ),
        (
            "400 x",
            ": c\ndata: {\"code\":\"Throttling\",\"message\":\"m\"}\n\ndata: [DONE]\n\n",
            RateLimited,
            None,
            None,
        ),
        (
            "400 x",
            r#"{"errors":[{"message":"m","code":"rate_limit"}]}"#,
            RateLimited,
            None,
            None,
        ),
        (
            "400 x",
            r#"{"errorCode":"TooManyRequests","errorMessage":"m"}"#,
            RateLimited,
            None,
            None,
        ),
    ];
    for (head, body, kind, wait, detail) in cases {
        for api in APIS {
            let error = error_of(api, head, body).await;
            let name = format!("{}: {head:?} {body}", api.dialect.name);
            let failure = error.failure();
            assert_eq!(failure.kind, *kind, "{name}");
            assert_eq!(
                failure.retry_after,
                wait.map(Duration::from_millis),
                "{name}"
            );
            assert_eq!(error.retry_after(), failure.retry_after);
            assert_eq!(failure.detail, *detail, "{name}");
            assert_eq!(failure.status, head[..3].parse().ok());
            // Delays vary by a tenth or 50 ms. Delays of more than a minute are not awaited.
            let wait = wait.map_or(Duration::ZERO, Duration::from_millis);
            let is_retried = *kind != Fatal && wait <= Duration::from_secs(60);
            let (calls, waited) = calls_and_wait(api, head, body).await;
            assert_eq!(calls, 1 + usize::from(is_retried), "{name}");
            let wait = if is_retried { wait } else { Duration::ZERO };
            assert!(waited >= wait, "{name}: {waited:?}");
            let most = wait + (wait / 10).max(MILLISECOND * 50) + MILLISECOND;
            assert!(waited <= most, "{name}: {waited:?}");
        }
    }
}

#[tokio::test]
async fn times_are_read_as_waits() {
    let until = SystemTime::now() + Duration::from_secs(500);
    let millis = until.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let seconds = millis / 1000;
    let metadata = format!(
        r#"{{"error":{{"message":"m","code":429,"metadata":{{"headers":{{"X-RateLimit-Reset":"{millis}"}}}}}}}}"#
    );
    let resets = format!(r#"{{"error":{{"message":"m","resets_at":{seconds}}}}}"#);
    let header = format!("429 x\r\nx-ratelimit-reset: {seconds}");
    for (head, body) in [("429 x", &metadata[..]), ("429 x", &resets), (&header, "")] {
        for api in APIS {
            let wait = error_of(api, head, body).await.retry_after().unwrap();
            assert!(
                (400..=500).contains(&wait.as_secs()),
                "{head} {body} {wait:?}"
            );
        }
    }
    // Far in the past: immediately.
    let head = "429 x\r\nanthropic-ratelimit-requests-reset: 2020-01-01T00:00:00Z";
    let error = error_of(APIS[2], head, "").await;
    assert_eq!(error.retry_after(), Some(Duration::ZERO));
}

#[test]
fn an_error_in_the_stream_ends_it_on_an_open_connection() {
    use futures_util::FutureExt;
    for (body, kind) in [
        (
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"server_error\",\"message\":\"m\"}}\n\n",
            Server,
        ),
        (
            "id:1\nevent:error\n:HTTP_STATUS/429\ndata:{\"request_id\":\"r\",\"code\":\"Throttling.AllocationQuota\",\"message\":\"m\"}\n\n",
            RateLimited,
        ),
        (
            "data: {\"code\":\"Throttling\",\"message\":\"m\",\"request_id\":\"r\"}\n\n",
            RateLimited,
        ),
        (
            "data: {\"base_resp\":{\"status_code\":1002,\"status_msg\":\"rate limit\"}}\n\n",
            RateLimited,
        ),
        (
            "data: {\"error\":{\"message\":\"Request rate increased too quickly\"}}\n\n",
            RateLimited,
        ),
        (
            "data: {\"error\":{\"message\":\"insufficient balance\"}}\n\n",
            Fatal,
        ),
    ] {
        for dialect in DIALECTS {
            let sent = stream::iter([Ok(body.as_bytes().to_vec())]);
            let open = sent.chain(stream::pending()).boxed();
            let mut decoder = (dialect.decoder)(open);
            let Some(Some(Err(ProviderError::Api(error)))) = decoder.next().now_or_never() else {
                panic!("{}: {body}", dialect.name);
            };
            assert_eq!(error.failure().kind, kind, "{}: {body}", dialect.name);
            assert!(decoder.next().now_or_never().unwrap().is_none());
        }
    }
}

#[test]
fn a_success_code_is_not_an_error() {
    for dialect in DIALECTS {
        for payload in [
            r#"{"base_resp":{"status_code":0,"status_msg":"success"}}"#,
            r#"{"code":200,"message":"ok"}"#,
            r#"{"code":"Success","message":"done"}"#,
            r#"{"code":"a","message":""}"#,
        ] {
            let (_, error) = dialect.decode(sse(&[payload]));
            assert!(error.is_none(), "{}: {payload}", dialect.name);
        }
    }
}
