//! How a body begins: recognizes one that is not a stream of events, and keeps a single object whole.

use std::str::Utf8Error;

use crate::report::is_error;

/// The error that ends a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FrameError<E> {
    /// The byte stream failed.
    Source(E),
    /// A field is not UTF-8 after this many bytes.
    Utf8 { valid_up_to: usize },
    /// An event exceeds the limit.
    TooLarge { limit: usize },
    /// The body is not an event stream, but this object.
    Object(Vec<u8>),
    /// The body belongs to another protocol and begins with this.
    Foreign(Vec<u8>),
}

impl<E> From<Utf8Error> for FrameError<E> {
    fn from(error: Utf8Error) -> Self {
        Self::Utf8 {
            valid_up_to: error.valid_up_to(),
        }
    }
}

/// How a body begins. No line of an event stream begins with a brace, a bracket, a tag or a NUL. An object may be the
/// whole answer; the others begin another protocol.
#[derive(Debug)]
pub(crate) enum Opening {
    /// Only white space so far.
    Unseen,
    Events,
    /// An object, and any bytes after it.
    Object {
        seen: Vec<u8>,
        /// The end of its first line once it is known; `None` inside if that line is not a whole object.
        line: Option<Option<usize>>,
    },
    /// Another protocol. Its start may contain an error.
    Foreign {
        seen: Vec<u8>,
        /// Number of bytes that are enough.
        enough: usize,
    },
}

/// Limit on the bytes kept of a body that is neither an event stream nor an object, and on the size of an object that
/// is searched for an error before the body has ended.
pub(crate) const MAX_FOREIGN: usize = 64 * 1024;
/// The same limit for a body of binary messages.
pub(crate) const BINARY_HEAD: usize = 16;

/// Starts of lines in an event stream.
const FIELDS: [&[u8]; 6] = [b"data", b"event", b"id", b"retry", b"error:", b":"];

/// Returns `true` if a body that begins like this is an event stream.
pub(crate) fn begins_like_events(body: &[u8]) -> bool {
    let begins = |field: &&[u8]| {
        let length = field.len().min(body.len());
        length > 0 && field[..length] == body[..length]
    };
    FIELDS.iter().any(begins)
}

/// Returns `true` if a byte before the first significant one is skipped.
pub(crate) fn is_space(byte: &u8) -> bool {
    byte.is_ascii_whitespace() || b"\xEF\xBB\xBF".contains(byte)
}

impl Opening {
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self, Self::Events)
    }

    /// Reads a chunk. Returns `true` if the body is not an event stream.
    pub(crate) fn read(&mut self, chunk: &[u8], limit: usize) -> bool {
        let mut rest = chunk;
        if matches!(self, Self::Unseen) {
            let Some(first) = chunk.iter().position(|byte| !is_space(byte)) else {
                return false;
            };
            rest = &chunk[first..];
            let seen = Vec::new();
            let foreign = |enough| Self::Foreign {
                seen: Vec::new(),
                enough,
            };
            *self = match rest[0] {
                b'{' => Self::Object { seen, line: None },
                b'[' => foreign(MAX_FOREIGN),
                b'<' => foreign(1),
                0 => foreign(BINARY_HEAD),
                _ => Self::Events,
            };
        }
        match self {
            Self::Unseen | Self::Events => return false,
            Self::Foreign { seen, enough } => {
                let room = *enough - seen.len();
                seen.extend_from_slice(&rest[..rest.len().min(room)]);
            }
            Self::Object { seen, line } => {
                let before = seen.len();
                let room = limit.saturating_add(1) - before;
                seen.extend_from_slice(&rest[..rest.len().min(room)]);
                if line.is_none() {
                    let end = memchr::memchr2(b'\n', b'\r', &seen[before..]);
                    let end = end.map(|end| before + end);
                    *line = end.map(|end| is_json(&seen[..end]).then_some(end));
                }
            }
        }
        true
    }

    /// Returns what the body is, if no more of it needs to be read.
    pub(crate) fn decided<E>(&mut self, limit: usize) -> Option<FrameError<E>> {
        match self {
            Self::Foreign { seen, enough } if seen.len() >= *enough => {
                Some(FrameError::Foreign(std::mem::take(seen)))
            }
            Self::Object {
                seen,
                line: Some(Some(end)),
            } if seen[*end..].iter().any(|byte| !byte.is_ascii_whitespace()) => {
                // More objects follow.
                seen.truncate(*end + 1);
                Some(FrameError::Foreign(std::mem::take(seen)))
            }
            Self::Object { seen, .. } if seen.len() > limit => Some(FrameError::TooLarge { limit }),
            _ => None,
        }
    }

    /// Returns an error that nothing follows. The end of the body need not be awaited.
    pub(crate) fn failed<E>(&mut self) -> Option<FrameError<E>> {
        match self {
            Self::Object { seen, .. } if seen.len() <= MAX_FOREIGN => {
                let text = std::str::from_utf8(seen).ok()?.trim_end();
                let fails = text.ends_with('}') && is_error(text);
                fails.then(|| FrameError::Object(std::mem::take(seen)))
            }
            _ => None,
        }
    }

    /// Returns what a body is that has ended.
    pub(crate) fn ended<E>(&mut self) -> Option<FrameError<E>> {
        match self {
            Self::Object { seen, .. } => Some(FrameError::Object(std::mem::take(seen))),
            Self::Foreign { seen, .. } => Some(FrameError::Foreign(std::mem::take(seen))),
            Self::Unseen | Self::Events => None,
        }
    }
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}
