//! Error texts that are not classified: messages of providers about a request that they refuse. They
//! mention time-outs, limits and connections, or quote transport errors.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use l0_core::testing::Script;
use l0_core::{Failure, L0, NetworkErrorKind};

/// An error that consists of a text only.
#[derive(Debug)]
struct Text(String);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Text {}

/// Messages about requests that will be refused again.
const REFUSED: &[&str] = &[
    // Time-outs.
    "invalid value for `timeout`",
    "Invalid value for 'timeout': must be a positive integer",
    "Unrecognized request argument supplied: timeout",
    "timeout: must be between 1 and 600 seconds",
    "timeout must be less than or equal to 600",
    "Request timeout is not a supported parameter for this model",
    "The parameter `read_timeout` timed out of range",
    "`deadline` has elapsed before it was set",
    "deadline: the date lies in the past",
    "Tool definition `set_timeout` is invalid: description is required",
    "Unknown name \"timeoutMs\" at 'generation_config': Cannot find field.",
    "operation timed out is not a valid stop sequence",
    // Truncated text, pages, limits.
    "Input was truncated because truncation is set to `auto`",
    "truncation: expected one of `auto`, `disabled`",
    "The response was truncated; increase max_tokens",
    "the page 3 is hidden",
    "page: must be at least 1",
    "PDF page limit exceeded: 100 pages at most",
    "A maximum of 100 PDF pages may be provided.",
    "max_tokens: 200000 > 8192, which is the maximum allowed number of output tokens",
    "This model's maximum context length is 8192 tokens",
    "limit: must be between 1 and 100",
    "The rate limit field `rpm` must be an integer",
    "rate_limit: unknown field",
    "Requested tokens exceed the limit of this model",
    "unexpected end of file",
    "Invalid JSON in tool arguments: unexpected end of file",
    "Invalid grammar: unexpected EOF",
    "messages.3.content.0.document: incomplete data URL",
    "The image is incomplete or corrupt",
    "partial is not supported for this model",
    // Streams and events.
    "stream: this model does not support streaming",
    "`stream` must be true if `stream_options` is set",
    "Server-Sent Events are not supported by this endpoint",
    "SSE is not available for batch requests",
    "sse: unknown transport, expected one of `http`, `websocket`",
    "invalid event stream",
    "Content-Type must be text/event-stream",
    "The run was aborted by the user",
    "stream aborted: safety settings",
    // TLS, certificates, names, connections.
    "tls: field is deprecated",
    "`ssl_verify` must be a boolean",
    "certificate: must be a PEM-encoded string",
    "The certificate that you uploaded is not valid",
    "self signed is not a valid certificate type",
    "handshake: unknown field",
    "dns: not a valid tool name",
    "Could not resolve host name in `image_url`",
    "the host was not found in the list of allowed domains",
    "Invalid hostname: no such host is allowed",
    "connection: unknown field `connection`",
    "The connection `slack` was closed by its owner",
    "connection_id is required",
    "The MCP server closed the connection",
    "Error retrieving tool list: connection to the MCP server was refused",
    "Failed to fetch the file behind `image_url`",
    "Unable to download content from URL: the server disconnected",
    "network: expected one of `default`, `isolated`",
    "network error is not a valid category",
    "socket hang up is not a valid label",
    "worker `python` was killed: memory limit exceeded",
    "The function `get_process` exited with code 1",
    "background: must be a boolean",
    // Throttling and overload, expressed in words only.
    "Too many requests in this batch: at most 50000",
    "service_tier: `overloaded` is not a valid tier",
    "server_error is not a known enum value",
    "The service is currently unavailable in your country",
    "Internal server errors cannot be simulated",
    // Transport errors, quoted in the middle of a sentence.
    "Connection reset by peer is not a valid value for `stop`",
    "`stop`: \"Connection refused\" is too long",
    "stop: Connection refused, Broken pipe",
    "the text 'Connection refused (os error 111)' was flagged",
    "expected a string, got: Broken pipe (os error 32) in position 3",
    "messages.1: error sending request for url is not allowed here",
    "invalid stop sequence `error decoding response body`",
    "Invalid value: 'connection closed before message completed'. Supported values are: 'stop'.",
    "tool_choice: invalid peer certificate is not the name of a tool",
    "label 'received fatal alert' must not contain spaces",
    "dns error is not a known intent",
    "function `tls handshake eof` not found",
    "class \"operation timed out\": at least 2 examples are needed",
    "{\"error\": {\"message\": \"Connection refused\", \"type\": \"invalid_request_error\"}}",
    "{\"error\":{\"message\":\"stop: Connection refused\",\"param\":\"stop\"}}",
    // Numbers that are not a status.
    "max_tokens must be at most 503",
    "top_k: 429 is greater than 40",
    "page 404 does not exist",
    "got 500 messages, at most 100 are allowed",
    "exit status 1",
];

#[test]
fn a_message_about_a_refused_request_is_fatal() {
    assert!(REFUSED.len() >= 60);
    for message in REFUSED {
        for text in [
            (*message).to_owned(),
            format!("invalid_request_error: {message}"),
            format!("API error: {message} (param: messages)"),
            format!("ApiError: {message}\nrequest id: req_011CQabcdefgh"),
            format!("the call failed\n\nCaused by:\n    {message}"),
            format!("{{\"error\":{{\"message\":{message:?}}}}}"),
        ] {
            let failure = Failure::read(&Text(text.clone()));
            assert_eq!(failure, Failure::fatal(), "{text:?}");
            let inside = io::Error::other(Text(text.clone()));
            assert_eq!(Failure::read(&inside), Failure::fatal(), "{text:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_sent_once() {
    for message in REFUSED {
        let script = Script::new().attempt(|a| a.fail(*message));
        let mut run = L0::default().stream(script.source()).start();
        run.text().await.expect_err("is refused");
        assert_eq!(script.calls(), 1, "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_error_that_arrives_as_text_only_is_retried() {
    let text = "Web stream error for model 'OpenAI::gpt-x'.\nCause: error decoding response body";
    let script = Script::new()
        .attempt(|a| a.token("par").fail(text))
        .attempt(|a| a.token("whole"));
    let mut run = L0::default().stream(script.source()).start();
    assert_eq!(run.text().await.expect("answers"), "whole");
    assert_eq!(script.calls(), 2);
}

#[test]
fn a_failure_is_displayed_for_people() {
    let second = Duration::from_secs(1);
    for (failure, expected) in [
        (
            Failure::network(NetworkErrorKind::Econnrefused),
            "connection refused",
        ),
        (Failure::status(429), "rate limited, status 429"),
        (
            Failure::rate_limited().retry_after(second * 3 / 2),
            "rate limited, retry after 1.5 s",
        ),
        (Failure::status(409), "server error, status 409"),
        (Failure::server(), "server error"),
        (Failure::model(), "faulty answer"),
        (Failure::status(401), "not retryable, status 401"),
        (
            Failure::status(402).detail("no credit left"),
            "not retryable, status 402, no credit left",
        ),
        (
            Failure::fatal().detail("no credit left"),
            "not retryable, no credit left",
        ),
        (Failure::fatal(), "not retryable"),
    ] {
        assert_eq!(failure.to_string(), format!("classified as {expected}"));
    }
    for &kind in NetworkErrorKind::ALL {
        let text = Failure::network(kind).to_string();
        assert!(!text.contains('_') && text == text.to_lowercase(), "{text}");
    }
}
