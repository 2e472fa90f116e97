//! Reads what kind of failure an error is: from its source chain, an `io::ErrorKind`, or its text.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io;
use std::iter;
use std::sync::{Arc, LazyLock};

use regex_lite::Regex;

use super::{Failure, FailureKind, NetworkErrorKind};

/// How many links of a source chain are looked at: an error may name itself as its source.
const MAX_LINKS: usize = 32;

/// How much of an error's text is searched, in bytes: this runs inside a poll, and a server's
/// answer of any length may end up in the text.
const MAX_TEXT: usize = 2 * 1024;

/// How far a capped text is cut back to the end of a whole word. A text without any space loses
/// this much, so that no secret of usual length is left in halves.
const MAX_WORD: usize = 1024;

/// Reads what kind of failure an error is. The first hit wins: a [`Failure`] in the error's source
/// chain; an [`io::Error`]'s kind or Tokio's `Elapsed` in the chain; whole words of the text. No
/// hit is fatal.
pub(crate) fn read(error: &(dyn StdError + 'static)) -> Failure {
    chain(error)
        .find_map(|link| link.downcast_ref::<Failure>().copied())
        .or_else(|| chain(error).find_map(read_type))
        .unwrap_or_else(|| read_text(&texts(error)))
}

/// The error and what it comes from, outermost first.
pub(crate) fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(Some(error), |&link| inner(link).or_else(|| link.source())).take(MAX_LINKS)
}

/// The error inside a wrapper whose `source()` skips it.
fn inner<'a>(link: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(shared) = link.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
        return Some(&**shared);
    }
    let inner: &'a (dyn StdError + Send + Sync + 'static) = as_io(link)?.get_ref()?;
    Some(inner)
}

/// Error types that are `Clone` hold their `io::Error` in an `Arc`.
fn as_io<'a>(link: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let shared = || link.downcast_ref::<Arc<io::Error>>().map(|io| &**io);
    link.downcast_ref::<io::Error>().or_else(shared)
}

/// The texts of the chain, joined by `": "`. Many error types repeat their source's text at the
/// end of their own; it is said once.
pub(crate) fn texts(error: &(dyn StdError + 'static)) -> String {
    let mut all = String::new();
    for (index, link) in chain(error).enumerate() {
        // It says for a program what the links before it say for people.
        if index > 0 && link.is::<Failure>() {
            continue;
        }
        let mut text = String::new();
        // Unlike `to_string`, this does not panic over a faulty `Display`.
        let _ = write!(text, "{link}");
        if all.ends_with(&text) {
            continue;
        }
        if !all.is_empty() {
            all.push_str(": ");
        }
        all.push_str(&text);
    }
    all
}

/// The first `max` bytes of a text. The last word of a longer text goes too: half a word may mean
/// something else, and half a secret does not look like one.
pub(crate) fn capped(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = text.floor_char_boundary(max);
    let word = text.floor_char_boundary(end.saturating_sub(MAX_WORD));
    let space = text[word..end].rfind(char::is_whitespace);
    &text[..word + space.unwrap_or(0)]
}

/// Reads a link of the chain by its type.
fn read_type(link: &(dyn StdError + 'static)) -> Option<Failure> {
    if link.is::<tokio::time::error::Elapsed>() {
        return Some(Failure::network(NetworkErrorKind::Timeout));
    }
    let kind = match as_io(link)?.kind() {
        io::ErrorKind::ConnectionReset => NetworkErrorKind::Econnreset,
        io::ErrorKind::ConnectionRefused => NetworkErrorKind::Econnrefused,
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected => NetworkErrorKind::ConnectionDropped,
        io::ErrorKind::UnexpectedEof => NetworkErrorKind::PartialChunks,
        io::ErrorKind::TimedOut => NetworkErrorKind::Timeout,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => NetworkErrorKind::FetchError,
        _ => return None,
    };
    Some(Failure::network(kind))
}

/// Reads a text: a status wins over words, since it is what the server said.
fn read_text(text: &str) -> Failure {
    let prose = NOISE.replace_all(capped(text, MAX_TEXT), " ");
    let status = STATUS
        .captures_iter(&prose)
        .filter_map(|captures| captures[1].parse().ok())
        .find(|status| (400..=599).contains(status));
    if let Some(status) = status {
        return Failure::status(status);
    }
    PHRASES
        .iter()
        .find(|(_, pattern)| pattern.is_match(&prose))
        .map_or(Failure::fatal(), |&(failure, _)| failure)
}

/// What says nothing about what happened: spaces and quotes; URLs and paths (`/v1/timeout`, but not
/// `SSL/TLS`); names of hosts and files (`tls.example.com`, but not `1.1`).
static NOISE: LazyLock<Regex> = LazyLock::new(|| {
    let (word, space) = (r#"[^\s"'`<>]"#, r#"[\s"'`<>]"#);
    let name = r"/WORD*/|\B/|[a-z]\.[a-z0-9]|[0-9]\.[a-z]".replace("WORD", word);
    compile(&format!("(?i)(?:{space}|{word}*(?:{name}){word}*)+"))
});

/// `status 503`, `Status Code: 503`, `StatusCode(503)`, `HTTP/2 503`, `error code: 503`, and
/// reqwest's `HTTP status server error (503 Service Unavailable)`.
static STATUS: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?i)(?:^|[^a-z0-9])(?:status(?:\s+(?:client|server)\s+error)?[\s_-]*(?:code)?|http(?:/[\d.]+)?(?:\s+error)?|error[\s_]+code)\s*[:=(]*\s*(\d{3})(?:\W|$)",
    )
});

