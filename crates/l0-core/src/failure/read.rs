//! Reads what kind of failure an error is: from its source chain, an `io::ErrorKind`, or its text.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::io;
use std::iter;
use std::sync::{Arc, LazyLock};

use regex_lite::Regex;

use super::table::{ALONE, OS_ERRORS, PIECES, Rows, TABLE};
use super::{Failure, NetworkErrorKind, reason_phrase};

/// How many links of a source chain are looked at: an error may name itself as its source.
const MAX_LINKS: usize = 32;

/// How much of an error's text is looked at, in bytes: this runs inside a poll, and a server's
/// answer of any length may end up in the text.
pub(crate) const MAX_TEXT: usize = 1024;

/// Compiles the patterns, which would otherwise happen inside a poll.
pub(crate) fn prepare() {
    LazyLock::force(&STATUS);
}

/// Reads what kind of failure an error is. The first hit wins: a [`Failure`] in the error's source
/// chain; an [`io::Error`]'s kind or Tokio's `Elapsed` in the chain; the text. No hit is fatal.
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

/// The beginning of a text. What does not fit is not kept, and whoever writes it is told to stop.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    text: String,
    /// Whether there was more.
    pub(crate) cut: bool,
}

impl fmt::Write for Beginning {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.cut {
            return Err(fmt::Error);
        }
        let room = MAX_TEXT - self.text.len();
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        self.text.push_str(&more[..char_boundary(more, room)]);
        self.cut = true;
        Err(fmt::Error)
    }
}

impl Beginning {
    pub(crate) fn of(text: impl fmt::Display) -> Self {
        let mut beginning = Self::default();
        // Unlike `to_string`, this does not panic over a faulty `Display`.
        let _ = write!(beginning, "{text}");
        beginning
    }

