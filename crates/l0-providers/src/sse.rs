//! Server-sent events from a byte stream, with bounded memory.
//!
//! Events are read in place: their fields are ranges of the chunk, and are copied only if the chunk ends before the
//! event does. This module also
//!
//! - counts the bytes since the last event boundary, so an endless event cannot fill the memory;
//! - keeps the source's own error typed;
//! - completes a last event that the body left unterminated, marked as such;
//! - reads a field `error` as an event of that name;
//! - yields to the executor now and then while its reading yields nothing.

use std::ops::Range;
use std::pin::Pin;
use std::str::Utf8Error;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use crate::opening::{FrameError, Opening};

/// One event with data, valid until more is read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// The event's name; empty if it has none.
    pub(crate) name: &'a str,
    /// The event's data, with its lines joined by LF.
    pub(crate) data: &'a str,
    /// `true` if the body ended before the event did: its data may be cut.
    pub(crate) unterminated: bool,
}

pin_project_lite::pin_project! {
    /// The events of a byte stream. The first error is the last item.
    pub(crate) struct Events<S> {
        #[pin]
        source: S,
        reader: Reader,
        opening: Opening,
        phase: Phase,
        // Number of lines and empty chunks since the last progress.
        quiet: usize,
    }
}

/// Limit on lines and empty chunks in one poll that yields nothing.
pub(crate) const MAX_QUIET: usize = 128;

/// Limit on the capacity of a buffer that is kept for the next event.
pub(crate) const MAX_KEPT: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The source may have more.
    Open,
    /// The source has ended, and its unterminated rest has been read.
    Tail,
    /// The stream has ended.
    Ended,
}

impl<S> Events<S> {
    pub(crate) fn new(source: S, max_event_bytes: usize) -> Self {
        Self {
            source,
            reader: Reader::new(max_event_bytes),
            opening: Opening::Unseen,
            phase: Phase::Open,
            quiet: 0,
        }
    }

    pub(crate) fn set_max_event_bytes(&mut self, limit: usize) {
        self.reader.limit = limit;
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.source
    }

    /// Reports that an event yielded an item.
    pub(crate) fn progress(self: Pin<&mut Self>) {
        *self.project().quiet = 0;
    }

    /// Returns the event that was found last. If it is not UTF-8, nothing after it counts.
    pub(crate) fn event(&self) -> Result<Event<'_>, Utf8Error> {
        Ok(Event {
            name: self.reader.name()?,
            data: self.reader.data()?,
            unterminated: self.phase == Phase::Tail,
        })
    }
}

impl<S, B, E> Events<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    /// Finds the next event with data. [`event`](Self::event) then returns it.
    pub(crate) fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(), FrameError<E>>>> {
        let mut this = self.project();
        let error = loop {
            if *this.phase != Phase::Open {
                *this.phase = Phase::Ended;
                return Poll::Ready(None);
            }
            let found = this.reader.next();
            *this.quiet += std::mem::take(&mut this.reader.lines);
            match found {
                Ok(true) => return Poll::Ready(Some(Ok(()))),
                Ok(false) => {}
                Err(error) => break error,
            }
            if *this.quiet > MAX_QUIET {
                // Other tasks must run, even if this source is never pending.
                *this.quiet = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Poll::Ready(chunk) = this.source.as_mut().poll_next(cx) else {
                match this.opening.failed() {
                    Some(error) => break error,
                    None => return Poll::Pending,
                }
            };
            match chunk {
                Some(Ok(chunk)) => {
                    let chunk = chunk.into();
                    *this.quiet += usize::from(chunk.is_empty());
                    let limit = this.reader.limit;
                    if this.opening.is_open() && this.opening.read(&chunk, limit) {
                        match this.opening.decided(limit) {
                            Some(error) => break error,
                            None => continue,
                        }
                    }
                    this.reader.fill(chunk);
                }
                Some(Err(error)) => break FrameError::Source(error),
                None => {
                    if let Some(error) = this.opening.ended() {
                        break error;
                    }
                    *this.phase = Phase::Tail;
                    if this.reader.end() {
                        return Poll::Ready(Some(Ok(())));
                    }
                }
            }
        };
        *this.phase = Phase::Ended;
        Poll::Ready(Some(Err(error)))
    }
}