/// What the phrases of a text mean; the first hit wins. The order of the network types is that of
/// [`NetworkErrorKind`], but for the rows with a remark.
///
/// A phrase is found as whole words only, and a hyphen is part of a word: neither "passed" nor
/// "my-sse-lib" speaks of SSE. `_` inside a phrase is what codes have (`rate_limit_error`).
const PHRASE_TABLE: &[(Failure, &[&str])] = &[
    (
        Failure::new(FailureKind::RateLimited),
        &[
            r"rate[ _-]?limit(?:s|ed|ing)?(?:[ _-]?(?:error|exceeded|reached))?",
            r"too[ _]many[ _]requests",
            r"resource[ _]exhausted",
        ],
    ),
    (
        Failure::fatal(),
        &[r"unauthori[sz]ed", r"forbidden", r"permission[ _]denied"],
    ),
    (
        Failure::new(FailureKind::Server),
        &[
            r"overloaded(?:[ _]error)?",
            r"service[ _](?:is )?(?:currently |temporarily )?unavailable",
            r"status ?: ?unavailable",
            r"bad[ _]gateway",
            r"gateway[ _-]?time[ -]?out",
            r"internal[ _]server[ _]error",
            r"server[ _](?:error|had an error)",
        ],
    ),
    // A handshake that took too long is no fault of the certificate: a new attempt may succeed.
    (
        Failure::network(NetworkErrorKind::Timeout),
        &[r"handshake (?:\w+ ){0,2}(?:timeout|timed out)"],
    ),
    (
        Failure::network(NetworkErrorKind::ConnectionDropped),
        &[
            r"connections?[ _]?(?:(?:was|is|has|been|got|unexpectedly|abruptly|forcibly) )*(?:dropped|closed|lost|reset|aborted|terminated|interrupted)",
            r"(?:closed?|closes|dropped|lost|reset|aborted|terminated) (?:the |its |our )?connection",
            r"stream (?:was )?(?:interrupted|closed unexpectedly)",
            r"(?:server|peer|remote|client) (?:has |was )?disconnected",
            r"broken[ _]?pipe",
            r"pipe (?:is |was |has )?(?:broken|been closed)",
            r"socket hang up",
            r"not connected",
            r"econnreset|econnaborted|epipe",
        ],
    ),
    (
        Failure::network(NetworkErrorKind::FetchError),
        &[
            r"(?:failed|unable|attempting) to fetch",
            r"fetch[ _](?:error|failed)",
            r"network request failed",
        ],
    ),
    (
        Failure::network(NetworkErrorKind::Econnreset),
        &[r"reset by peer", r"os error (?:104|54|10054)"],
    ),
    (
        Failure::network(NetworkErrorKind::Econnrefused),
        &[
            r"econnrefused",
            r"connections?[ _]?(?:(?:was|is|has|been|actively) )*refused",
            r"refused (?:the |our )?connection",
            r"os error (?:111|61|10061)",
        ],
    ),
    (
        Failure::network(NetworkErrorKind::SseAborted),
        &[
            r"sse(?:[ _](?:aborted|error))?",
            r"server[ -]sent[ -]events?",
            r"event ?streams?",
            r"streams? (?:\w+ ){0,3}abort(?:s|ed|ing)?",
            r"abort(?:s|ed|ing)? (?:\w+ ){0,3}streams?",
            r"abort[ _]?error",
        ],
    ),
    (
        Failure::network(NetworkErrorKind::NoBytes),
        &[
            r"(?:no|zero|0)[ _]bytes",
            r"empty (?:response|reply|body)",
            r"no data (?:was )?received",
            r"received no data",
            r"content-length ?:? ?0",
        ],
    ),
    (
        Failure::network(NetworkErrorKind::PartialChunks),
        &[
            r"(?:partial|incomplete)[ _]?(?:chunk|data|message|response|body|read)(?:s|ed)?",
            r"truncated",
            r"premature(?:ly)? (?:close|closed|end|ended|eof)",
            r"(?:closed|ended) prematurely",
            r"unexpected[ _]?(?:eof|end of (?:data|file|stream|body|response|message|chunk))",
            r"early eof",
            r"error reading a body from connection",
        ],
    ),
    (
        Failure::network(NetworkErrorKind::RuntimeKilled),
        &[
            r"workers? (?:\w+ ){0,3}(?:terminated|died|killed|crashed)",
            r"terminated (?:\w+ ){0,2}worker",
            r"runtime[ _](?:\w+ ){0,3}killed",
            r"edge runtime",
            r"(?:lambda|function|execution) (?:\w+ )?(?:timeout|timed out|time out)",
            r"process (?:\w+ ){0,2}(?:exited|killed|terminated|crashed)",
            r"sigterm|sigkill",
        ],
    ),
    (
        Failure::network(NetworkErrorKind::BackgroundThrottle),
        &[
            r"background[ _-]?throttl(?:e|ed|ing)",
            r"background (?:\w+ ){0,3}suspend(?:ed)?",
            r"suspended (?:\w+ ){0,2}background",
            r"tab (?:was |is )?suspended",
            r"page (?:was |is )?hidden",
            r"visibility (?:\w+ )?:? ?hidden",
            r"(?:inactive|background) tab",
        ],
    ),
    (
        Failure::network(NetworkErrorKind::DnsError),
        &[
            r"dns(?:[ _-]?(?:error|lookup|failure))?",
            r"enotfound|eai_again|nxdomain",
            r"getaddrinfo",
            r"name resolution",
            r"(?:host|hostname) (?:was |could )?not (?:be )?(?:found|resolved)",
            r"(?:unknown|no such) host",
            r"(?:failed to|could not|cannot|unable to) (?:resolve|look ?up) (?:the )?(?:host|hostname|name|address|domain)",
            r"(?:name or service|nodename nor servname)(?: provided, or)? not known",
            r"no address associated with hostname",
        ],
    ),
    (
        Failure::network(NetworkErrorKind::SslError),
        &[
            r"(?:ssl|tls)(?:v\d)?(?:[ _-]?(?:error|handshake|failure))?",
            r"certificates?(?:_verify_failed)?",
            r"certs?",
            r"handshakes?",
            r"self[ -]?signed",
            r"unable to verify",
            r"x509",
        ],
    ),
    (
        Failure::network(NetworkErrorKind::Timeout),
        &[
            r"(?:\w+-)?time[ -]?outs?(?:[ _-]?(?:error|exception))?",
            r"(?:connect|connection|read|write|socket|request|response|pool|idle|api)time(?:d)?out(?:error|exception)?",
            r"tim(?:ed|ing)[ -]?out",
            r"deadline[ _]?(?:(?:has|was|is|been) )*(?:exceeded|elapsed|expired|passed)",
            r"etimedout|esockettimedout",
        ],
    ),
    // What a client puts in front of the real reason: read only if that says nothing.
    (
        Failure::network(NetworkErrorKind::FetchError),
        &[
            r"error sending request",
            r"error trying to connect",
            r"tcp connect error",
            r"(?:could not|cannot|unable to|failed to) connect",
            r"(?:connect|connection) (?:error|failed|failure)",
            r"network (?:error|failure|is down|(?:is )?unreachable)",
            r"no route to host",
            r"host (?:is )?unreachable",
        ],
    ),
];

