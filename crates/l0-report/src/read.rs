//! Reader: reads JSON Lines on several threads, in the order of the input.

use std::io::{self, BufRead, Read};
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use l0_core::Telemetry;
use l0_export::json::{LineError, Lines, read_lines};

use crate::filter::Filter;

/// The size of a chunk, in bytes: a few hundred lines, whose telemetry fits into a core's cache.
const CHUNK: usize = 256 * 1024;

/// Reads runs from JSON Lines, as [`json::write_line`](l0_export::json::write_line) writes them, on several
/// threads.
///
/// Lines are parsed in parallel. Their runs are visited one after another, in the order of the input, so the
/// result does not depend on the number of threads. Memory use does not depend on the length of the input or
/// of a line.
///
/// ```
/// use l0_report::{Profile, Reader};
///
/// # let mut input = Vec::new();
/// # l0_export::json::write_line(&mut input, &l0_core::Telemetry::example())?;
/// # let input = &input[..];
/// let mut profile = Profile::new().group_by("model");
/// let reading = Reader::new()
///     .filter(["outcome=completed".parse()?, "duration>1s".parse()?])
///     .read(input, &mut |run| profile.add(run));
/// println!("{profile}");
/// println!("{} of {} runs", reading.matched, reading.runs);
/// for reason in reading.reasons() {
///     eprintln!("{reason}"); // the position of the line and what is wrong, without quoting it
/// }
/// # assert_eq!((reading.matched, reading.runs), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Reader {
    filter: Filter,
    threads: NonZero<usize>,
    chunk: usize,
}

/// The result of reading an input.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Reading {
    /// The number of runs that were read, including runs that the filter excluded.
    pub runs: u64,
    /// The number of runs that match the filter.
    pub matched: u64,
    /// The number of skipped lines: broken, too long, or not a telemetry.
    pub skipped: u64,
    /// The number of the last skipped line, from 1. Absent if no line was skipped.
    pub last_skipped: Option<u64>,
    /// The errors of the first [`MAX_ERRORS`](Self::MAX_ERRORS) skipped lines.
    pub errors: Vec<LineError>,
    /// The error that ended reading early. Absent if the whole input was read.
    pub failure: Option<LineError>,
}

impl Reading {
    /// The maximum number of errors that are kept.
    pub const MAX_ERRORS: usize = 10;

    /// Returns the texts of the [`errors`](Self::errors), and of the [`failure`](Self::failure) with its cause. Each
    /// states its position, and quotes nothing.
    pub fn reasons(&self) -> impl Iterator<Item = String> {
        let errors = self.errors.iter().chain(&self.failure);
        errors.map(|error| match error {
            LineError::Io { source, .. } => format!("{error}: {source}"),
            // The cause may quote the line, and the text already says what is wrong.
            error => error.to_string(),
        })
    }

    fn skip(&mut self, error: LineError) {
        if matches!(error, LineError::Io { .. }) {
            self.failure = Some(error);
            return;
        }
        self.skipped = self.skipped.saturating_add(1);
        self.last_skipped = Some(error.line());
        if self.errors.len() < Self::MAX_ERRORS {
            self.errors.push(error);
        }
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// Creates a reader of all runs, with a thread for each core.
    pub fn new() -> Self {
        Self {
            filter: Filter::new(),
            threads: thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
            chunk: CHUNK,
        }
    }

    /// Sets the filter of runs. By default, all runs match.
    pub fn filter(mut self, filter: impl Into<Filter>) -> Self {
        self.filter = filter.into();
        self
    }

    /// Sets the number of threads that parse lines. By default, the number of cores available to the process.
    /// A short input uses one thread.
    pub const fn threads(mut self, threads: NonZero<usize>) -> Self {
        self.threads = threads;
        self
    }

    /// Reads an input to its end, and calls `visit` with each run that matches the filter, in the order
    /// of the input.
    ///
    /// Several threads call `visit`, one at a time. Other threads continue to parse meanwhile, so `visit` is cheap
    /// as long as it is faster than parsing.
    ///
    /// # Panics
    ///
    /// Panics if `visit` panics.
    pub fn read(
        &self,
        input: impl Read + Send,
        visit: &mut (dyn FnMut(&Telemetry) + Send),
    ) -> Reading {
        let mut first = Chunk::default();
        let mut chunks = Chunks::new(input, self.chunk);
        if !chunks.next(&mut first) {
            return Reading::default();
        }
        let threads = if chunks.ended { 1 } else { self.threads.get() };
        let work = Work {
            filter: &self.filter,
            chunks: Mutex::new(chunks),
            turn: Mutex::new(Turn {
                chunk: 0,
                visit,
                reading: Reading::default(),
                is_broken: false,
            }),
            is_next: Condvar::new(),
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| work.run(None));
            }
            work.run(Some(first));
        });
        let turn = work.turn.into_inner();
        turn.unwrap_or_else(PoisonError::into_inner).reading
    }
}

