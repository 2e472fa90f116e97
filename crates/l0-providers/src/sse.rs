//! Server-sent events from a byte stream, with bounded memory.
//!
//! The parsing is [`sse_stream`]'s. This module feeds it: it counts the bytes since the last event
//! boundary, so that one endless event cannot fill the memory; it keeps the source's own error
//! typed; it ends a last event that the body left unterminated, marked as such; it reads a field
//! `error` as an event of that name; it yields to the executor now and then while nothing comes of
//! what it reads; and it tells a body that is no event stream by how it begins: one object is kept whole.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use sse_stream::SseByteStream;

use crate::report::is_error;

/// One event that carries data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The event's name, if it has one.
    pub(crate) name: Option<String>,
    /// The event's data, its lines joined with LF.
    pub(crate) data: String,
    /// Whether the body ended before the event did: its data may be cut.
    pub(crate) unterminated: bool,
}

/// Why there are no further events.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FrameError<E> {
    /// The byte stream failed.
    Source(E),
    /// A field is no UTF-8: how many of its bytes are.
    Utf8 { valid_up_to: usize },
    /// An event has more bytes than are allowed.
    TooLarge { limit: usize },
    /// The body is no event stream, but an object: all of it.
    Object(Vec<u8>),
    /// The body is another protocol's, and begins so.
    Foreign(Vec<u8>),
}

pin_project_lite::pin_project! {
    /// The events of a byte stream. The first error is the last item.
    pub(crate) struct Events<S> {
        #[pin]
        source: S,
        parser: SseByteStream<Feed>,
        feed: Feed,
        counter: Counter,
        error_fields: ErrorFields,
        opening: Opening,
        phase: Phase,
        // How many lines and empty chunks were read since the last progress.
        quiet: usize,
    }
}

/// How many lines and empty chunks are read in one poll, if nothing comes of them.
pub(crate) const MAX_QUIET: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The source may have more.
    Open,
    /// An event is too large; the events before it are still in the parser.
    TooLarge,
    /// The source is at its end; what it left unterminated is still in the parser.
    Tail,
    /// Nothing more comes.
    Ended,
}

/// Ends any line and any event.
const TERMINATOR: Bytes = Bytes::from_static(b"\n\n");

impl<S> Events<S> {
    pub(crate) fn new(source: S, max_event_bytes: usize) -> Self {
        let feed = Feed::default();
        Self {
            source,
            parser: SseByteStream::new(feed.clone()),
            feed,
            counter: Counter::new(max_event_bytes),
            error_fields: ErrorFields::default(),
            opening: Opening::Unseen,
            phase: Phase::Open,
            quiet: 0,
        }
    }

    pub(crate) fn set_max_event_bytes(&mut self, limit: usize) {
        self.counter.limit = limit;
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.source
    }

    /// Something came of what was read.
    pub(crate) fn progress(self: Pin<&mut Self>) {
        *self.project().quiet = 0;
    }
}