/// [`PHRASE_TABLE`], compiled.
static PHRASES: LazyLock<Vec<(Failure, Regex)>> = LazyLock::new(|| {
    let row = |&(failure, phrases): &(Failure, &[&str])| {
        let any = phrases.join("|");
        let words = format!(r"(?i)(?:^|[^\w-])(?:{any})(?:[^\w-]|$)");
        (failure, compile(&words))
    };
    PHRASE_TABLE.iter().map(row).collect()
});

fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns are constant, and a test compiles them all")
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::time::Duration;

    use super::*;

    /// An error with a text and, if wanted, a source.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Say(String, #[source] Option<Box<dyn StdError + Send + Sync>>);

    fn say(text: &str) -> Say {
        Say(text.to_owned(), None)
    }

    fn say_over(text: &str, source: impl StdError + Send + Sync + 'static) -> Say {
        Say(text.to_owned(), Some(Box::new(source)))
    }

    /// An error that is its own source.
    #[derive(Debug)]
    struct Ouroboros;

    impl fmt::Display for Ouroboros {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("round and round")
        }
    }

    impl StdError for Ouroboros {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(self)
        }
    }

    fn assert_reads(expected: Failure, texts: &[&str]) {
        for text in texts {
            assert_eq!(read(&say(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn every_phrase_compiles() {
        assert_eq!(PHRASES.len(), PHRASE_TABLE.len());
        assert!(!STATUS.is_match("nothing"));
    }

    #[test]
    fn each_kind_is_read_from_its_texts() {
        use NetworkErrorKind::*;
        let table: &[(NetworkErrorKind, &[&str])] = &[
            (
                ConnectionDropped,
                &[
                    "connection dropped",
                    "Connection closed",
                    "the connection was closed unexpectedly",
                    "connection closed before message completed",
                    "connection lost mid-stream",
                    "Connection reset by peer (os error 104)",
                    "read ECONNRESET",
                    "pipe broken",
                    "Broken pipe (os error 32)",
                    "An existing connection was forcibly closed by the remote host",
                    "peer closed connection without sending TLS close_notify",
                    "stream closed unexpectedly",
                    "socket hang up",
                    "Kind(ConnectionReset)",
                    "connection_dropped",
                ],
            ),
            (
                FetchError,
                &[
                    "TypeError: Failed to fetch",
                    "fetch failed",
                    "network request failed",
                    "error sending request for url (https://api.example.com/v1/chat)",
                    "tcp connect error",
                    "Network is unreachable (os error 101)",
                    "No route to host",
                ],
            ),
            (
                Econnreset,
                &["stream was reset by peer", "read failed: os error 104"],
            ),
            (
                Econnrefused,
                &[
                    "connect ECONNREFUSED 127.0.0.1:443",
                    "Connection refused (os error 111)",
                    "kind: ConnectionRefused",
                    "the target machine actively refused: connection was refused",
                    "tcp connect error: Connection refused",
                ],
            ),
            (
                SseAborted,
                &[
                    "SSE failed",
                    "sse_aborted",
                    "Server-Sent Events ended early",
                    "the stream was aborted",
                    "aborted the event stream",
                    "EventStream error",
                    "AbortError: The operation was cancelled",
                ],
            ),
            (
                NoBytes,
                &[
                    "no bytes received",
                    "empty response",
                    "Empty reply from server",
                    "got zero bytes",
                    "read 0 bytes",
                    "no data received",
                    "Content-Length: 0",
                ],
            ),
            (
                PartialChunks,
                &[
                    "partial chunk received",
                    "incomplete chunk",
                    "incomplete data",
                    "the response was truncated",
                    "Premature close",
                    "stream ended prematurely",
                    "unexpected end of data",
                    "unexpected end of file",
                    "unexpected EOF during chunk size line",
                    "kind: UnexpectedEof",
                    "error decoding response body: error reading a body from connection",
                ],
            ),
            (
                RuntimeKilled,
                &[
                    "worker terminated",
                    "the worker has been terminated",
                    "worker died",
                    "runtime killed",
                    "runtime was killed",
                    "edge runtime limit",
                    "Lambda timeout",
                    "function timed out",
                    "execution timeout",
                    "process exited with code 1",
                    "received SIGTERM",
                    "SIGKILL",
                ],
            ),
            (
                BackgroundThrottle,
                &[
                    "background suspend",
                    "the background task was suspended",
                    "background throttle",
                    "background throttling",
                    "tab suspended",
                    "page hidden",
                    "visibility hidden",
                    "inactive tab",
                    "background tab",
                ],
            ),
            (
                DnsError,
                &[
                    "dns error",
                    "DNS lookup failed",
                    "dns_error",
                    "getaddrinfo ENOTFOUND api.example.com",
                    "Temporary failure in name resolution",
                    "host not found",
                    "failed to lookup address information: Name or service not known",
                    "dial tcp: no such host",
                    "could not resolve host",
                    "error sending request: dns error",
                ],
            ),
            (
                SslError,
                &[
                    "SSL routines",
                    "SSL/TLS failure",
                    "TLS handshake failed",
                    "certificate has expired",
                    "invalid peer certificate: UnknownIssuer",
                    "bad cert",
                    "handshake failure",
                    "self signed",
                    "self-signed in chain",
                    "unable to verify the first",
                    "[SSL: CERTIFICATE_VERIFY_FAILED]",
                    "error sending request: invalid peer certificate",
                ],
            ),
            (
                Timeout,
                &[
                    "timeout",
                    "Request timeout.",
                    "the read-timeout expired",
                    "operation timed out",
                    "time out",
                    "deadline exceeded",
                    "DEADLINE_EXCEEDED",
                    "deadline has elapsed",
                    "connect ETIMEDOUT 10.0.0.1:443",
                    "TimeoutError: gave up",
                    "kind: TimedOut",
                    "TLS handshake timeout",
                    "The handshake operation timed out",
                    "tcp connect error: deadline has elapsed",
                ],
            ),
        ];
        for (kind, texts) in table {
            assert_reads(Failure::network(*kind), texts);
        }
        assert_reads(
            Failure::new(FailureKind::RateLimited),
            &[
                "rate limit",
                "Rate limited, try later",
                "rate-limited",
                "rate_limit_exceeded",
                r#"{"error":{"type":"rate_limit_error"}}"#,
                "Too Many Requests",
                "too many requests: connection closed",
                "RESOURCE_EXHAUSTED",
            ],
        );
        assert_reads(
            Failure::new(FailureKind::Server),
            &[
                "Overloaded",
                r#"{"type":"error","error":{"type":"overloaded_error","message":""}}"#,
                "503 Service Unavailable",
                "service temporarily unavailable",
                "Bad Gateway",
                "Internal Server Error",
                "gateway timeout",
                "504 Gateway Time-out",
                "server_error",
            ],
        );
    }

    #[test]
    fn a_text_that_names_no_passing_trouble_is_fatal() {
        assert_reads(
            Failure::fatal(),
            &[
                "",
                "something else",
                "Unauthorized",
                "Forbidden: connection reset",
                "syntax error",
                "undefined is not a function",
                "the check passed",
                "asserted",
                "Request processed badly",
                "it is certain",
                "the dnsmasq process",
                "my-sse-lib",
                "tls-proxy",
                "a timeouted thing",
                "unknown field `timeout_ms`",
                "no connection pool",
                "a concert",
                "hustle",
                "epipeline",
                "prefetch errors",
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
                "bad answer from http://dns: nonsense",
                "bad answer from tls.example.com:443",
                "no such route: /timeout",
                "panicked at src/net/timeout.rs:12",
                r#"{"url":"https://x.example/timeout","ok":false}"#,
                "at https://example.com/?status=503",
            ],
        );
        assert_reads(
            Failure::network(NetworkErrorKind::Timeout),
            &[r#"{"url":"https://tls.example/","error":"timeout"}"#],
        );
    }

    #[test]
    fn an_explicit_status_wins_over_words() {
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
                format!("HTTP status server error ({status} X) for url (https://a.example/)"),
                format!("first status 200, then status {status}"),
            ] {
                assert_eq!(read(&say(&text)), Failure::status(status), "{text:?}");
            }
        }
    }

    #[test]
    fn a_number_that_is_no_failed_status_is_ignored() {
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
            &["status 200, then a timeout"],
        );
    }

    #[test]
    fn an_io_error_is_read_by_its_kind() {
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
    fn an_io_error_of_another_kind_is_read_by_its_text() {
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
    fn a_failure_in_the_chain_wins_over_types_and_texts() {
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
        // The order of the phrases decides, not that of the links.
        let error = say_over("timeout", say("connection refused"));
        assert_eq!(
            read(&error),
            Failure::network(NetworkErrorKind::Econnrefused)
        );
    }

    #[test]
    fn reading_never_makes_unknown() {
        assert!(
            PHRASE_TABLE
                .iter()
                .all(|(failure, _)| failure.network_error_kind() != Some(NetworkErrorKind::Unknown))
        );
    }

    #[test]
    fn a_chain_without_end_is_cut() {
        assert_eq!(chain(&Ouroboros).count(), MAX_LINKS);
        assert_eq!(read(&Ouroboros), Failure::fatal());
        assert_eq!(texts(&Ouroboros), "round and round");
    }

    #[test]
    fn a_long_text_is_cut_at_a_word() {
        for (text, max, expected) in [
            ("", 4, ""),
            ("abcd", 4, "abcd"),
            ("abcde", 4, ""),
            ("ab cde", 5, "ab"),
            ("ab cde", 3, "ab"),
            ("ab é", 4, "ab"),
        ] {
            assert_eq!(capped(text, max), expected, "{text:?}");
        }
        let word = "é".repeat(2000);
        assert_eq!(capped(&word, 3000).len(), 3000 - MAX_WORD);
    }

    #[test]
    fn a_link_that_was_said_already_is_left_out() {
        let error = say_over("outer: inner", say_over("inner", say("in")));
        assert_eq!(texts(&error), "outer: inner: in");
        let error = io::Error::other(say_over("a", say("b")));
        assert_eq!(texts(&error), "a: b");
        assert_eq!(texts(&say_over("", say("b"))), "b");
        assert_eq!(texts(&say_over("a", Failure::fatal())), "a");
    }

    #[test]
    fn phrases_are_searched_near_the_start_only() {
        let near = format!("{} timeout", "word ".repeat(300));
        assert_eq!(
            read(&say(&near)),
            Failure::network(NetworkErrorKind::Timeout)
        );
        let far = format!("{} timeout", "word ".repeat(600));
        assert_eq!(read(&say(&far)), Failure::fatal());
        let cut_to_a_phrase = format!("{}timeouts-cc", "word ".repeat(408));
        assert_eq!(read(&say(&cut_to_a_phrase)), Failure::fatal());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text: String, around: String) {
            let error = say_over(&text, say(&format!("{around} timeout {around}")));
            let _ = read(&error);
        }
    }
}
