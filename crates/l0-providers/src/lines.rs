//! Lines of JSON from a byte stream, with bounded memory.
//!
//! A payload is a line, whatever ends it, and lines without anything in them are passed over. Two kinds
//! of bodies are told by their first line: an object that goes on after it, which is the whole answer and
//! is kept until the body ends, and another protocol.

use std::mem::take;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use serde_json::error::Category;

use crate::report::is_error;
use crate::sse::{
    BINARY_HEAD, Event, FrameError, MAX_FOREIGN, MAX_QUIET, begins_like_events, is_space,
};

pin_project_lite::pin_project! {
    /// The lines of a byte stream, as events without a name. The first error is the last item.
    pub(crate) struct Lines<S> {
        #[pin]
        source: S,
        reader: Reader,
        ended: bool,
        // How many lines and empty chunks were read since the last progress.
        quiet: usize,
    }
}

impl<S> Lines<S> {
    pub(crate) fn new(source: S, max_line_bytes: usize) -> Self {
        Self {
            source,
            reader: Reader {
                kind: Kind::Unseen,
                rest: Bytes::new(),
                line: Vec::new(),
                limit: max_line_bytes,
                lines: 0,
            },
            ended: false,
            quiet: 0,
        }
    }

    pub(crate) fn set_max_line_bytes(&mut self, limit: usize) {
        self.reader.limit = limit;
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.source
    }

    /// Something came of what was read.
    pub(crate) fn progress(self: Pin<&mut Self>) {
        *self.project().quiet = 0;
    }
}

impl<S, B, E> Stream for Lines<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    type Item = Result<Event, FrameError<E>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        loop {
            let item = this.reader.next();
            *this.quiet += take(&mut this.reader.lines);
            if let Some(item) = item {
                *this.ended = item.is_err();
                return Poll::Ready(Some(item));
            }
            if *this.quiet > MAX_QUIET {
                // Others have to run, though this source is never pending.
                *this.quiet = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Poll::Ready(chunk) = this.source.as_mut().poll_next(cx) else {
                let Some(event) = this.reader.failed() else {
                    return Poll::Pending;
                };
                *this.ended = true;
                return Poll::Ready(Some(Ok(event)));
            };
            match chunk {
                Some(Ok(chunk)) => {
                    this.reader.rest = chunk.into();
                    *this.quiet += usize::from(this.reader.rest.is_empty());
                }
                Some(Err(error)) => {
                    *this.ended = true;
                    return Poll::Ready(Some(Err(FrameError::Source(error))));
                }
                None => {
                    *this.ended = true;
                    return Poll::Ready(this.reader.end());
                }
            }
        }
    }
}

/// What a body is, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing but white space has come.
    Unseen,
    /// Its first line will tell.
    FirstLine,
    Lines,
    /// One object in several lines.
    Object,
    /// Another protocol, of which this many bytes are enough.
    Foreign(usize),
}

/// Takes lines out of chunks.
struct Reader {
    kind: Kind,
    /// What is unread of the last chunk.
    rest: Bytes,
    /// What has come of the line, of the object, or of another protocol.
    line: Vec<u8>,
    limit: usize,
    /// How many lines have been taken since this was looked at.
    lines: usize,
}