impl<S, B, E> Stream for Events<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    type Item = Result<Event, FrameError<E>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        loop {
            if *this.phase == Phase::Ended {
                return Poll::Ready(None);
            }
            match Pin::new(&mut *this.parser).poll_next(cx) {
                Poll::Ready(Some(Ok(sse))) => {
                    let Some(data) = sse.data else { continue };
                    return Poll::Ready(Some(Ok(Event {
                        name: sse.event,
                        data,
                        unterminated: *this.phase == Phase::Tail,
                    })));
                }
                Poll::Ready(Some(Err(error))) => {
                    let tail = *this.phase == Phase::Tail;
                    *this.phase = Phase::Ended;
                    return Poll::Ready(match error {
                        // A last line without its end: the body was cut, perhaps inside of a
                        // character.
                        sse_stream::Error::Utf8Parse(_) if tail => None,
                        sse_stream::Error::Utf8Parse(error) => Some(Err(FrameError::Utf8 {
                            valid_up_to: error.valid_up_to(),
                        })),
                        // The feed never fails, and unknown fields are not looked for.
                        _ => None,
                    });
                }
                // The feed is empty, or (never) ended.
                Poll::Pending | Poll::Ready(None) => {}
            }
            match *this.phase {
                Phase::Open => {}
                Phase::TooLarge => {
                    *this.phase = Phase::Ended;
                    let limit = this.counter.limit;
                    return Poll::Ready(Some(Err(FrameError::TooLarge { limit })));
                }
                Phase::Tail | Phase::Ended => {
                    *this.phase = Phase::Ended;
                    return Poll::Ready(None);
                }
            }
            if *this.quiet > MAX_QUIET {
                // Others have to run, though this source is never pending.
                *this.quiet = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Poll::Ready(chunk) = this.source.as_mut().poll_next(cx) else {
                let Some(error) = this.opening.failed() else {
                    return Poll::Pending;
                };
                *this.phase = Phase::Ended;
                return Poll::Ready(Some(Err(error)));
            };
            match chunk {
                Some(Ok(chunk)) => {
                    let mut chunk = chunk.into();
                    *this.quiet += usize::from(chunk.is_empty());
                    let limit = this.counter.limit;
                    if this.opening.is_open() && this.opening.read(&chunk, limit) {
                        if let Some(error) = this.opening.decided(limit) {
                            *this.phase = Phase::Ended;
                            return Poll::Ready(Some(Err(error)));
                        }
                        continue;
                    }
                    match this.counter.count(&chunk) {
                        Ok(lines) => *this.quiet += lines,
                        Err(TooLarge { complete }) => {
                            // However the bytes are split, the events before the large one come out.
                            chunk.truncate(complete);
                            *this.phase = Phase::TooLarge;
                        }
                    }
                    this.feed.fill(this.error_fields.rewrite(chunk));
                }
                Some(Err(error)) => {
                    *this.phase = Phase::Ended;
                    return Poll::Ready(Some(Err(FrameError::Source(error))));
                }
                None => {
                    if let Some(error) = this.opening.ended() {
                        *this.phase = Phase::Ended;
                        return Poll::Ready(Some(Err(error)));
                    }
                    *this.phase = Phase::Tail;
                    this.feed.fill(TERMINATOR);
                }
            }
        }
    }
}

/// How a body begins. No line of an event stream begins with a brace, a bracket, a tag or a NUL: an
/// object may be the whole answer, and the others begin other protocols.
#[derive(Debug)]
enum Opening {
    /// Nothing but white space has come.
    Unseen,
    Events,
    /// An object, and what follows it.
    Object {
        seen: Vec<u8>,
        /// Where its first line ends, once that is known and if it is an object by itself.
        line: Option<Option<usize>>,
    },
    /// Another protocol: its beginning may tell of an error.
    Foreign {
        seen: Vec<u8>,
        /// How much of it is enough.
        enough: usize,
    },
}

/// How much is kept of a body that is neither an event stream nor an object, and how large an object
/// may be that is looked at for an error before the body has ended.
pub(crate) const MAX_FOREIGN: usize = 64 * 1024;
/// How much of a body of binary messages.
pub(crate) const BINARY_HEAD: usize = 16;

/// How a line of an event stream begins.
const FIELDS: [&[u8]; 6] = [b"data", b"event", b"id", b"retry", b"error:", b":"];

/// Whether a body that begins so is an event stream.
pub(crate) fn begins_like_events(body: &[u8]) -> bool {
    let begins = |field: &&[u8]| {
        let length = field.len().min(body.len());
        length > 0 && field[..length] == body[..length]
    };
    FIELDS.iter().any(begins)
}

/// Whether a byte before the first that says something is to be passed over.
pub(crate) fn is_space(byte: &u8) -> bool {
    byte.is_ascii_whitespace() || b"\xEF\xBB\xBF".contains(byte)
}

impl Opening {
    fn is_open(&self) -> bool {
        !matches!(self, Self::Events)
    }

