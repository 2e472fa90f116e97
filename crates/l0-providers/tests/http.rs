//! OpenAI's client, and the behavior shared by all clients, against a small server on the loopback interface.
#![cfg(feature = "reqwest")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::error::Error as _;
use std::time::Duration;

use common::server::{answer, server, streamed};
use common::*;
use futures_util::StreamExt;
use l0_core::{Failure, FailureKind, FinishReason, NetworkErrorKind};
use l0_providers::openai::{ChatRequest, Client, from_response};
use l0_providers::{ApiError, ProviderError, ProviderStream, ProviderToken};
use tokio::net::TcpSocket;

type Error = ProviderError<reqwest::Error>;

async fn ask(answer: impl Into<Vec<u8>>) -> Result<ProviderStream, Error> {
    let (address, _requests) = server(answer).await;
    let client = Client::new(&address)
        .unwrap()
        .api_key("a-canary-key")
        .unwrap();
    client.chat_stream(&ChatRequest::new("m").user("hi")).await
}

async fn api_error(answer: impl Into<Vec<u8>>) -> ApiError {
    match ask(answer).await {
        Err(ProviderError::Api(error)) => *error,
        other => panic!("no API error: {other:?}"),
    }
}

async fn collect(stream: ProviderStream) -> (Vec<ProviderToken>, Option<Error>) {
    let mut tokens = Vec::new();
    let mut error = None;
    for item in stream.collect::<Vec<_>>().await {
        match item {
            Ok(token) => tokens.push(token),
            Err(e) => error = Some(e),
        }
    }
    (tokens, error)
}