/// Extracts events from chunks. LF, CRLF and CR end a line, and an empty line ends an event.
struct Reader {
    limit: usize,
    chunk: Bytes,
    /// Number of bytes read from the chunk.
    at: usize,
    /// The part of the line in earlier chunks, or all of it while its data is in use.
    line: Vec<u8>,
    /// Number of bytes in the lines of the event since the last empty line.
    bytes: usize,
    after_cr: bool,
    is_first_line: bool,
    name: Name,
    data: Data,
    /// Text that is in neither the chunk nor the line.
    own_name: String,
    own_data: String,
    /// Number of lines since the last yield.
    lines: usize,
}

/// The location of an event's name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    None,
    /// The name is `error`.
    Error,
    Chunk(Range<usize>),
    Own,
}

/// The location of an event's data.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Data {
    None,
    Chunk(Range<usize>),
    Line(Range<usize>),
    Own,
}

/// The fields of a line.
enum Field {
    Data,
    Name,
    /// llama.cpp reported errors in this field until late 2025. `data: [DONE]` may follow, so ignoring it would make a
    /// failed response complete.
    Error,
    /// Must be text, and is ignored.
    Other,
}

/// Returns a line's field and the start of its value; `None` for any other line.
fn field(line: &[u8]) -> Option<(Field, usize)> {
    const NAMES: [(&[u8], Field); 5] = [
        (b"data", Field::Data),
        (b"event", Field::Name),
        (b"error", Field::Error),
        (b"id", Field::Other),
        (b"retry", Field::Other),
    ];
    for (name, field) in NAMES {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        return match rest {
            [b':', b' ', ..] => Some((field, name.len() + 2)),
            [b':', ..] => Some((field, name.len() + 1)),
            [] if !matches!(field, Field::Error) => Some((field, name.len())),
            _ => None,
        };
    }
    None
}

