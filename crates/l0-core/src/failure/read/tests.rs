use std::sync::Arc;
use std::time::Duration;

use super::super::test_error::{say, say_over};
use super::super::text::MAX_TEXT;
use super::*;

fn assert_reads(expected: Failure, texts: &[&str]) {
    for text in texts {
        assert_eq!(read(&say(text)), expected, "{text:?}");
    }
}

#[test]
fn the_patterns_compile() {
    prepare();
    assert!(!STATUS.is_match("nothing"));
}

#[test]
fn a_row_matches_only_a_whole_segment() {
    for text in [
        "Connection refused",
        "Connection refused (os error 111)",
        "Connection refused: 127.0.0.1",
        "Connection refused (os error 111): 127.0.0.1",
        "Connection refused\nat line 3",
        "Connection refused\r\n",
        "the call failed: Connection refused",
        "the call failed:   Connection refused ",
        "the call failed\n    Connection refused (os error 111)\n",
        "Caused by:\n    0: Connection refused",
        "Connection refused for url (http://a.example/b(c))",
        "Connection refused for url (http://a.example/b): c",
    ] {
        let refused = Failure::network(NetworkErrorKind::Econnrefused);
        assert_eq!(read(&say(text)), refused, "{text:?}");
    }
    assert_reads(
        Failure::fatal(),
        &[
            "Connection refused.",
            "Connection refused, sorry",
            "Connection refused is not a valid value",
            "Connection refused by 127.0.0.1",
            "Connection refused (by 127.0.0.1)",
            "Connection refused (os error)",
            "Connection refused (os error 111) and more",
            "Connection refused for url",
            "Connection refused for url (http://a.example/ b)",
            "the Connection refused",
            "the call failed. Connection refused",
            "the call failed:Connection refused",
            "the call failed - Connection refused",
            "`Connection refused`",
            "\"Connection refused\"",
            "stop: \"Connection refused\"",
            "stop: 'Connection refused'",
            "CONNECTION REFUSED",
        ],
    );
}

#[test]
fn a_placeholder_in_a_row_matches_a_word_or_a_number() {
    for (row, text, expected) in [
        ("a * c", "a b c", true),
        ("a * c", "a  c", true),
        ("a * c", "a b b c", false),
        ("a *", "a b", true),
        ("a *", "a é", true),
        ("a *", "a b d", false),
        ("a(*)", "a(b(c))", true),
        ("*a", "aaa", true),
        ("*", "", true),
        ("a # c", "a 12 c", true),
        ("a # c", "a -12 c", true),
        ("a # c", "a - c", false),
        ("a # c", "a x c", false),
        ("a #", "a 1", true),
        ("a #", "a ", false),
        ("#a*", "1abc", true),
    ] {
        assert_eq!(matches(row, text, &str::is_empty), expected, "{row} {text}");
    }
}

#[test]
fn a_text_that_precedes_a_reason_is_classified_only_on_its_own() {
    let cut = Failure::network(NetworkErrorKind::PartialChunks);
    assert_reads(
        cut,
        &[
            "error decoding response body",
            "a: error decoding response body\nb",
        ],
    );
    assert_reads(
        Failure::fatal(),
        &[
            "error decoding response body: missing field `choices` at line 1 column 5",
            "error decoding response body: expected value at line 1 column 1",
            "reqwest::Error { kind: Decode, source: Error(\"missing field `id`\", line: 1, column: 81) }",
            "timeout: connect: expected a number",
            "connection failed: invalid API key",
            "fetch failed: the file has the wrong type",
        ],
    );
}

#[test]
fn the_last_row_decides_because_it_is_the_cause() {
    let refused = Failure::network(NetworkErrorKind::Econnrefused);
    assert_reads(
        refused,
        &[
            "operation timed out: Connection refused",
            "error sending request: invalid peer certificate: Connection refused",
            "operation timed out\nconnection refused\nand so on",
            "Connection refused: it may be asleep: wake it",
        ],
    );
}