    /// Reads a chunk; whether the body is no event stream.
    fn read(&mut self, chunk: &[u8], limit: usize) -> bool {
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

    /// What the body is, if nothing more of it needs to be known.
    fn decided<E>(&mut self, limit: usize) -> Option<FrameError<E>> {
        match self {
            Self::Foreign { seen, enough } if seen.len() >= *enough => {
                Some(FrameError::Foreign(std::mem::take(seen)))
            }
            Self::Object {
                seen,
                line: Some(Some(end)),
            } if seen[*end..].iter().any(|byte| !byte.is_ascii_whitespace()) => {
                // More of the kind follow.
                seen.truncate(*end + 1);
                Some(FrameError::Foreign(std::mem::take(seen)))
            }
            Self::Object { seen, .. } if seen.len() > limit => Some(FrameError::TooLarge { limit }),
            _ => None,
        }
    }

    /// What the body is, though nothing says that it has ended: an error, which nothing follows.
    fn failed<E>(&mut self) -> Option<FrameError<E>> {
        match self {
            Self::Object { seen, .. } if seen.len() <= MAX_FOREIGN => {
                let text = std::str::from_utf8(seen).ok()?.trim_end();
                let fails = text.ends_with('}') && is_error(text);
                fails.then(|| FrameError::Object(std::mem::take(seen)))
            }
            _ => None,
        }
    }

    /// What a body is that has ended.
    fn ended<E>(&mut self) -> Option<FrameError<E>> {
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

/// What the parser reads from: the chunk that [`Events`] put there last, and then pending.
///
/// It wakes nobody: `Events` polls the parser only after filling it, and polls its source when the
/// parser has read everything. So the parser needs to know nothing of the source or its errors,
/// which `sse_stream` would box. The lock is never contended, and taken per chunk, not per event.
#[derive(Clone, Default)]
struct Feed(Arc<Mutex<Option<Bytes>>>);

impl Feed {
    fn fill(&self, chunk: Bytes) {
        let chunk = (!chunk.is_empty()).then_some(chunk);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = chunk;
    }
}

impl Stream for Feed {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match chunk {
            Some(chunk) => Poll::Ready(Some(Ok(chunk))),
            None => Poll::Pending,
        }
    }
}

/// Counts the bytes since the last blank line; LF, CRLF and CR end a line.
struct Counter {
    limit: usize,
    bytes: usize,
    at_line_start: bool,
    after_cr: bool,
}

/// An event is too large; the events in the first `complete` bytes of the chunk are not.
#[derive(Debug, PartialEq, Eq)]
struct TooLarge {
    complete: usize,
}

impl Counter {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: 0,
            at_line_start: true,
            after_cr: false,
        }
    }

    /// Counts a chunk; gives how many lines end in it.
    fn count(&mut self, chunk: &[u8]) -> Result<usize, TooLarge> {
        let mut lines = 0;
        let mut complete = 0;
        let mut start = 0;
        while start < chunk.len() {
            if std::mem::take(&mut self.after_cr) && chunk[start] == b'\n' {
                start += 1;
                if self.bytes == 0 {
                    complete = start;
                }
                continue;
            }
            let line = &chunk[start..];
            let length = memchr::memchr2(b'\n', b'\r', line);
            match length {
                Some(0) if self.at_line_start => {
                    self.bytes = 0;
                    complete = start + 1;
                }
                Some(length) => self.bytes = self.bytes.saturating_add(length + 1),
                None => self.bytes = self.bytes.saturating_add(line.len()),
            }
            if self.bytes > self.limit {
                return Err(TooLarge { complete });
            }
            self.at_line_start = length.is_some();
            let Some(length) = length else { break };
            self.after_cr = line[length] == b'\r';
            start += length + 1;
            lines += 1;
        }
        Ok(lines)
    }
}

/// Makes an event of the field `error`, by which llama.cpp told of an error until late in 2025.
/// `data: [DONE]` may follow it, so without it a response that failed would be complete.
#[derive(Debug, Default)]
struct ErrorFields {
    in_line: bool,
    /// How many bytes of the field's name ended the last chunk, and were held back.
    held: usize,
}

