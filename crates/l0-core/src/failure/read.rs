//! Classifies an error by its source chain, by an `io::ErrorKind`, or by its text.

use std::error::Error as StdError;
use std::io;
use std::iter;
use std::sync::LazyLock;

use regex_lite::Regex;

use super::table::{ALONE, OS_ERRORS, PIECES, Rows, TABLE};
use super::text::{Beginning, as_io, chain, texts};
use super::{Failure, NetworkErrorKind, reason_phrase};

/// Compiles the patterns, which would otherwise happen inside a poll.
pub(crate) fn prepare() {
    LazyLock::force(&STATUS);
}

/// Classifies an error. The first match decides: a [`Failure`] in the error's source chain; an
/// [`io::Error`]'s kind or Tokio's `Elapsed` in the chain; the text. Without a match the error is
/// fatal.
pub(crate) fn read(error: &(dyn StdError + 'static)) -> Failure {
    chain(error)
        .find_map(|link| link.downcast_ref::<Failure>().copied())
        .or_else(|| chain(error).find_map(read_type))
        .unwrap_or_else(|| read_text(&texts(error)))
}

/// Classifies an error of the chain by its type.
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

/// Classifies a text. A status takes precedence, because it comes from the server. Otherwise the
/// last matching row decides, because the last text is the cause of those before it.
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

/// Returns the texts of io errors and transports in the chain, and no others.
pub(crate) fn transport_texts(error: &(dyn StdError + 'static)) -> String {
    // An io error without a payload has a text of the system or of the standard library.
    let plain: Vec<String> = chain(error)
        .filter_map(as_io)
        .filter(|io| io.get_ref().is_none())
        .map(|io| Beginning::of(io).into_text())
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

/// A part of a text that is compared with the table: from the text's start, a line's start or
/// `": "`, to the end of the line.
#[derive(Clone, Copy)]
struct Segment<'a> {
    line: &'a str,
    /// `true` if the text was cut here, so the line can be incomplete.
    open: bool,
}

/// The match of a segment.
struct Hit {
    failure: Failure,
    row: &'static str,
    /// `true` if messages can contain the row.
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
    /// Returns the next segment of the same line.
    fn next(self) -> Option<Self> {
        let (_, line) = self.line.split_once(": ")?;
        Some(Self {
            line: line.trim_start(),
            ..self
        })
    }

    /// Returns the match of the segment. The longest row is preferred.
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

    /// Returns the rows of a table that match the segment.
    fn rows(
        self,
        table: &'static [Rows],
        before_colon: bool,
        shown: bool,
    ) -> impl Iterator<Item = Hit> {
        table.iter().flat_map(move |&(failure, rows)| {
            // The first letter rules out nearly all rows.
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

    /// Returns `true` if the segment is this text.
    fn is(self, text: &str) -> bool {
        let rest = self.line.strip_prefix(text);
        rest.is_some_and(|rest| self.ends(rest, true))
    }

    /// Returns `true` if a segment ends before `rest`, the remainder of its line.
    fn ends(self, rest: &str, before_colon: bool) -> bool {
        let rest = appended(rest);
        if rest.trim().is_empty() {
            return !self.open;
        }
        before_colon && rest.starts_with(':')
    }

    /// Matches `... (os error 10054)`, in any language.
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

    /// Matches `503 Service Unavailable`.
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

/// Returns the part of a text after what programs append to other texts.
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

/// Returns `true` if the text begins with the row and ends correctly. In a row, `*` matches any
/// characters except spaces, and `#` an integer.
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

/// Returns the first HTTP error status in the text.
fn read_status(text: &str) -> Option<u16> {
    STATUS.captures_iter(text).find_map(|captures| {
        let before = &text[..captures.get(1)?.start()];
        let word = before
            .rsplit(|c: char| c.is_whitespace() || "\"'`<>()[]{},".contains(c))
            .next()?;
        // A number in a path or query is not a status.
        if word.contains(['/', '?', '&', '#']) {
            return None;
        }
        captures[2].parse().ok().filter(is_failed)
    })
}

fn is_failed(status: &u16) -> bool {
    (400..=599).contains(status)
}

/// Matches `status 503`, `Status Code: 503`, `StatusCode(503)`, `"status": 503`, `HTTP/2 503`,
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
mod tests;