impl Reader {
    /// The next line that has anything in it, if the rest of the chunk has its end.
    fn next<E>(&mut self) -> Option<Result<Event, FrameError<E>>> {
        while !self.rest.is_empty() {
            match self.kind {
                Kind::Unseen => {
                    let first = self.rest.iter().position(|byte| !is_space(byte));
                    // Blank lines are lines, too.
                    self.lines += usize::from(first.is_none());
                    self.rest.advance(first.unwrap_or(self.rest.len()));
                    self.kind = match self.rest.first() {
                        None => Kind::Unseen,
                        Some(b'[') => Kind::Foreign(MAX_FOREIGN),
                        Some(b'<') => Kind::Foreign(1),
                        Some(0) => Kind::Foreign(BINARY_HEAD),
                        Some(_) => Kind::FirstLine,
                    };
                }
                Kind::Foreign(enough) => {
                    let room = self.rest.len().min(enough - self.line.len());
                    self.line.extend_from_slice(&self.rest[..room]);
                    self.rest.clear();
                    if self.line.len() >= enough {
                        return Some(Err(FrameError::Foreign(take(&mut self.line))));
                    }
                }
                Kind::Object => {
                    if let Err(error) = self.keep(self.rest.len()) {
                        return Some(Err(error));
                    }
                }
                Kind::FirstLine | Kind::Lines => {
                    let end = memchr::memchr2(b'\n', b'\r', &self.rest);
                    if let Err(error) = self.keep(end.unwrap_or(self.rest.len())) {
                        return Some(Err(error));
                    }
                    if end.is_some() {
                        self.rest.advance(1);
                        self.lines += 1;
                        if let Some(item) = self.line() {
                            return Some(item);
                        }
                    }
                }
            }
        }
        None
    }

    /// Keeps this many bytes of the chunk.
    fn keep<E>(&mut self, length: usize) -> Result<(), FrameError<E>> {
        let limit = self.limit;
        if self.line.len().saturating_add(length) > limit {
            return Err(FrameError::TooLarge { limit });
        }
        self.line.extend_from_slice(&self.rest[..length]);
        self.rest.advance(length);
        Ok(())
    }

    /// A line that has ended.
    fn line<E>(&mut self) -> Option<Result<Event, FrameError<E>>> {
        if self.kind == Kind::FirstLine {
            if begins_like_events(&self.line) {
                return Some(Err(FrameError::Foreign(take(&mut self.line))));
            }
            if goes_on(&self.line) {
                self.kind = Kind::Object;
                self.line.push(b'\n');
                return None;
            }
            self.kind = Kind::Lines;
        }
        if self.line.iter().all(u8::is_ascii_whitespace) {
            self.line.clear();
            return None;
        }
        Some(self.take(false))
    }

    fn take<E>(&mut self, unterminated: bool) -> Result<Event, FrameError<E>> {
        let data = String::from_utf8(take(&mut self.line));
        let data = data.map_err(|error| {
            let valid_up_to = error.utf8_error().valid_up_to();
            FrameError::Utf8 { valid_up_to }
        })?;
        Ok(Event {
            name: None,
            data,
            unterminated,
        })
    }

    /// What the body left without a line end. Of a body that is no more than that, nothing was cut off
    /// that could be left out.
    fn end<E>(&mut self) -> Option<Result<Event, FrameError<E>>> {
        if self.line.is_empty() {
            return None;
        }
        match self.kind {
            Kind::Lines => {
                // It may have been cut inside of a character.
                let tail = self.take::<E>(true);
                tail.ok().map(Ok)
            }
            Kind::FirstLine if !begins_like_events(&self.line) => Some(self.take(false)),
            Kind::Object => Some(self.take(false)),
            _ => Some(Err(FrameError::Foreign(take(&mut self.line)))),
        }
    }

    /// An error in place of the first line, which nothing follows, though nothing says that the body has
    /// ended.
    fn failed(&mut self) -> Option<Event> {
        if self.kind != Kind::FirstLine || self.line.len() > MAX_FOREIGN {
            return None;
        }
        let text = std::str::from_utf8(&self.line).ok()?.trim_end();
        let fails = text.ends_with('}') && is_error(text);
        fails.then(|| self.take::<()>(false).ok()).flatten()
    }
}

/// Whether a line is the beginning of an object.
fn goes_on(line: &[u8]) -> bool {
    let object = serde_json::from_slice::<serde::de::IgnoredAny>(line);
    line.starts_with(b"{") && object.is_err_and(|error| error.classify() == Category::Eof)
}