impl Reader {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            chunk: Bytes::new(),
            at: 0,
            line: Vec::new(),
            bytes: 0,
            after_cr: false,
            is_first_line: true,
            name: Name::None,
            data: Data::None,
            own_name: String::new(),
            own_data: String::new(),
            lines: 0,
        }
    }

    /// Takes the next chunk, after the previous one has been read.
    fn fill(&mut self, chunk: Bytes) {
        self.chunk = chunk;
        self.at = 0;
    }

    /// Reads up to the end of an event with data. Returns `true` if this chunk has one.
    fn next<E>(&mut self) -> Result<bool, FrameError<E>> {
        if self.bytes == 0 {
            // The previous event has been used.
            self.clear();
        }
        loop {
            let rest = &self.chunk[self.at..];
            let Some(&first) = rest.first() else {
                self.keep(0)?;
                return Ok(false);
            };
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                self.at += 1;
                continue;
            }
            let end = match first {
                b'\n' | b'\r' => Some(0),
                _ => memchr::memchr2(b'\n', b'\r', rest),
            };
            let Some(length) = end else {
                self.keep(rest.len())?;
                return Ok(false);
            };
            self.after_cr = rest[length] == b'\r';
            self.lines += 1;
            let start = self.at;
            self.at += length + 1;
            let continued = !self.line.is_empty() && !matches!(self.data, Data::Line(_));
            if length == 0 && !continued {
                self.bytes = 0;
                self.is_first_line = false;
                if self.data != Data::None {
                    return Ok(true);
                }
                self.name()?;
                self.clear();
                continue;
            }
            // The error that is found must not depend on how the body is split: the first one counts.
            self.name()?;
            self.data()?;
            let before = if continued { self.line.len() } else { 0 };
            self.count(before + length + 1)?;
            if continued {
                self.line
                    .extend_from_slice(&self.chunk[start..start + length]);
                self.kept_line()?;
            } else {
                self.line_in_chunk(start..start + length)?;
            }
        }
    }

    /// Adds the bytes of a line to those of the event.
    fn count<E>(&mut self, length: usize) -> Result<(), FrameError<E>> {
        self.bytes = self.bytes.saturating_add(length);
        self.check(0)
    }

    fn check<E>(&self, more: usize) -> Result<(), FrameError<E>> {
        let limit = self.limit;
        match self.bytes.saturating_add(more) > limit {
            true => Err(FrameError::TooLarge { limit }),
            false => Ok(()),
        }
    }

    /// Releases the chunk, and keeps this many bytes of it as the start or a part of a line.
    fn keep<E>(&mut self, length: usize) -> Result<(), FrameError<E>> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        if let Name::Chunk(place) = &self.name {
            let name = std::str::from_utf8(&self.chunk[place.clone()])?;
            name.clone_into(&mut self.own_name);
            self.name = Name::Own;
        }
        self.own_data()?;
        self.check(self.line.len() + length)?;
        let rest = self.chunk.len() - length;
        self.line.extend_from_slice(&self.chunk[rest..]);
        self.fill(Bytes::new());
        Ok(())
    }

    /// Reads a line within the chunk.
    fn line_in_chunk<E>(&mut self, place: Range<usize>) -> Result<(), FrameError<E>> {
        let start = place.start + self.begin(|reader| &reader.chunk[place.clone()]);
        let Some((field, value)) = field(&self.chunk[start..place.end]) else {
            return Ok(());
        };
        let value = start + value..place.end;
        match field {
            Field::Data | Field::Error => {
                if matches!(field, Field::Error) {
                    self.name = Name::Error;
                }
                if self.data == Data::None {
                    self.data = Data::Chunk(value);
                    return Ok(());
                }
                self.own_data()?;
                let value = std::str::from_utf8(&self.chunk[value])?;
                self.own_data.push('\n');
                self.own_data.push_str(value);
            }
            Field::Name => self.name = Name::Chunk(value),
            Field::Other => {
                std::str::from_utf8(&self.chunk[value])?;
            }
        }
        Ok(())
    }

    /// Reads a line that spans several chunks.
    fn kept_line<E>(&mut self) -> Result<(), FrameError<E>> {
        let start = self.begin(|reader| &reader.line);
        let field = field(&self.line[start..]);
        if let Some((field, value)) = field {
            let value = start + value..self.line.len();
            match field {
                Field::Data | Field::Error => {
                    if matches!(field, Field::Error) {
                        self.name = Name::Error;
                    }
                    if self.data == Data::None {
                        self.data = Data::Line(value);
                        // The data stays in the line.
                        return Ok(());
                    }
                    let value = std::str::from_utf8(&self.line[value])?;
                    self.own_data.push('\n');
                    self.own_data.push_str(value);
                }
                Field::Name => {
                    let value = std::str::from_utf8(&self.line[value])?;
                    value.clone_into(&mut self.own_name);
                    self.name = Name::Own;
                }
                Field::Other => {
                    std::str::from_utf8(&self.line[value])?;
                }
            }
        }
        clear(&mut self.line);
        Ok(())
    }

    /// Returns the length of the byte order mark of the first line; 0 for other lines.
    fn begin(&mut self, line: impl Fn(&Self) -> &[u8]) -> usize {
        const MARK: &[u8] = b"\xEF\xBB\xBF";

        let is_marked = std::mem::take(&mut self.is_first_line) && line(self).starts_with(MARK);
        if is_marked { MARK.len() } else { 0 }
    }

    /// Copies the data, if any, out of the chunk or the line.
    fn own_data(&mut self) -> Result<(), Utf8Error> {
        match &self.data {
            Data::None | Data::Own => return Ok(()),
            Data::Chunk(place) => {
                let data = std::str::from_utf8(&self.chunk[place.clone()])?;
                self.own_data.push_str(data);
            }
            Data::Line(place) => {
                let mut line = std::mem::take(&mut self.line);
                line.drain(..place.start);
                self.own_data = String::from_utf8(line).map_err(|error| error.utf8_error())?;
            }
        }
        self.data = Data::Own;
        Ok(())
    }

    /// Handles the end of the body. Returns `true` if it leaves an event with data. Data that is cut inside a character
    /// does not count.
    fn end(&mut self) -> bool {
        let is_text = self.line.is_empty() || self.kept_line::<()>().is_ok();
        is_text && self.data != Data::None && self.data().is_ok()
    }

    fn name(&self) -> Result<&str, Utf8Error> {
        match &self.name {
            Name::None => Ok(""),
            Name::Error => Ok("error"),
            Name::Chunk(place) => std::str::from_utf8(&self.chunk[place.clone()]),
            Name::Own => Ok(&self.own_name),
        }
    }

    fn data(&self) -> Result<&str, Utf8Error> {
        match &self.data {
            Data::None => Ok(""),
            Data::Chunk(place) => std::str::from_utf8(&self.chunk[place.clone()]),
            Data::Line(place) => std::str::from_utf8(&self.line[place.clone()]),
            Data::Own => Ok(&self.own_data),
        }
    }

    /// Begins the next event.
    fn clear(&mut self) {
        if std::mem::replace(&mut self.name, Name::None) == Name::Own
            && self.own_name.capacity() > MAX_KEPT
        {
            self.own_name = String::new();
        }
        match std::mem::replace(&mut self.data, Data::None) {
            Data::None | Data::Chunk(_) => {}
            Data::Line(_) => clear(&mut self.line),
            Data::Own if self.own_data.capacity() > MAX_KEPT => self.own_data = String::new(),
            Data::Own => self.own_data.clear(),
        }
    }
}