impl ErrorFields {
    const FIELD: &[u8] = b"error:";

    fn rewrite(&mut self, mut chunk: Bytes) -> Bytes {
        if chunk.is_empty() {
            return chunk;
        }
        if self.held > 0 {
            chunk = [&Self::FIELD[..self.held], &chunk].concat().into();
            self.held = 0;
        }
        let last_end = memchr::memrchr2(b'\n', b'\r', &chunk);
        let last_line = last_end.map_or(0, |end| end + 1);
        let mut rewritten = Vec::new();
        let mut start = 0;
        for at in memchr::memmem::find_iter(&chunk, Self::FIELD) {
            let in_line = match at.checked_sub(1) {
                Some(before) => !matches!(chunk[before], b'\n' | b'\r'),
                None => self.in_line,
            };
            if !in_line {
                rewritten.extend_from_slice(&chunk[start..at]);
                rewritten.extend_from_slice(b"event:error\ndata:");
                start = at + Self::FIELD.len();
            }
        }
        let rest = &chunk[last_line..];
        let at_line_start = last_end.is_some() || !self.in_line;
        if at_line_start && rest.len() < Self::FIELD.len() && Self::FIELD.starts_with(rest) {
            self.held = rest.len();
        }
        self.in_line = self.held == 0 && !(at_line_start && rest.is_empty());
        chunk.truncate(chunk.len() - self.held);
        if start == 0 {
            return chunk;
        }
        rewritten.extend_from_slice(&chunk[start..]);
        rewritten.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, StreamExt, stream};

    type Decoded = (
        Vec<(Option<String>, String, bool)>,
        Option<FrameError<Infallible>>,
    );

    fn decode(chunks: impl IntoIterator<Item = Vec<u8>>, limit: usize) -> Decoded {
        let source = stream::iter(chunks.into_iter().map(Ok::<_, Infallible>));
        let items: Vec<_> = Events::new(source, limit).collect().now_or_never().unwrap();
        let mut events = Vec::new();
        let mut error = None;
        for item in items {
            assert_eq!(error, None, "an item after the error");
            match item {
                Ok(event) => events.push((event.name, event.data, event.unterminated)),
                Err(e) => error = Some(e),
            }
        }
        (events, error)
    }

    fn bytes_of(body: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        body.iter().map(|byte| vec![*byte])
    }

    #[track_caller]
    fn check(body: &[u8], events: &[(&str, &str, bool)]) {
        let events: Vec<_> = events
            .iter()
            .map(|(name, data, tail)| {
                let name = (!name.is_empty()).then(|| (*name).to_owned());
                (name, (*data).to_owned(), *tail)
            })
            .collect();
        for limit in [body.len(), usize::MAX] {
            assert_eq!(decode([body.to_vec()], limit), (events.clone(), None));
            assert_eq!(decode(bytes_of(body), limit), (events.clone(), None));
            for cut in 0..=body.len() {
                let (head, tail) = body.split_at(cut);
                let chunks = [head.to_vec(), Vec::new(), tail.to_vec()];
                assert_eq!(decode(chunks, limit), (events.clone(), None), "cut {cut}");
            }
        }
    }

    #[test]
    fn every_line_end_and_field_form() {
        check(b"", &[]);
        check(b"\n\n\r\n\r\r", &[]);
        check(
            b"data: a\n\ndata: b\n\n",
            &[("", "a", false), ("", "b", false)],
        );
        check(
            b"data: a\r\n\r\ndata: b\r\n\r\n",
            &[("", "a", false), ("", "b", false)],
        );
        check(
            b"data: a\r\rdata: b\r\r",
            &[("", "a", false), ("", "b", false)],
        );
        check(
            b"data: a\r\n\ndata: b\n\r\n",
            &[("", "a", false), ("", "b", false)],
        );
        check(b"data:a\ndata:  b\ndata\n\n", &[("", "a\n b\n", false)]);
        check(b"\xEF\xBB\xBFdata: a\n\n", &[("", "a", false)]);
        check(b"\xEF\xBB\xBF: hi\n\ndata: a\n\n", &[("", "a", false)]);
        check(b": ping\n\n:\n: ping\ndata: a\n\n", &[("", "a", false)]);
        check(
            b"event: error\nid: 1\nretry: 5\nx: y\ndata: a\n\n",
            &[("error", "a", false)],
        );
        check(b"id: 1\n\nretry: 1\n\n", &[]);
        check(
            "data: \u{1F980}\u{2028}\n\n".as_bytes(),
            &[("", "\u{1F980}\u{2028}", false)],
        );
    }