#[test]
fn words_of_prose_are_ignored() {
    assert_reads(
        Failure::fatal(),
        &[
            "",
            "something else",
            "connection dropped",
            "Connection closed",
            "the connection was closed unexpectedly",
            "connection lost mid-stream",
            "pipe broken",
            "stream closed unexpectedly",
            "connection_dropped",
            "network request failed",
            "stream was reset by peer",
            "read failed: os error 104",
            "the target machine actively refused: connection was refused",
            "SSE failed",
            "sse_aborted",
            "Server-Sent Events ended early",
            "the stream was aborted",
            "EventStream error",
            "no bytes received",
            "empty response",
            "Content-Length: 0",
            "partial chunk received",
            "incomplete data",
            "the response was truncated",
            "stream ended prematurely",
            "unexpected end of file",
            "worker terminated",
            "edge runtime limit",
            "Lambda timeout",
            "process exited with code 1",
            "background suspend",
            "page hidden",
            "inactive tab",
            "dns_error",
            "DNS lookup failed",
            "SSL/TLS failure",
            "TLS handshake failed",
            "bad cert",
            "timeout",
            "Request timeout.",
            "time out",
            "deadline exceeded",
            "rate limit",
            "Rate limited, try later",
            "rate_limit_exceeded",
            r#"{"error":{"type":"rate_limit_error"}}"#,
            "too many requests: connection closed",
            "RESOURCE_EXHAUSTED",
            "Overloaded",
            r#"{"type":"error","error":{"type":"overloaded_error","message":""}}"#,
            "service temporarily unavailable",
            "Internal Server Error",
            "server_error",
            "Unauthorized",
            "Forbidden: connection was reset",
            "syntax error",
            "undefined is not a function",
            "unknown field `timeout_ms`",
            "text/event-stream expected",
        ],
    );
}

#[test]
fn urls_paths_and_hosts_are_not_read() {
    assert_reads(
        Failure::fatal(),
        &[
            "cannot read https://tls.example.com/",
            "bad answer from https://api.example.com/timeout?reason=ssl#dns",
            "bad answer (https://api.example.com/status/503/connection-closed)",
            "bad answer (https://api.example.com/status:503)",
            "bad answer from http://dns: nonsense",
            "bad answer from tls.example.com:443",
            "no such route: /timeout",
            "no such route: /status 503",
            "panicked at src/net/timeout.rs:12",
            r#"{"url":"https://x.example/timeout","ok":false}"#,
            r#"{"url":"https://tls.example/","error":"timeout"}"#,
            "at https://example.com/?status=503",
            "at https://example.com/?a=b&status=503",
            "at https://example.com/#http=503",
            "at http://503.example.com/",
        ],
    );
}

#[test]
fn an_explicit_status_takes_precedence_over_words() {
    for status in [
        400, 401, 403, 404, 408, 409, 422, 425, 429, 500, 502, 503, 504, 529,
    ] {
        for text in [
            format!("status {status}"),
            format!("Status: {status}, connection reset"),
            format!("request failed with status code {status}"),
            format!("STATUS CODE: {status}: forbidden, timeout, rate limit"),
            format!("status{status}"),
            format!("statusCode={status}"),
            format!("StatusCode({status})"),
            format!("http_status: {status}"),
            format!("HTTP {status}"),
            format!("HTTP/1.1 {status} Whatever"),
            format!("Error code: {status} - x"),
            format!("{{\"status\":{status},\"x\":1}}"),
            format!("{{\"status\": \"{status}\"}}"),
            format!("{{\\\"status_code\\\": {status}}}"),
            format!("('status': {status})"),
            format!("https://a.example/: status code {status}"),
            format!("HTTP status server error ({status} X) for url (https://a.example/)"),
            format!("first status 200, then status {status}"),
        ] {
            assert_eq!(read(&say(&text)), Failure::status(status), "{text:?}");
        }
    }
}