/// The state that the threads share.
struct Work<'a, R> {
    filter: &'a Filter,
    chunks: Mutex<Chunks<R>>,
    turn: Mutex<Turn<'a>>,
    is_next: Condvar,
}

/// The state that one thread owns at a time.
struct Turn<'a> {
    /// The number of the chunk that is next.
    chunk: u64,
    visit: &'a mut (dyn FnMut(&Telemetry) + Send),
    reading: Reading,
    /// `true` if a thread panicked, so its turn never ends.
    is_broken: bool,
}

impl<R: Read> Work<'_, R> {
    /// Reads chunks until the input ends, beginning with this one.
    fn run(&self, first: Option<Chunk>) {
        let _wake = WakeOnPanic {
            turn: &self.turn,
            is_next: &self.is_next,
        };
        let mut has_first = first.is_some();
        let mut chunk = first.unwrap_or_default();
        let mut runs = Vec::new();
        let mut errors = Vec::new();
        loop {
            if !has_first && !locked(&self.chunks).next(&mut chunk) {
                return;
            }
            has_first = false;
            let number = chunk.number;
            let mut read = 0;
            let (line, offset) = (chunk.lines_before, chunk.offset);
            for telemetry in read_lines(&mut chunk).starting_after(line, offset) {
                match telemetry {
                    Ok(telemetry) => {
                        read += 1;
                        if self.filter.matches(&telemetry) {
                            runs.push(telemetry);
                        }
                    }
                    Err(error) => errors.push(error),
                }
            }

            let mut turn = locked(&self.turn);
            while turn.chunk != number {
                if turn.is_broken {
                    return;
                }
                let woken = self.is_next.wait(turn);
                turn = woken.unwrap_or_else(PoisonError::into_inner);
            }
            turn.reading.runs += read;
            turn.reading.matched += runs.len() as u64;
            for run in &runs {
                (turn.visit)(run);
            }
            errors.drain(..).for_each(|error| turn.reading.skip(error));
            turn.chunk += 1;
            drop(turn);
            self.is_next.notify_all();
            // Freed by the allocating thread, outside the lock.
            runs.clear();
        }
    }
}

/// Wakes the threads that wait for their turn if this thread panics, because its turn would never end.
struct WakeOnPanic<'w, 'a> {
    turn: &'w Mutex<Turn<'a>>,
    is_next: &'w Condvar,
}

impl Drop for WakeOnPanic<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            locked(self.turn).is_broken = true;
            self.is_next.notify_all();
        }
    }
}

/// Locks a mutex. State that a panicking thread left behind is either consistent or not used again.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whole lines in sequence, with their position.
#[derive(Default)]
struct Chunk {
    number: u64,
    bytes: Vec<u8>,
    /// The number of bytes that were read.
    read: usize,
    lines_before: u64,
    /// The number of bytes of the input before this chunk.
    offset: u64,
    /// The error that ended the input.
    error: Option<io::Error>,
}

impl Read for &mut Chunk {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(to)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for &mut Chunk {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.read == self.bytes.len() {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
        }
        Ok(&self.bytes[self.read..])
    }

    fn consume(&mut self, read: usize) {
        self.read += read;
    }
}

/// An input in chunks.
struct Chunks<R> {
    input: R,
    size: usize,
    /// The bytes after the last line end.
    rest: Vec<u8>,
    /// The number of the next chunk.
    number: u64,
    lines: u64,
    offset: u64,
    ended: bool,
}

impl<R: Read> Chunks<R> {
    fn new(input: R, size: usize) -> Self {
        Self {
            input,
            size,
            rest: Vec::new(),
            number: 0,
            lines: 0,
            offset: 0,
            ended: false,
        }
    }

