//! Lines of JSON from a byte stream, with bounded memory.
//!
//! Each line is a payload, whatever ends it, and is read in place if one chunk has all of it. Blank lines are skipped.
//! The first line identifies two other kinds of bodies: an object that continues after it is the whole answer and is
//! kept until the body ends; anything else is another protocol.

use std::mem::take;
use std::ops::Range;
use std::pin::Pin;
use std::str::Utf8Error;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use serde_json::error::Category;

use crate::opening::{BINARY_HEAD, FrameError, MAX_FOREIGN, begins_like_events, is_space};
use crate::report::is_error;
use crate::sse::{Event, MAX_QUIET, clear};

pin_project_lite::pin_project! {
    /// The lines of a byte stream, as events without a name. The first error is the last item.
    pub(crate) struct Lines<S> {
        #[pin]
        source: S,
        reader: Reader,
        ended: bool,
        // Number of lines and empty chunks since the last progress.
        quiet: usize,
    }
}

impl<S> Lines<S> {
    pub(crate) fn new(source: S, max_line_bytes: usize) -> Self {
        Self {
            source,
            reader: Reader {
                kind: Kind::Unseen,
                chunk: Bytes::new(),
                at: 0,
                line: Vec::new(),
                found: Found::Nothing,
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

    /// Reports that a line yielded an item.
    pub(crate) fn progress(self: Pin<&mut Self>) {
        *self.project().quiet = 0;
    }

    /// Returns the line that was found last. If it is not UTF-8, nothing after it counts.
    pub(crate) fn event(&self) -> Result<Event<'_>, Utf8Error> {
        Ok(Event {
            name: "",
            data: std::str::from_utf8(self.reader.found())?,
            unterminated: self.reader.found == Found::Tail,
        })
    }
}

impl<S, B, E> Lines<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    /// Finds the next line. [`event`](Self::event) then returns it.
    pub(crate) fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(), FrameError<E>>>> {
        let mut this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        loop {
            let found = this.reader.next();
            *this.quiet += take(&mut this.reader.lines);
            match found {
                Ok(true) => return Poll::Ready(Some(Ok(()))),
                Ok(false) => {}
                Err(error) => {
                    *this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
            if *this.quiet > MAX_QUIET {
                // Other tasks must run, even if this source is never pending.
                *this.quiet = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Poll::Ready(chunk) = this.source.as_mut().poll_next(cx) else {
                if !this.reader.failed() {
                    return Poll::Pending;
                }
                *this.ended = true;
                return Poll::Ready(Some(Ok(())));
            };
            match chunk {
                Some(Ok(chunk)) => {
                    let chunk = chunk.into();
                    *this.quiet += usize::from(chunk.is_empty());
                    this.reader.fill(chunk);
                }
                Some(Err(error)) => {
                    *this.ended = true;
                    return Poll::Ready(Some(Err(FrameError::Source(error))));
                }
                None => {
                    *this.ended = true;
                    return Poll::Ready(match this.reader.end() {
                        Ok(found) => found.then_some(Ok(())),
                        Err(error) => Some(Err(error)),
                    });
                }
            }
        }
    }
}

/// The kind of a body, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Only white space so far.
    Unseen,
    /// The first line will decide.
    FirstLine,
    Lines,
    /// One object in several lines.
    Object,
    /// Another protocol, of which this many bytes are kept.
    Foreign(usize),
}

/// The location of the line that was found last.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Nothing,
    Chunk(Range<usize>),
    /// Spread over several chunks.
    Kept,
    /// Spread over several chunks, and cut by the end of the body.
    Tail,
}

/// Extracts lines from chunks.
struct Reader {
    kind: Kind,
    chunk: Bytes,
    /// Number of bytes read from the chunk.
    at: usize,
    /// The part of the line in earlier chunks, or all of it once it is found. Otherwise the bytes so far of the object
    /// or of another protocol.
    line: Vec<u8>,
    found: Found,
    limit: usize,
    /// Number of lines since the last yield.
    lines: usize,
}

impl Reader {
    /// Takes the next chunk, after the previous one has been read.
    fn fill(&mut self, chunk: Bytes) {
        self.chunk = chunk;
        self.at = 0;
    }

    fn found(&self) -> &[u8] {
        match &self.found {
            Found::Nothing => &[],
            Found::Chunk(place) => &self.chunk[place.clone()],
            Found::Kept | Found::Tail => &self.line,
        }
    }

    /// Reads up to the end of a line that is not blank. Returns `true` if this chunk has one.
    fn next<E>(&mut self) -> Result<bool, FrameError<E>> {
        if std::mem::replace(&mut self.found, Found::Nothing) == Found::Kept {
            clear(&mut self.line);
        }
        while self.at < self.chunk.len() {
            let rest = &self.chunk[self.at..];
            match self.kind {
                Kind::Unseen => {
                    let first = rest.iter().position(|byte| !is_space(byte));
                    // Blank lines are lines too.
                    self.lines += usize::from(first.is_none());
                    self.at += first.unwrap_or(rest.len());
                    self.kind = match self.chunk.get(self.at) {
                        None => Kind::Unseen,
                        Some(b'[') => Kind::Foreign(MAX_FOREIGN),
                        Some(b'<') => Kind::Foreign(1),
                        Some(0) => Kind::Foreign(BINARY_HEAD),
                        Some(_) => Kind::FirstLine,
                    };
                }
                Kind::Foreign(enough) => {
                    let room = rest.len().min(enough - self.line.len());
                    self.line.extend_from_slice(&rest[..room]);
                    self.at = self.chunk.len();
                    if self.line.len() >= enough {
                        return Err(FrameError::Foreign(take(&mut self.line)));
                    }
                }
                Kind::Object => self.keep(rest.len())?,
                Kind::FirstLine | Kind::Lines => {
                    let Some(length) = memchr::memchr2(b'\n', b'\r', rest) else {
                        self.keep(rest.len())?;
                        continue;
                    };
                    self.lines += 1;
                    if self.line(length)? {
                        return Ok(true);
                    }
                }
            }
        }
        self.fill(Bytes::new());
        Ok(false)
    }

    /// Fails if this many more bytes exceed the limit.
    fn check<E>(&self, length: usize) -> Result<(), FrameError<E>> {
        let limit = self.limit;
        match self.line.len().saturating_add(length) > limit {
            true => Err(FrameError::TooLarge { limit }),
            false => Ok(()),
        }
    }

    /// Keeps this many bytes of the chunk.
    fn keep<E>(&mut self, length: usize) -> Result<(), FrameError<E>> {
        self.check(length)?;
        let end = self.at + length;
        self.line.extend_from_slice(&self.chunk[self.at..end]);
        self.at = end;
        Ok(())
    }

    /// Reads a line that ends after this many bytes of the chunk. Returns `true` if it is not blank.
    fn line<E>(&mut self, length: usize) -> Result<bool, FrameError<E>> {
        if self.kind == Kind::Lines && self.line.is_empty() {
            self.check(length)?;
            let place = self.at..self.at + length;
            self.at = place.end + 1;
            let is_blank = is_blank(&self.chunk[place.clone()]);
            if !is_blank {
                self.found = Found::Chunk(place);
            }
            return Ok(!is_blank);
        }
        self.keep(length)?;
        self.at += 1;
        if self.kind == Kind::FirstLine {
            if begins_like_events(&self.line) {
                return Err(FrameError::Foreign(take(&mut self.line)));
            }
            if is_open_object(&self.line) {
                self.kind = Kind::Object;
                self.line.push(b'\n');
                return Ok(false);
            }
            self.kind = Kind::Lines;
        }
        let is_blank = is_blank(&self.line);
        if is_blank {
            clear(&mut self.line);
        } else {
            self.found = Found::Kept;
        }
        Ok(!is_blank)
    }

    /// Handles the end of the body. Returns `true` if it leaves a line without a line end. If that line is all there
    /// is, nothing was cut off.
    fn end<E>(&mut self) -> Result<bool, FrameError<E>> {
        if self.line.is_empty() {
            return Ok(false);
        }
        self.found = match self.kind {
            // The end may have cut a character.
            Kind::Lines if std::str::from_utf8(&self.line).is_err() => return Ok(false),
            Kind::Lines => Found::Tail,
            Kind::FirstLine if !begins_like_events(&self.line) => Found::Kept,
            Kind::Object => Found::Kept,
            _ => return Err(FrameError::Foreign(take(&mut self.line))),
        };
        Ok(true)
    }

    /// Returns `true` if an error stands in place of the first line. Nothing follows it, so the end of the body need
    /// not be awaited.
    fn failed(&mut self) -> bool {
        if self.kind != Kind::FirstLine || self.line.len() > MAX_FOREIGN {
            return false;
        }
        let text = std::str::from_utf8(&self.line).map(str::trim_end);
        let fails = text.is_ok_and(|text| text.ends_with('}') && is_error(text));
        if fails {
            self.found = Found::Kept;
        }
        fails
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// Returns `true` if a line is the start of an object that continues after it.
fn is_open_object(line: &[u8]) -> bool {
    let object = serde_json::from_slice::<serde::de::IgnoredAny>(line);
    line.starts_with(b"{") && object.is_err_and(|error| error.classify() == Category::Eof)
}