fn hello() -> String {
    sse(&[
        &delta(r#"{"content":"Hel"}"#),
        &choice(r#"{"delta":{"content":"lo"},"finish_reason":"stop"}"#),
        "[DONE]",
    ])
}

#[tokio::test]
async fn a_request_and_its_stream() {
    let (address, mut requests) = server(streamed(&hello())).await;
    let client = Client::new(&address)
        .unwrap()
        .api_key("a-canary-key")
        .unwrap();
    let request = ChatRequest::new("m").system("s").user("hi").set("seed", 7);
    let (tokens, error) = collect(client.chat_stream(&request).await.unwrap()).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(text_of(&tokens), "Hello");
    assert_eq!(tokens[1].finish, Some(FinishReason::Stop));

    let sent = requests.recv().await.unwrap();
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(
        head.starts_with("post /v1/chat/completions http/1.1"),
        "{head}"
    );
    assert!(
        head.contains("authorization: bearer a-canary-key"),
        "{head}"
    );
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains("accept: text/event-stream"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected = serde_json::json!({
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}],
        "seed": 7,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_response_to_a_request_of_your_own() {
    let (address, _requests) = server(streamed(&hello())).await;
    let response = reqwest::get(address).await.unwrap();
    let (tokens, error) = collect(from_response(response).await.unwrap()).await;
    assert!(error.is_none());
    assert_eq!(text_of(&tokens), "Hello");
}

#[tokio::test]
async fn the_stream_future_borrows_nothing() {
    let (address, _requests) = server(streamed(&hello())).await;
    let future = {
        let client = Client::new(&address).unwrap();
        let request = ChatRequest::new("m");
        client.chat_stream(&request)
    };
    let stream = tokio::spawn(future).await.unwrap().unwrap();
    assert_eq!(text_of(&collect(stream).await.0), "Hello");
}

#[tokio::test]
async fn statuses_become_typed_errors() {
    let json = "content-type: application/json";
    for (head, body, kind) in [
        (
            "401 Unauthorized",
            r#"{"error":{"message":"m","type":"invalid_request_error","code":"invalid_api_key"}}"#,
            FailureKind::Fatal,
        ),
        (
            "404 Not Found",
            r#"{"error":{"message":"m","code":"model_not_found"}}"#,
            FailureKind::Fatal,
        ),
        (
            "422 Unprocessable",
            r#"{"detail":[{"loc":["body"],"msg":"m","type":"missing"}]}"#,
            FailureKind::Fatal,
        ),
        (
            "400 Bad Request",
            r#"[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}]"#,
            FailureKind::Fatal,
        ),
        (
            "429 Too Many",
            r#"{"error":{"message":"m","type":"tokens","code":"rate_limit_exceeded"}}"#,
            FailureKind::RateLimited,
        ),
        (
            "429 Too Many",
            r#"{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            FailureKind::Fatal,
        ),
        (
            "429 Too Many",
            r#"{"object":"error","message":"m","type":"x","code":"1300"}"#,
            FailureKind::RateLimited,
        ),
        ("500 Oops", r#"{"error":"m"}"#, FailureKind::Server),
        (
            "503 Busy",
            r#"{"message":"m","request_id":"r"}"#,
            FailureKind::Server,
        ),
    ] {
        let error = api_error(answer(&format!("{head}\r\n{json}"), body)).await;
        let status: u16 = head[..3].parse().unwrap();
        assert_eq!(error.status(), Some(status), "{body}");
        assert_eq!(error.message(), Some("m"), "{body}");
        assert_eq!(error.failure().kind, kind, "{body}");
        assert_eq!(error.failure().status, Some(status), "{body}");
    }
    for (head, body, message) in [
        (
            "502 Bad\r\ncontent-type: text/html",
            "<html>canary</html>",
            None,
        ),
        (
            "502 Bad\r\ncontent-type: text/plain",
            "upstream down\n",
            Some("upstream down"),
        ),
        ("502 Bad", "", None),
        ("502 Bad\r\ncontent-type: application/json", "{canary", None),
        ("502 Bad\r\ncontent-type: application/json", "{}", None),
        (
            "502 Bad\r\ncontent-type: application/json",
            "\u{0}\u{1}",
            None,
        ),
    ] {
        let error = api_error(answer(head, body)).await;
        assert_eq!(error.message(), message);
        assert_eq!(error.failure(), Failure::status(502));
    }
}

#[tokio::test]
async fn waits_and_request_ids_come_from_the_headers() {
    let head =
        "429 Too Many\r\ncontent-type: application/json\r\nretry-after: 2\r\nx-request-id: r-1";
    let error = api_error(answer(head, r#"{"error":{"message":"m","retry_after":9}}"#)).await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
    assert_eq!(error.failure().retry_after, error.retry_after());
    assert_eq!(error.request_id(), Some("r-1"));
    let head = "503 Busy\r\nretry-after-ms: 250\r\nretry-after: 2";
    let error = api_error(answer(head, "")).await;
    assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
    let head = "503 Busy\r\ndate: Wed, 21 Oct 2015 07:28:00 GMT\r\nretry-after: Wed, 21 Oct 2015 07:28:03 GMT";
    let error = api_error(answer(head, "")).await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
}

/// All texts of an error, including those that only its fields have.
fn texts(error: &Error) -> String {
    let mut texts = format!("{error} {error:?}");
    match error {
        ProviderError::Api(error) => {
            let fields = [error.error_type(), error.code(), error.message()];
            for text in fields.into_iter().chain([error.request_id()]).flatten() {
                texts += text;
            }
        }
        ProviderError::NotAnAnswer(error) => texts += &error.content_type,
        _ => {}
    }
    texts
}

#[tokio::test]
async fn secrets_that_a_server_repeats_are_in_no_error() {
    const ERROR: &str = r#"{"error":{"message":"wrong SECRET!","type":"SECRET","code":"SECRET"},"request_id":"SECRET"}"#;
    let json = "content-type: application/json";
    let stream = "200 OK\r\ncontent-type: text/event-stream".to_owned();
    let answers = [
        (format!("401 No\r\n{json}"), ERROR.to_owned()),
        (
            format!("401 No\r\nx-request-id: SECRET\r\n{json}"),
            ERROR.to_owned(),
        ),
        (
            "500 No\r\ncontent-type: text/plain".to_owned(),
            "wrong SECRET!".to_owned(),
        ),
        (format!("200 OK\r\n{json}"), ERROR.to_owned()),
        (
            "200 OK\r\ncontent-type: application/SECRET+json".to_owned(),
            "{}".to_owned(),
        ),
        (
            stream.clone(),
            sse(&[&delta(r#"{"content":"Hel"}"#), ERROR]),
        ),
        (stream.clone(), format!("event: error\ndata: {ERROR}\n\n")),
        (
            stream.clone(),
            "event: error\ndata: wrong SECRET!\n\n".to_owned(),
        ),
        (
            stream,
            sse(&[r#"{"message":"wrong SECRET!","code":"SECRET"}"#]),
        ),
    ];
    let base64 = "YS1jYW5hcnkta2V5";
    let forms = ["a-canary-key", "A-CANARY-KEY", "a%2Dcanary%2dkey", base64];
    let others = [
        "t-canary-tenant",
        "u-canary-user",
        "p-canary-pass",
        "q-canary-query",
    ];
    for (head, body) in answers {
        for secret in forms.into_iter().chain(others) {
            let head = head.replace("SECRET", secret);
            let answer = answer(&head, &body.replace("SECRET", secret));
            let (address, _requests) = server(&*answer).await;
            let with_user = "http://u-canary-user:p-canary-pass@";
            let address = address.replace("http://", with_user) + "?key=q-canary-query";
            let client = Client::new(&address).unwrap();
            let client = client.header("tenant-secret", "t-canary-tenant").unwrap();
            let client = client.api_key("a-canary-key").unwrap();
            let stream = client.chat_stream(&ChatRequest::new("m").user("hi")).await;
            let error = match stream {
                Err(error) => error,
                Ok(stream) => collect(stream).await.1.unwrap(),
            };
            let texts = texts(&error);
            assert!(
                !texts.to_lowercase().contains("canary"),
                "{answer}: {texts}"
            );
            assert!(!texts.contains(base64), "{answer}: {texts}");
            // A value that is not a content type is not kept.
            let is_taken_out = texts.contains("[redacted]") || texts.ends_with("unknown");
            assert!(is_taken_out, "{answer}: {texts}");
            let has_words = answer.contains("wrong");
            assert_eq!(
                texts.contains("wrong [redacted]"),
                has_words,
                "{answer}: {texts}"
            );
        }
    }
}

#[tokio::test]
async fn the_names_in_a_token_contain_no_secret() {
    let chunk = r#"{"id":"r-a-canary-key","model":"m-a-canary-key","choices":[{"delta":{"content":"a-canary-key"}}]}"#;
    let stream = ask(streamed(&sse(&[chunk]))).await.unwrap();
    let (tokens, _) = collect(stream).await;
    assert_eq!(tokens[0].model.as_deref(), Some("m-[redacted]"));
    assert_eq!(tokens[0].response_id.as_deref(), Some("r-[redacted]"));
    assert_eq!(tokens[0].text, "a-canary-key", "the answer is unchanged");
}

#[tokio::test]
async fn the_value_of_a_header_that_is_not_a_credential_is_kept_in_names_and_errors() {
    let chunk =
        r#"{"id":"r","model":"openai/gpt-4o-a-canary-key","choices":[{"delta":{"content":"hi"}}]}"#;
    let refused = r#"{"error":{"message":"openai refused a-canary-key"}}"#;
    for (answer, is_stream) in [
        (streamed(&sse(&[chunk])), true),
        (
            answer("400 No\r\ncontent-type: application/json", refused),
            false,
        ),
    ] {
        let (address, _requests) = server(answer).await;
        let client = Client::new(&address).unwrap();
        let client = client.header("x-portkey-provider", "openai").unwrap();
        let client = client.header("x-portkey-api-key", "a-canary-key").unwrap();
        let shown = format!("{client:?}");
        assert!(
            shown.contains("x-portkey-provider") && !shown.contains("openai\""),
            "{shown}"
        );
        let stream = client.chat_stream(&ChatRequest::new("m").user("hi")).await;
        assert_eq!(stream.is_ok(), is_stream);
        match stream {
            Ok(stream) => {
                let (tokens, _) = collect(stream).await;
                assert_eq!(tokens[0].model.as_deref(), Some("openai/gpt-4o-[redacted]"));
            }
            Err(error) => {
                let shown = format!("{error:#}");
                assert!(shown.contains("openai refused [redacted]"), "{shown}");
            }
        }
    }
}

#[test]
fn a_request_does_not_print_its_prompt() {
    let request = ChatRequest::new("m").system("canary").user("canary");
    let request = request.set("user", "canary");
    let shown = format!("{request:?}");
    assert!(!shown.contains("canary"), "{shown}");
    assert!(
        shown.contains(r#"model: "m", messages: 2, parameters: ["user"]"#),
        "{shown}"
    );
}

#[tokio::test]
async fn a_prompt_that_a_provider_repeats_is_not_displayed() {
    let body = r#"{"error":{"message":"cannot answer: my secret prompt","type":"my secret prompt","code":"my secret prompt"}}"#;
    let error = ask(answer("500 No\r\ncontent-type: application/json", body))
        .await
        .unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("secret prompt"), "{shown}");
    let ProviderError::Api(error) = error else {
        panic!("{error:?}")
    };
    assert_eq!(error.message(), Some("cannot answer: my secret prompt"));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_so_takes_no_key_or_prompt_elsewhere() {
    let (elsewhere, mut requests) = server(streamed(&hello())).await;
    let head = format!("307 Temporary Redirect\r\nlocation: {elsewhere}");
    let (address, _requests) = server(answer(&head, "")).await;
    let client = Client::new(&address)
        .unwrap()
        .header("api-key", "a-canary-key")
        .unwrap();
    let error = client
        .chat_stream(&ChatRequest::new("m").user("hi"))
        .await
        .unwrap_err();
    let ProviderError::Api(error) = error else {
        panic!("{error:?}")
    };
    assert_eq!(error.failure(), Failure::status(307));
    assert!(
        requests.try_recv().is_err(),
        "nothing reached the other server"
    );
}

#[tokio::test]
async fn only_the_start_of_a_large_error_body_is_read() {
    // A body that never ends, in chunks.
    let head =
        "HTTP/1.1 500 Oops\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let error = api_error(format!("{head}{}", chunk.repeat(200))).await;
    assert_eq!(error.failure(), Failure::status(500));
    assert_eq!(error.message(), None);
    // A body that breaks off does not hide the status.
    let error = api_error("HTTP/1.1 500 Oops\r\ncontent-length: 100\r\n\r\n{").await;
    assert_eq!(error.status(), Some(500));
}

#[tokio::test]
async fn a_successful_response_that_is_not_an_answer() {
    let json = "200 OK\r\ncontent-type: application/json; charset=utf-8";
    let error = api_error(answer(json, r#"{"error":{"message":"m","code":429}}"#)).await;
    assert_eq!(error.failure(), Failure::status(429));
    let error = api_error(answer(json, r#"{"object":"error","message":"m"}"#)).await;
    assert_eq!(error.message(), Some("m"));
    for (head, body) in [
        (
            json,
            r#"{"model":"canary","message":{"content":"canary"},"done":true}"#,
        ),
        (json, ""),
        ("200 OK\r\ncontent-type: Text/HTML", "<html>canary</html>"),
    ] {
        let error = ask(answer(head, body)).await.unwrap_err();
        let ProviderError::NotAnAnswer(not) = &error else {
            panic!("{error:?}");
        };
        assert!(json.contains(&not.content_type) || not.content_type == "text/html");
        assert!(!format!("{error} {error:?}").contains("canary"));
        assert_eq!(
            error.failure(),
            Failure::fatal().detail("the response is not an answer of the API")
        );
    }
    // A response with a missing or another content type can be a stream.
    let stream = ask(answer("200 OK", &hello())).await.unwrap();
    assert_eq!(text_of(&collect(stream).await.0), "Hello");
}

#[tokio::test]
async fn a_connection_dropped_in_mid_stream_is_the_transports_error() {
    let first = sse(&[&delta(r#"{"content":"Hel"}"#)]);
    let chunked =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let body = format!("{chunked}{:x}\r\n{first}\r\n", first.len());
    let sized =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n";
    for answer in [body, format!("{sized}{first}")] {
        let (tokens, error) = collect(ask(answer).await.unwrap()).await;
        assert_eq!(text_of(&tokens), "Hel");
        let error = error.unwrap();
        assert!(matches!(error, ProviderError::Transport(_)), "{error:?}");
        let cut = Failure::network(NetworkErrorKind::PartialChunks);
        assert_eq!(error.failure(), cut);
        // The chain that core reads.
        let mut chain = error.to_string();
        let mut kind = None;
        let mut source = error.source();
        while let Some(error) = source {
            chain = format!("{chain} | {error}");
            let io = error.downcast_ref::<std::io::Error>();
            kind = kind.or(io.map(std::io::Error::kind));
            source = error.source();
        }
        assert_eq!(kind, Some(std::io::ErrorKind::UnexpectedEof), "{chain}");
        assert!(!chain.contains("127.0.0.1"), "{chain}");
    }
}

#[tokio::test]
async fn a_body_that_ends_early_but_cleanly_just_ends() {
    let stream = ask(streamed(&sse(&[&delta(r#"{"content":"Hel"}"#)])))
        .await
        .unwrap();
    let (tokens, error) = collect(stream).await;
    assert!(error.is_none());
    assert_eq!(text_of(&tokens), "Hel");
    assert!(tokens.iter().all(|token| token.finish.is_none()));
}

#[tokio::test]
async fn a_refused_connection_does_not_name_the_address() {
    // Bound but not listening, so no other program gets the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let url = format!("http://user:canary@127.0.0.1:{port}/v1?key=canary");
    let client = Client::new(&url).unwrap();
    let error = client
        .chat_stream(&ChatRequest::new("m"))
        .await
        .unwrap_err();
    let ProviderError::Transport(transport) = &error else {
        panic!("{error:?}");
    };
    assert!(transport.is_connect() && transport.url().is_none());
    assert!(
        !format!("{error} {error:?}").contains("canary"),
        "{error:?}"
    );
    let mut source = error.source();
    let mut refused = false;
    while let Some(error) = source {
        let io = error.downcast_ref::<std::io::Error>();
        refused |= io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused);
        source = error.source();
    }
    assert!(refused, "{error:?}");
}

#[tokio::test]
async fn a_request_that_is_not_an_object_is_not_sent() {
    let client = Client::new("http://127.0.0.1:1").unwrap();
    let error = client.chat_stream("canary").await.unwrap_err();
    assert!(matches!(error, ProviderError::Request(_)));
    assert!(!format!("{error} {error:?}").contains("canary"));
    let expected = Failure::fatal().detail("the request is not a JSON object");
    assert_eq!(error.failure(), expected);
}

#[tokio::test]
async fn the_event_limit_reaches_the_stream() {
    let (address, _requests) = server(streamed(&hello())).await;
    let client = Client::new(&address).unwrap().max_event_bytes(10);
    let stream = client.chat_stream(&ChatRequest::new("m")).await.unwrap();
    let (tokens, error) = collect(stream).await;
    assert!(tokens.is_empty());
    assert!(matches!(error, Some(ProviderError::EventTooLarge(_))));
}