    /// Reads the next chunk into `chunk`. Returns `true` if there is one.
    fn next(&mut self, chunk: &mut Chunk) -> bool {
        if self.ended {
            return false;
        }
        chunk.number = self.number;
        chunk.lines_before = self.lines;
        chunk.offset = self.offset;
        chunk.read = 0;
        chunk.bytes.clear();
        chunk.bytes.append(&mut self.rest);
        // The rest of a line that was too long can contain line ends.
        let mut searched = 0;
        loop {
            let mut more = Read::by_ref(&mut self.input).take(self.size as u64);
            match more.read_to_end(&mut chunk.bytes) {
                Ok(read) if read == self.size => {}
                Ok(_) => self.ended = true,
                Err(error) => {
                    chunk.error = Some(error);
                    self.ended = true;
                }
            }
            if self.ended {
                break;
            }
            if let Some(end) = memchr::memrchr(b'\n', &chunk.bytes[searched..]) {
                let end = searched + end + 1;
                self.rest.extend_from_slice(&chunk.bytes[end..]);
                chunk.bytes.truncate(end);
                break;
            }
            searched = chunk.bytes.len();
            if chunk.bytes.len() > Lines::<()>::MAX_LINE {
                // These bytes suffice to report that the line is too long.
                match self.skip_line() {
                    Ok(skipped) => self.offset += skipped,
                    Err(error) => {
                        chunk.error = Some(error);
                        self.ended = true;
                    }
                }
                break;
            }
        }
        self.number += 1;
        self.offset += chunk.bytes.len() as u64;
        self.lines += memchr::memchr_iter(b'\n', &chunk.bytes).count() as u64;
        !(chunk.bytes.is_empty() && chunk.error.is_none())
    }

    /// Reads to the end of the line, and returns the number of skipped bytes.
    fn skip_line(&mut self) -> io::Result<u64> {
        let mut block = vec![0; self.size];
        let mut skipped = 0;
        loop {
            match self.input.read(&mut block) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(skipped);
                }
                Ok(read) => {
                    if let Some(end) = memchr::memchr(b'\n', &block[..read]) {
                        self.rest.extend_from_slice(&block[end + 1..read]);
                        self.lines += 1;
                        return Ok(skipped + end as u64 + 1);
                    }
                    skipped += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use proptest::prelude::*;

    use super::*;

    /// Returns bytes in pieces of these lengths, repeatedly, and at the end an optional error.
    struct Pieces<'a> {
        bytes: &'a [u8],
        lengths: std::iter::Cycle<std::vec::IntoIter<usize>>,
        error: Option<io::Error>,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            if self.bytes.is_empty() {
                return self.error.take().map_or(Ok(0), Err);
            }
            let length = self.lengths.next().unwrap_or(1).max(1);
            let length = length.min(to.len()).min(self.bytes.len());
            self.bytes.read(&mut to[..length])
        }
    }