    /// The same of what the alternate form (`{:#}`) says.
    fn in_full(text: &(dyn StdError + 'static)) -> Self {
        let mut beginning = Self::default();
        let _ = write!(beginning, "{text:#}");
        beginning
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// The text up to its last whole word, if there was more: half a word may mean something else,
    /// and half a secret does not look like one. Scripts without spaces are cut anywhere.
    pub(crate) fn as_str(&self) -> &str {
        if !self.cut {
            return &self.text;
        }
        let breaks = |c: char| c.is_whitespace() || c >= '\u{2E80}';
        let end = self.text.rfind(breaks);
        &self.text[..end.unwrap_or(0)]
    }
}

/// The last place at or before `index` where the text can be cut.
pub(crate) fn char_boundary(text: &str, index: usize) -> usize {
    let is_boundary = |&index: &usize| text.is_char_boundary(index);
    (0..=index).rev().find(is_boundary).unwrap_or(0)
}

/// The texts of the chain, joined by `": "`. Many error types repeat their source's text at the
/// end of their own; it is said once.
pub(crate) fn texts(error: &(dyn StdError + 'static)) -> Beginning {
    joined(error, |link| Beginning::of(link))
}

/// The same of what the links say in their alternate form, in which an error type may say what it does
/// not display otherwise.
pub(crate) fn texts_in_full(error: &(dyn StdError + 'static)) -> Beginning {
    joined(error, Beginning::in_full)
}

fn joined(
    error: &(dyn StdError + 'static),
    text: impl Fn(&(dyn StdError + 'static)) -> Beginning,
) -> Beginning {
    let mut all = Beginning::default();
    for (index, link) in chain(error).enumerate() {
        // It says once more what the links before it say.
        if index > 0 && link.is::<Failure>() {
            continue;
        }
        let link = text(link);
        if all.text.ends_with(&link.text) {
            continue;
        }
        let colon = if all.text.is_empty() { "" } else { ": " };
        let _ = write!(all, "{colon}{}", link.text);
        all.cut |= link.cut;
        if all.cut {
            break;
        }
    }
    all
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

/// Reads a text: a status wins, since it is what the server said; then the last row that is found,
/// since what comes last is the cause of what is said before it.
pub(super) fn read_text(text: &Beginning) -> Failure {
    if let Some(status) = read_status(text.as_str()) {
        return Failure::status(status);
    }
    deciding(text).map_or(Failure::fatal(), |hit| hit.failure)
}

fn deciding(text: &Beginning) -> Option<Hit> {
    let hits = segments(text).filter_map(Segment::find);
    hits.reduce(|first, next| {
        if first.failure.status.is_some() {
            first
        } else {
            next
        }
    })
}

#[cfg(test)]
pub(super) fn deciding_row(text: &Beginning) -> Option<&'static str> {
    deciding(text).map(|hit| hit.row)
}

/// The texts of io errors and transports that the chain has, and nothing else that it says.
pub(crate) fn transport_texts(error: &(dyn StdError + 'static)) -> String {
    // Those without a payload have a text of the system's or of the standard library's.
    let plain: Vec<String> = chain(error)
        .filter_map(as_io)
        .filter(|io| io.get_ref().is_none())
        .map(|io| Beginning::of(io).text)
        .collect();
    let mut said: Vec<String> = Vec::new();
    for segment in segments(&texts(error)) {
        let own = plain.iter().find(|text| segment.is(text)).cloned();
        let row = || segment.find().filter(|hit| hit.shown);
        let text = own.or_else(|| Some(row()?.row.replace(['*', '#'], "…")));
        said.extend(text.filter(|text| !said.contains(text)));
    }
    said.join(": ")
}

/// What of a text may be in the table: from the text's start, a line's start or `": "`, to the end
/// of the line.
#[derive(Clone, Copy)]
struct Segment<'a> {
    line: &'a str,
    /// Whether the line may go on: it is where the text was cut.
    open: bool,
}

/// What a segment was found to be.
struct Hit {
    failure: Failure,
    row: &'static str,
    /// Whether the row is fit for people.
    shown: bool,
}

fn segments(text: &Beginning) -> impl Iterator<Item = Segment<'_>> {
    let mut lines = text.as_str().split(['\n', '\r']).peekable();
    let lines = iter::from_fn(move || {
        let line = lines.next()?.trim_start();
        let open = text.cut && lines.peek().is_none();
        Some(Segment { line, open })
    });
    lines.flat_map(|line| iter::successors(Some(line), |segment| segment.next()))
}

impl Segment<'_> {
    /// The next one in the same line.
    fn next(self) -> Option<Self> {
        let (_, line) = self.line.split_once(": ")?;
        Some(Self {
            line: line.trim_start(),
            ..self
        })
    }

    /// What the segment is. The longest row wins.
    fn find(self) -> Option<Hit> {
        let in_table = self
            .rows(TABLE, true, true)
            .chain(self.rows(ALONE, false, true))
            .chain(self.rows(PIECES, true, false));
        in_table
            .max_by_key(|hit| hit.row.len())
            .or_else(|| self.find_os_error())
            .or_else(|| self.find_status())
    }

    /// The rows of a table that the segment is.
    fn rows(
        self,
        table: &'static [Rows],
        before_colon: bool,
        shown: bool,
    ) -> impl Iterator<Item = Hit> {
        table.iter().flat_map(move |&(failure, rows)| {
            // Nearly all rows are told from the segment by their first letter.
            let first = self.line.as_bytes().first();
            let may_be = move |row: &&str| {
                let begins = row.as_bytes().first();
                begins == first || begins == Some(&b'*')
            };
            let is_it =
                move |row: &&str| matches(row, self.line, &|rest| self.ends(rest, before_colon));
            let found = rows.iter().copied().filter(may_be).filter(is_it);
            found.map(move |row| Hit {
                failure,
                row,
                shown,
            })
        })
    }

    /// Whether the segment is this text.
    fn is(self, text: &str) -> bool {
        let rest = self.line.strip_prefix(text);
        rest.is_some_and(|rest| self.ends(rest, true))
    }

    /// Whether a segment ends before what follows of its line.
    fn ends(self, rest: &str, before_colon: bool) -> bool {
        let rest = appended(rest);
        if rest.trim().is_empty() {
            return !self.open;
        }
        before_colon && rest.starts_with(':')
    }

    /// `... (os error 10054)`, in whatever language.
    fn find_os_error(self) -> Option<Hit> {
        const BEFORE_CODE: &str = " (os error ";
        let own = self.line.split(": ").next()?;
        let at = own.find(BEFORE_CODE)?;
        let (code, rest) = self.line[at + BEFORE_CODE.len()..].split_once(')')?;
        if !self.ends(rest, true) {
            return None;
        }
        let code: i32 = code.parse().ok()?;
        let (_, kind, row) = *OS_ERRORS.iter().find(|(known, ..)| *known == code)?;
        Some(Hit {
            failure: Failure::network(kind),
            row,
            shown: true,
        })
    }

    /// `503 Service Unavailable`.
    fn find_status(self) -> Option<Hit> {
        let (status, rest) = self.line.split_once(' ')?;
        if !status.starts_with(['4', '5']) {
            return None;
        }
        let status = status.parse().ok().filter(is_failed)?;
        let rest = rest.strip_prefix(reason_phrase(status)?)?;
        self.ends(rest, true).then_some(Hit {
            failure: Failure::status(status),
            row: "",
            shown: false,
        })
    }
}

/// What is left of a text behind what programs append to texts of others.
fn appended(text: &str) -> &str {
    let url = |text: &'_ str| {
        let url = text.strip_prefix(" for url (")?;
        let word = url.split(char::is_whitespace).next()?;
        Some(word.rfind(')')? + 1 + text.len() - url.len())
    };
    let code = |text: &'_ str| {
        let code = text.strip_prefix(" (os error ")?;
        let end = code.find(')')?;
        code[..end].parse::<i32>().ok()?;
        Some(end + 1 + text.len() - code.len())
    };
    let text = &text[url(text).unwrap_or(0)..];
    &text[code(text).unwrap_or(0)..]
}

/// Whether the text begins with the row, and ends as it should. In a row, `*` is any characters but
/// spaces, and `#` is an integer.
fn matches(row: &str, mut text: &str, ends: &dyn Fn(&str) -> bool) -> bool {
    let mut row = row.chars();
    while let Some(next) = row.next() {
        match next {
            '#' => {
                let unsigned = text.strip_prefix('-').unwrap_or(text);
                text = unsigned.trim_start_matches(|c: char| c.is_ascii_digit());
                if text.len() == unsigned.len() {
                    return false;
                }
            }
            '*' => {
                let word = text.find(char::is_whitespace).unwrap_or(text.len());
                return (0..=word)
                    .rev()
                    .filter(|&end| text.is_char_boundary(end))
                    .any(|end| matches(row.as_str(), &text[end..], ends));
            }
            literal => match text.strip_prefix(literal) {
                Some(rest) => text = rest,
                None => return false,
            },
        }
    }
    ends(text)
}

/// The first status of a failed answer that the text names.
fn read_status(text: &str) -> Option<u16> {
    STATUS.captures_iter(text).find_map(|captures| {
        let before = &text[..captures.get(1)?.start()];
        let word = before
            .rsplit(|c: char| c.is_whitespace() || "\"'`<>()[]{},".contains(c))
            .next()?;
        // One in a path or query says nothing of the answer.
        if word.contains(['/', '?', '&', '#']) {
            return None;
        }
        captures[2].parse().ok().filter(is_failed)
    })
}

fn is_failed(status: &u16) -> bool {
    (400..=599).contains(status)
}

/// `status 503`, `Status Code: 503`, `StatusCode(503)`, `"status": 503`, `HTTP/2 503`,
/// `error code: 503`, and reqwest's `HTTP status server error (503 Service Unavailable)`.
static STATUS: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r#"(?xi)
        (?:^|[^a-z0-9])
        ( status (?:\s+(?:client|server)\s+error)? [\s_-]* (?:code)?
        | http (?:/[\d.]+)? (?:\s+error)?
        | error[\s_]+code )
        [\s"'`\\]* [:=(]* [\s"'`\\]*
        (\d{3}) (?:\W|$)"#;
    Regex::new(pattern).expect("the pattern is constant, and a test compiles it")
});

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
    fn the_patterns_compile() {
        prepare();
        assert!(!STATUS.is_match("nothing"));
    }

    #[test]
    fn a_row_is_found_as_a_whole_segment_only() {
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
    fn what_a_row_leaves_open_is_a_word_or_a_number() {
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
    fn what_is_only_said_before_a_reason_is_read_alone() {
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
    fn the_last_row_decides_as_it_is_the_cause() {
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
    fn words_of_prose_decide_nothing() {
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
        let error = say_over("operation timed out", say("connection refused"));
        assert_eq!(
            read(&error),
            Failure::network(NetworkErrorKind::Econnrefused)
        );
    }

    #[test]
    fn reading_never_makes_unknown() {
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
    fn a_chain_without_end_is_cut() {
        assert_eq!(chain(&Ouroboros).count(), MAX_LINKS);
        assert_eq!(read(&Ouroboros), Failure::fatal());
        assert_eq!(texts(&Ouroboros).as_str(), "round and round");
    }

    #[test]
    fn a_long_text_is_cut_at_a_word() {
        for (text, expected) in [
            (String::new(), String::new()),
            ("a".repeat(MAX_TEXT), "a".repeat(MAX_TEXT)),
            ("a".repeat(MAX_TEXT + 1), String::new()),
            (
                "ab ".repeat(MAX_TEXT),
                "ab ".repeat(MAX_TEXT / 3).trim_end().to_owned(),
            ),
            (format!("ab {}", "é".repeat(MAX_TEXT)), "ab".to_owned()),
        ] {
            let beginning = Beginning::of(&text);
            assert_eq!(beginning.as_str(), expected);
            assert_eq!(beginning.cut, text.len() > MAX_TEXT);
        }
    }

    #[test]
    fn a_link_that_was_said_already_is_left_out() {
        let error = say_over("outer: inner", say_over("inner", say("in")));
        assert_eq!(texts(&error).as_str(), "outer: inner: in");
        let error = io::Error::other(say_over("a", say("b")));
        assert_eq!(texts(&error).as_str(), "a: b");
        assert_eq!(texts(&say_over("", say("b"))).as_str(), "b");
        assert_eq!(texts(&say_over("a", Failure::fatal())).as_str(), "a");
    }

    #[test]
    fn a_text_is_read_near_its_start_only() {
        let refused = Failure::network(NetworkErrorKind::Econnrefused);
        let near = format!("{}: Connection refused: and more", "word ".repeat(150));
        assert_eq!(read(&say(&near)), refused);
        let far = format!("{}: Connection refused", "word ".repeat(300));
        assert_eq!(read(&say(&far)), Failure::fatal());
        let status = format!("{} status 503", "word ".repeat(300));
        assert_eq!(read(&say(&status)), Failure::fatal());
        // Where a text is cut is not where it ends.
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

    /// Its text is of 10 MB. It counts the pieces that it writes, and goes on after an error if it
    /// is told to.
    #[derive(Debug, Default)]
    struct Endless {
        stubborn: bool,
        pieces: std::cell::Cell<usize>,
    }

    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for _ in 0..100_000 {
                self.pieces.set(self.pieces.get() + 1);
                let result = f.write_str(&"endless and ".repeat(8));
                if !self.stubborn {
                    result?;
                }
            }
            Ok(())
        }
    }

    impl StdError for Endless {}

    #[test]
    fn a_text_is_not_built_beyond_what_is_read() {
        for stubborn in [false, true] {
            let error = Endless {
                stubborn,
                ..Endless::default()
            };
            let all = texts(&error);
            assert!(all.cut && all.text.capacity() <= 2 * MAX_TEXT);
            assert_eq!(error.pieces.get(), if stubborn { 100_000 } else { 11 });
            assert_eq!(read(&error), Failure::fatal());
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
}