    #[test]
    fn a_field_error_is_an_event() {
        check(
            b"data: a\n\nerror: {}\n\ndata: b\n\n",
            &[("", "a", false), ("error", "{}", false), ("", "b", false)],
        );
        check(b"error:{}\r\n\r\n", &[("error", "{}", false)]);
        check(b": c\rerror: x\r\r", &[("error", "x", false)]);
        check(b"error: x", &[("error", "x", true)]);
        check(b"error\n\nerr\n\nerr", &[]);
        check(
            b"data: error: x\n\ndata:error:\nerrors: x\n\n error: x\n\n",
            &[("", "error: x", false), ("", "error:", false)],
        );
    }

    #[test]
    fn an_unterminated_event_comes_out_marked() {
        check(b"data: a", &[("", "a", true)]);
        check(b"data: a\n", &[("", "a", true)]);
        check(b"data: a\r\n", &[("", "a", true)]);
        check(b"data: a\r", &[("", "a", true)]);
        check(
            b"data: a\n\nevent: error\ndata: b",
            &[("", "a", false), ("error", "b", true)],
        );
        check(b"data: \xF0\x9F", &[]);
        check(b"data: a\n\n\xEF\xBB", &[("", "a", false)]);
    }

    #[test]
    fn invalid_utf8_is_typed_however_it_is_split() {
        let body = b"data: a\n\ndata: b\xFFc\n\ndata: d\n\n";
        let expected = (
            vec![(None, "a".to_owned(), false)],
            Some(FrameError::Utf8 { valid_up_to: 1 }),
        );
        assert_eq!(decode([body.to_vec()], 100), expected);
        assert_eq!(decode(bytes_of(body), 100), expected);
    }

    #[test]
    fn a_large_event_is_an_error_however_it_is_split() {
        for end in ["\n", "\r\n", "\r"] {
            let body = format!("data: abc{end}{end}: c{end}data: 4{end}{end}data: 12345678{end}");
            let body = body.as_bytes();
            let events = vec![
                (None, "abc".to_owned(), false),
                (None, "4".to_owned(), false),
            ];
            for limit in 12..15 {
                let expected = (events.clone(), Some(FrameError::TooLarge { limit }));
                assert_eq!(decode([body.to_vec()], limit), expected);
                assert_eq!(decode(bytes_of(body), limit), expected);
                for cut in 0..=body.len() {
                    let (head, tail) = body.split_at(cut);
                    let chunks = [head.to_vec(), tail.to_vec()];
                    assert_eq!(decode(chunks, limit), expected, "cut {cut}");
                }
            }
            let (mut all, _) = (events, ());
            all.push((None, "12345678".to_owned(), true));
            assert_eq!(decode([body.to_vec()], 15), (all.clone(), None));
            assert_eq!(decode(bytes_of(body), 15), (all, None));
        }
    }

    #[test]
    fn a_source_error_stays_typed_and_is_the_last_item() {
        let source = stream::iter([
            Ok(Bytes::from_static(b"data: a\n\ndata: lost")),
            Err("reset"),
            Ok(Bytes::from_static(b"data: b\n\n")),
        ]);
        let items: Vec<_> = Events::new(source, 100).collect().now_or_never().unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!(items[1], Err(FrameError::Source("reset")));
    }
}