    fn pieces(bytes: &[u8], lengths: Vec<usize>) -> Pieces<'_> {
        Pieces {
            bytes,
            lengths: lengths.into_iter().cycle(),
            error: None,
        }
    }

    /// Returns the ids in their order, and the reports on lines.
    fn read(reader: &Reader, input: impl Read + Send) -> (Vec<String>, Vec<String>, u64, u64) {
        let mut ids = Vec::new();
        let reading = reader.read(input, &mut |run| ids.push(run.session_id.clone()));
        assert_eq!(reading.matched, ids.len() as u64);
        let errors = reading.reasons().collect();
        (
            ids,
            errors,
            reading.skipped,
            reading.last_skipped.unwrap_or(0),
        )
    }

    /// Returns the same from the sequential reader.
    fn sequential(input: impl Read) -> (Vec<String>, Vec<String>, u64, u64) {
        let (mut ids, mut errors, mut skipped, mut last) = (Vec::new(), Vec::new(), 0, 0);
        for read in read_lines(io::BufReader::new(input)) {
            match read {
                Ok(run) => ids.push(run.session_id),
                Err(error @ LineError::Io { .. }) => {
                    errors.push(format!("{error}: {}", error.source().unwrap()));
                }
                Err(error) => {
                    skipped += 1;
                    last = error.line();
                    if errors.len() < Reading::MAX_ERRORS {
                        errors.push(error.to_string());
                    }
                }
            }
        }
        (ids, errors, skipped, last)
    }

    fn reader(threads: usize, chunk: usize) -> Reader {
        Reader {
            filter: Filter::new(),
            threads: NonZero::new(threads).expect("not zero"),
            chunk,
        }
    }

    fn line() -> impl Strategy<Value = String> {
        let whole = "[a-z]{1,8}".prop_map(|id| format!(r#"{{"sessionId":"{id}"}}"#));
        let wrapped = "[a-z]{1,8}".prop_map(|id| {
            format!(r#"{{"later":[1],"telemetry":{{"sessionId":"{id}","outcome":"odd"}}}}"#)
        });
        let broken = prop::sample::select(vec!["", " ", "{", "{}", "no", "\u{feff}{}", "[1]"]);
        prop_oneof![4 => whole, 2 => wrapped, 2 => broken.prop_map(str::to_owned)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn many_threads_read_the_same_as_one(
            lines in prop::collection::vec(line(), 0..60),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n"]), 1..3),
            mark in any::<bool>(),
            torn in 0..20_usize,
            lengths in prop::collection::vec(1..200_usize, 1..4),
            chunk in 1..400_usize,
            threads in 1..5_usize,
            fails in any::<bool>(),
        ) {
            let mut input = if mark { "\u{feff}".to_owned() } else { String::new() };
            for (line, end) in lines.iter().zip(ends.iter().cycle()) {
                input.push_str(line);
                input.push_str(end);
            }
            let mut input = input.into_bytes();
            input.truncate(input.len().saturating_sub(torn));
            let input = || {
                let mut pieces = pieces(&input, lengths.clone());
                pieces.error = fails.then(|| io::Error::other("gone"));
                pieces
            };
            prop_assert_eq!(read(&reader(threads, chunk), input()), sequential(input()));
        }
    }

    #[test]
    fn only_a_line_that_is_too_long_is_skipped() {
        let long = "x".repeat(Lines::<()>::MAX_LINE + 1);
        let id = |id: &str| format!(r#"{{"sessionId":"{id}"}}"#);
        for input in [
            format!("{}\n{long}\n{}\nno", id("a"), id("b")),
            format!("{long}\n{}\n{long}\n{}\n{long}", id("a"), id("b")),
            format!("{}\n{long}", id("a")),
        ] {
            let expected = sequential(input.as_bytes());
            assert!(expected.2 > 0);
            for (threads, chunk) in [(1, CHUNK), (3, CHUNK), (2, 3 * CHUNK + 1)] {
                assert_eq!(read(&reader(threads, chunk), input.as_bytes()), expected);
            }
        }
    }

    #[test]
    fn an_error_within_a_long_line_is_reported() {
        let long = vec![b'x'; Lines::<()>::MAX_LINE + 3 * CHUNK];
        let input = || {
            let mut input = pieces(&long, vec![CHUNK / 3]);
            input.error = Some(io::Error::other("gone"));
            input
        };
        let read = read(&reader(2, CHUNK), input());
        assert!(read.1[0].ends_with(": gone"), "{read:?}");
        assert_eq!(read, sequential(input()));
    }

    #[test]
    fn a_long_line_after_a_line_that_is_too_long_is_whole() {
        let max = Lines::<()>::MAX_LINE;
        let long = |id: &str, length: usize| {
            let line = format!("{{\"sessionId\":\"{id}\"");
            line.clone() + &" ".repeat(length - line.len() - 1) + "}\n"
        };
        // Not visible with blocks whose length divides that of the longest line. The skipped part ends at the
        // start of a block, which continues with short lines and the start of the long one.
        let block = 300_000;
        let too_long = max.next_multiple_of(block) + 5;
        let short = "{\"sessionId\":\"short\"}\n".repeat(10_000);
        let input = [long("too long", too_long), short, long("long", max)].concat();
        let (ids, errors, ..) = read(&reader(1, block), input.as_bytes());
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(ids.len(), 10_001);
    }

    #[test]
    fn runs_keep_the_order_of_the_input_for_any_number_of_threads() {
        let lines: Vec<_> = (0..5_000)
            .map(|n| format!("{{\"sessionId\":\"{n}\"}}\n"))
            .collect();
        let input = lines.concat();
        let ids: Vec<_> = (0..5_000).map(|n| n.to_string()).collect();
        for threads in [1, 2, 8] {
            let reader = reader(threads, 100);
            assert_eq!(read(&reader, input.as_bytes()).0, ids, "{threads} threads");
        }
    }

    #[test]
    fn a_panic_of_visit_reaches_the_caller_and_stops_all_threads() {
        let input = "{\"sessionId\":\"a\"}\n".repeat(10_000);
        let caught = std::panic::catch_unwind(|| {
            let mut runs = 0;
            reader(4, 100).read(input.as_bytes(), &mut |_| {
                runs += 1;
                assert!(runs < 1_000, "enough");
            })
        });
        assert!(caught.is_err());
    }

    #[test]
    fn excluded_runs_are_counted() {
        let input = "{\"sessionId\":\"a\"}\n{\"sessionId\":\"b\"}\n";
        let condition = "session_id=b".parse().expect("a condition");
        let reading = Reader::new()
            .filter([condition])
            .read(input.as_bytes(), &mut |run| assert_eq!(run.session_id, "b"));
        assert_eq!((reading.runs, reading.matched), (2, 1));
    }
}