#[test]
fn a_number_that_is_not_an_error_status_is_ignored() {
    assert_reads(
        Failure::fatal(),
        &[
            "status 200",
            "status: 302",
            "status 399",
            "status 600",
            "status 4040",
            "status 50",
            "503 tokens",
            "a statue 503",
            "exit status: 101",
        ],
    );
    assert_reads(
        Failure::network(NetworkErrorKind::Timeout),
        &["status 200: operation timed out"],
    );
}

#[test]
fn a_status_with_its_standard_name_is_read_as_a_segment() {
    for text in [
        "503 Service Unavailable",
        "the call failed: 503 Service Unavailable",
        "the call failed\n503 Service Unavailable\n<html>",
        "503 Service Unavailable for url (https://a.example/)",
        "503 Service Unavailable: Connection refused",
        "operation timed out: 503 Service Unavailable: Connection refused",
    ] {
        assert_eq!(read(&say(text)), Failure::status(503), "{text:?}");
    }
    assert_reads(
        Failure::fatal(),
        &[
            "200 OK",
            "503 Not Found",
            "Service Unavailable",
            "a 503 Service Unavailable",
            "503 Service Unavailable is not a valid value",
            "503 Service Unavailable, or so",
            "+503 Service Unavailable ",
        ],
    );
}

#[test]
fn an_io_error_is_classified_by_its_kind() {
    use NetworkErrorKind::*;
    use io::ErrorKind;
    for (kind, expected) in [
        (ErrorKind::ConnectionReset, Econnreset),
        (ErrorKind::ConnectionRefused, Econnrefused),
        (ErrorKind::BrokenPipe, ConnectionDropped),
        (ErrorKind::ConnectionAborted, ConnectionDropped),
        (ErrorKind::NotConnected, ConnectionDropped),
        (ErrorKind::UnexpectedEof, PartialChunks),
        (ErrorKind::TimedOut, Timeout),
        (ErrorKind::HostUnreachable, FetchError),
        (ErrorKind::NetworkUnreachable, FetchError),
        (ErrorKind::NetworkDown, FetchError),
        (ErrorKind::AddrNotAvailable, FetchError),
    ] {
        let expected = Failure::network(expected);
        assert_eq!(read(&io::Error::from(kind)), expected);
        assert_eq!(read(&io::Error::new(kind, "forbidden")), expected);
        assert_eq!(
            read(&say_over("status 401", io::Error::from(kind))),
            expected
        );
        assert_eq!(
            read(&io::Error::other(io::Error::other(io::Error::from(kind)))),
            expected
        );
        assert_eq!(
            read(&say_over("shared", Arc::new(io::Error::from(kind)))),
            expected
        );
    }
}

#[test]
fn an_io_error_of_another_kind_is_classified_by_its_text() {
    for kind in [
        io::ErrorKind::Other,
        io::ErrorKind::InvalidData,
        io::ErrorKind::Interrupted,
    ] {
        let error = io::Error::new(kind, "invalid peer certificate");
        assert_eq!(read(&error), Failure::network(NetworkErrorKind::SslError));
    }
    let wrapped = io::Error::other(say_over("outer", say("operation timed out")));
    assert_eq!(read(&wrapped), Failure::network(NetworkErrorKind::Timeout));
}

#[tokio::test(start_paused = true)]
async fn an_elapsed_tokio_timeout_is_a_timeout() {
    let elapsed = || async {
        tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>())
            .await
            .unwrap_err()
    };
    let timeout = Failure::network(NetworkErrorKind::Timeout);
    assert_eq!(read(&elapsed().await), timeout);
    assert_eq!(read(&say_over("forbidden", elapsed().await)), timeout);
    assert_eq!(read(&io::Error::other(elapsed().await)), timeout);
}

#[test]
fn a_failure_in_the_chain_takes_precedence_over_types_and_texts() {
    let failure = Failure::status(429).retry_after(Duration::from_secs(3));
    assert_eq!(read(&failure), failure);
    assert_eq!(read(&say_over("connection reset", failure)), failure);
    assert_eq!(
        read(&io::Error::new(io::ErrorKind::TimedOut, failure)),
        failure
    );
    let deep = say_over("a", io::Error::other(say_over("b", failure)));
    assert_eq!(read(&deep), failure);
    let shared: Arc<dyn StdError + Send + Sync> = Arc::new(failure);
    assert_eq!(read(&say_over("shared", shared)), failure);
    assert_eq!(
        read(&say_over("timeout", Failure::model())),
        Failure::model()
    );
}