/// Empties a buffer, and keeps its memory unless there is much of it.
pub(crate) fn clear(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > MAX_KEPT {
        *buffer = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::pin;
    use std::task::Waker;

    use futures_util::{FutureExt, StreamExt, stream};
    use proptest::prelude::*;
    use sse_stream::SseByteStream;

    use super::*;

    /// Events as name, data and a flag for a missing end, and the error after them.
    type Decoded<E = Infallible> = (Vec<(Option<String>, String, bool)>, Option<FrameError<E>>);

    fn decode(chunks: impl IntoIterator<Item = Vec<u8>>, limit: usize) -> Decoded {
        read(chunks.into_iter().map(Ok), limit)
    }

    fn read<E>(chunks: impl Iterator<Item = Result<Vec<u8>, E>>, limit: usize) -> Decoded<E> {
        let mut events = pin!(Events::new(stream::iter(chunks), limit));
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        loop {
            let error = match events.as_mut().poll_next(&mut cx) {
                Poll::Pending => continue,
                Poll::Ready(None) => return (all, None),
                Poll::Ready(Some(Err(error))) => error,
                Poll::Ready(Some(Ok(()))) => match events.event() {
                    Err(error) => return (all, Some(error.into())),
                    Ok(event) => {
                        let name = (!event.name.is_empty()).then(|| event.name.to_owned());
                        all.push((name, event.data.to_owned(), event.unterminated));
                        continue;
                    }
                },
            };
            let after = events.as_mut().poll_next(&mut cx);
            assert!(
                matches!(after, Poll::Ready(None)),
                "an item after the error"
            );
            return (all, Some(error));
        }
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
        let chunks = [
            Ok(b"data: a\n\ndata: lost".to_vec()),
            Err("reset"),
            Ok(b"data: b\n\n".to_vec()),
        ];
        let (events, error) = read(chunks.into_iter(), 100);
        assert_eq!(events.len(), 1);
        assert_eq!(error, Some(FrameError::Source("reset")));
    }

    /// Returns the events that another parser finds in a body whose last event is terminated.
    fn expected(body: &[u8]) -> Decoded {
        let body = Bytes::copy_from_slice(body);
        let source = stream::iter([Ok::<_, Infallible>(body)]);
        let all: Vec<_> = SseByteStream::new(source).collect().now_or_never().unwrap();
        let mut events = Vec::new();
        for item in all {
            match item {
                Ok(event) => {
                    let name = event.event.filter(|name| !name.is_empty());
                    events.extend(event.data.map(|data| (name, data, false)));
                }
                Err(sse_stream::Error::Utf8Parse(error)) => {
                    return (events, Some(error.into()));
                }
                Err(error) => panic!("{error}"),
            }
        }
        (events, None)
    }

    /// Pieces from which bodies are built.
    const PIECES: [&[u8]; 25] = [
        b"data: a",
        b"data:b",
        b"data",
        b"data: ",
        b"data: \xC3\xBC\xF0\x9F\xA6\x80",
        b"dat",
        b"event: x",
        b"data: a\xFF\n",
        b"event: ab\xFF\n",
        b"id: abc\xFF\n",
        b"event:",
        b"event",
        b"id: 1",
        b"retry: 5",
        b": c",
        b"other: d",
        b" data: e",
        b"x",
        b"\xFF",
        b"\xEF\xBB\xBF",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\r\n\r\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// However a body is split, its events are the ones that another parser finds in the whole.
        #[test]
        fn events_are_those_of_another_parser(
            pieces in proptest::collection::vec(0..PIECES.len(), 0..30),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let mut body: Vec<u8> = pieces.into_iter().flat_map(|at| PIECES[at]).copied().collect();
            body.extend_from_slice(b"\n\n");
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|cut| body[cut[0]..cut[1]].to_vec());
            let expected = expected(&body);
            let decode = |chunks: Vec<Vec<u8>>| decode(chunks, usize::MAX);
            prop_assert_eq!(&decode(vec![body.clone()]), &expected);
            prop_assert_eq!(&decode(chunks.collect()), &expected);
            prop_assert_eq!(&decode(bytes_of(&body).collect()), &expected);
        }
    }
}