#[test]
fn the_text_of_the_whole_chain_is_read() {
    let error = say_over(
        "the call failed",
        say_over("inner", say("connection refused")),
    );
    assert_eq!(
        read(&error),
        Failure::network(NetworkErrorKind::Econnrefused)
    );
    let error = say_over("operation timed out", say("connection refused"));
    assert_eq!(
        read(&error),
        Failure::network(NetworkErrorKind::Econnrefused)
    );
}

#[test]
fn reading_never_returns_unknown() {
    let rows = [TABLE, ALONE, PIECES].into_iter().flatten();
    let kinds = rows.map(|(failure, _)| failure.network_error_kind());
    let codes = OS_ERRORS.iter().map(|(_, kind, _)| Some(*kind));
    assert!(
        kinds
            .chain(codes)
            .all(|kind| kind != Some(NetworkErrorKind::Unknown))
    );
}

#[test]
fn only_the_start_of_a_text_is_read() {
    let refused = Failure::network(NetworkErrorKind::Econnrefused);
    let near = format!("{}: Connection refused: and more", "word ".repeat(150));
    assert_eq!(read(&say(&near)), refused);
    let far = format!("{}: Connection refused", "word ".repeat(300));
    assert_eq!(read(&say(&far)), Failure::fatal());
    let status = format!("{} status 503", "word ".repeat(300));
    assert_eq!(read(&say(&status)), Failure::fatal());
    // The place of a cut is not the end of a segment.
    let row = "Connection refused";
    for more in 0..40 {
        let start = "x".repeat(MAX_TEXT - ": ".len() - row.len() - more);
        let whole = format!("{start}: {row}");
        assert_eq!(read(&say(&whole)), refused);
        let cut = format!("{start}: {row} {}", "is not a valid value ".repeat(9));
        assert_eq!(read(&say(&cut)), Failure::fatal(), "{more}");
        let ended = format!("{start}: {row}\n{}", "and so on ".repeat(9));
        if more > "\nand ".len() {
            assert_eq!(read(&say(&ended)), refused, "{more}");
        }
    }
}

#[test]
fn only_texts_of_transports_are_repeated() {
    let secret = || say("my secret prompt: Connection refused is not valid");
    for (error, expected) in [
        (
            say_over("prompt", io::Error::from(io::ErrorKind::ConnectionReset)),
            "connection reset",
        ),
        (
            say_over(
                "error sending request for url (https://u:p@a.example/?q=prompt)",
                secret(),
            ),
            "error sending request",
        ),
        (
            say_over(
                "prompt: Connection refused (os error 111): prompt",
                secret(),
            ),
            "Connection refused",
        ),
        (
            say_over("prompt", io::Error::from_raw_os_error(24)),
            "Too many open files (os error 24)",
        ),
        (
            say("tcp connect error: Connection refused (os error 111): Connection refused"),
            "tcp connect error: Connection refused",
        ),
        (
            say("request to prompt failed, reason: connect ECONNREFUSED prompt:443"),
            "connect ECONNREFUSED …",
        ),
        (say("prompt (os error 10054)"), "os error 10054"),
        (
            say_over(
                "kind: TimedOut, message: prompt",
                io::Error::other("prompt"),
            ),
            "",
        ),
        (say_over("503 Service Unavailable", secret()), ""),
    ] {
        if cfg!(unix) || !expected.contains("files") {
            assert_eq!(transport_texts(&error), expected, "{error:?}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read(text: String, around: String) {
        let error = say_over(&text, say(&format!("{around}: Connection refused: {around}")));
        let _ = read(&error);
        let _ = transport_texts(&error);
    }
}
