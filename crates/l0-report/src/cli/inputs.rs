//! Inputs: files, patterns and standard input, opened, decompressed and read with a progress bar.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use l0_core::{Telemetry, Timestamp};
use l0_report::{Condition, Filter, Reader, Reading, parse_time};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use same_file::Handle;

use super::{Exit, Failure, complain, shown};

/// The length in bytes from which inputs get a progress bar.
const LONG: u64 = 32 * 1024 * 1024;
/// The size of the read buffer, in bytes.
const BUFFER: usize = 256 * 1024;

/// The selection of runs.
#[derive(clap::Args)]
pub(crate) struct Selection {
    /// Select runs that match this condition, such as `outcome=failed`, `tenant!=acme` or `duration>10s`. If given
    /// several times, all conditions must match.
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<Condition>,

    /// Select runs that started at this time or later: a date (midnight UTC), or an RFC 3339 time, such as
    /// `2026-03-01T09:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,

    /// Select runs that started before this time: a date (midnight UTC), or an RFC 3339 time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
}

impl Selection {
    /// Combines all conditions into one filter.
    pub(crate) fn filter(&self) -> Filter {
        let since = self.since.map(Condition::since);
        let until = self.until.map(Condition::until);
        let conditions = self.conditions.iter().cloned();
        conditions.chain(since).chain(until).collect()
    }
}

/// The result of reading all inputs.
#[derive(Debug, Default)]
pub(crate) struct Total {
    /// The result of each input, with its name.
    pub(crate) readings: Vec<(String, Reading)>,
    /// The number of inputs that could not be opened.
    missing: u64,
}

impl Total {
    /// Returns the number of runs that were read, including runs that the filter excluded.
    pub(crate) fn runs(&self) -> u64 {
        self.readings.iter().map(|(_, reading)| reading.runs).sum()
    }

    /// Returns the exit code for this result.
    pub(crate) fn exit(&self) -> Exit {
        let any = |is: fn(&Reading) -> bool| self.readings.iter().any(|(_, reading)| is(reading));
        if self.missing > 0 || any(|reading| reading.failure.is_some()) {
            Exit::Unread
        } else if any(|reading| reading.skipped > 0) {
            Exit::Skipped
        } else {
            Exit::Success
        }
    }
}

/// Reads inputs one after another, and calls `visit` with each run that matches the filter. Unreadable inputs
/// and broken lines are reported on standard error.
///
/// An input is a file, a pattern such as `logs/*.jsonl`, or `-` for standard input, which is the default. Inputs
/// can be compressed with gzip or zstd. Fails if no input contains a run, or before reading if an input is the
/// `output`, which is standard output if absent.
pub(crate) fn read(
    inputs: &[PathBuf],
    output: Option<&Path>,
    filter: &Filter,
    visit: &mut (dyn FnMut(&Telemetry) + Send),
) -> Result<Total, Failure> {
    let sources = sources(inputs);
    refuse_output(&sources, output)?;
    let bar = progress_bar(&sources);
    let reader = Reader::new().filter(filter.clone());
    let mut total = Total::default();
    for source in &sources {
        let name = source.name();
        bar.set_message(shown(&name));
        match source.read(&reader, &bar, visit) {
            Ok(reading) => {
                bar.suspend(|| report_skipped(&name, &reading));
                total.readings.push((name, reading));
            }
            Err(error) => {
                bar.suspend(|| complain(&format_args!("{name}: {error}")));
                total.missing += 1;
            }
        }
    }
    bar.finish_and_clear();
    if total.runs() == 0 {
        let names: Vec<_> = total.readings.iter().map(|(name, _)| &**name).collect();
        return Err(match names[..] {
            [] => "no input could be read".to_owned(),
            [one] => format!("no runs in {one}"),
            [one, ref rest @ ..] => {
                format!("no runs in {one}, {}", rest.join(", "))
            }
        });
    }
    Ok(total)
}

/// Fails if a report would overwrite one of its inputs, or be appended to it.
fn refuse_output(sources: &[Source], output: Option<&Path>) -> Result<(), Failure> {
    let Some(output) = output.map_or_else(|| regular(Handle::stdout()), regular_at) else {
        return Ok(());
    };
    let is_output = |source: &&Source| source.handle().is_some_and(|input| input == output);
    match sources.iter().find(is_output) {
        Some(input) => Err(format!("{} is both an input and the output", input.name())),
        None => Ok(()),
    }
}

/// Returns the identity of a file. `None` if it cannot be opened, or for a terminal or a pipe, which can be read and
/// written at the same time, and which opening can block.
fn regular_at(path: &Path) -> Option<Handle> {
    let is_file = path.metadata().is_ok_and(|of| of.is_file());
    is_file.then(|| regular(Handle::from_path(path)))?
}

fn regular(handle: io::Result<Handle>) -> Option<Handle> {
    let is_file = |of: &Handle| of.as_file().metadata().is_ok_and(|of| of.is_file());
    handle.ok().filter(is_file)
}

/// Reports the skipped lines.
fn report_skipped(name: &str, reading: &Reading) {
    for reason in reading.reasons() {
        complain(&format_args!("{name}, {reason}"));
    }
    if let Some(last) = reading.last_skipped {
        let lines = if reading.skipped == 1 {
            "line"
        } else {
            "lines"
        };
        complain(&format_args!(
            "{name}: {} broken {lines} skipped, last at line {last}",
            reading.skipped
        ));
    }
}

/// An existing input.
enum Source {
    StandardInput,
    File(PathBuf),
}

/// Returns the inputs that these arguments name. A pattern without a match counts as a file name, as in
/// shells.
fn sources(inputs: &[PathBuf]) -> Vec<Source> {
    let mut sources = Vec::new();
    if inputs.is_empty() {
        sources.push(Source::StandardInput);
    }
    for input in inputs {
        if input.as_os_str() == "-" {
            sources.push(Source::StandardInput);
            continue;
        }
        let before = sources.len();
        // A file with exactly this name takes precedence.
        if !input.exists() {
            let found = input.to_str().and_then(|pattern| glob::glob(pattern).ok());
            let files = found.into_iter().flatten().filter_map(|found| match found {
                Ok(path) => (!path.is_dir()).then_some(path),
                // Opening a folder that cannot be searched fails, too, and is reported.
                Err(error) => Some(error.path().to_owned()),
            });
            sources.extend(files.map(Source::File));
        }
        if sources.len() == before {
            sources.push(Source::File(input.clone()));
        }
    }
    sources
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::StandardInput => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    fn handle(&self) -> Option<Handle> {
        match self {
            Self::StandardInput => regular(Handle::stdin()),
            Self::File(path) => regular_at(path),
        }
    }

    /// Returns its length, or 0 if it is not known.
    fn length(&self) -> u64 {
        match self {
            Self::StandardInput => 0,
            Self::File(path) => path.metadata().map_or(0, |metadata| metadata.len()),
        }
    }

    fn read(
        &self,
        reader: &Reader,
        bar: &ProgressBar,
        visit: &mut (dyn FnMut(&Telemetry) + Send),
    ) -> io::Result<Reading> {
        let input = match self {
            Self::StandardInput => decompressed(bar.wrap_read(io::stdin()))?,
            Self::File(path) => decompressed(bar.wrap_read(open(path)?))?,
        };
        Ok(reader.read(input, visit))
    }
}

/// Opens a file. A folder is an error, also on systems that can open it.
fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(file)
}

/// Decompresses an input. Its first bytes state the format.
fn decompressed<'a>(input: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    /// The rest of the magic number of a skippable zstd frame, which `pzstd` writes first.
    const SKIPPED: &[u8] = &[0x2a, 0x4d, 0x18];

    let mut input = BufReader::with_capacity(BUFFER, input);
    // A pipe may return the bytes one by one.
    let mut magic = Vec::new();
    Read::by_ref(&mut input).take(4).read_to_end(&mut magic)?;
    let is = |kind: &[u8]| magic.starts_with(kind);
    let is_skipped = matches!(&magic[..], [0x50..=0x5f, rest @ ..] if rest == SKIPPED);
    let (gzip, zstd) = (is(GZIP), is(ZSTD) || is_skipped);
    let input = io::Cursor::new(magic).chain(input);
    Ok(if gzip {
        Box::new(MultiGzDecoder::new(input))
    } else if zstd {
        Box::new(Frames::new(input))
    } else {
        Box::new(input)
    })
}

/// Decompressed zstd data: several concatenated frames, some of which may be skippable.
struct Frames<R> {
    input: R,
    /// The decoder of the current frame. Finished before the first frame.
    decoder: FrameDecoder,
    /// The error that ended the frame early, until the available data has been read.
    error: Option<io::Error>,
}

impl<R: BufRead> Frames<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            decoder: FrameDecoder::new(),
            error: None,
        }
    }

    /// Begins the next frame, or skips a skippable one.
    fn next(&mut self) -> io::Result<()> {
        match self.decoder.reset(&mut self.input) {
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let mut skipped = Read::by_ref(&mut self.input).take(length.into());
                match io::copy(&mut skipped, &mut io::sink())? {
                    read if read == u64::from(length) => Ok(()),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
            begun => begun.map_err(io::Error::other),
        }
    }

    /// Decodes the next block of a frame.
    fn decode_block(&mut self) -> io::Result<()> {
        /// A last block without content, and space for a checksum.
        const EMPTY: &[u8] = &[1, 0, 0, 0, 0, 0, 0];

        let one = || BlockDecodingStrategy::UptoBlocks(1);
        let Err(error) = self.decoder.decode_blocks(&mut self.input, one()) else {
            return Ok(());
        };
        let error = if self.input.fill_buf()?.is_empty() {
            io::ErrorKind::UnexpectedEof.into()
        } else {
            io::Error::other(error)
        };
        // The decoder holds back its window, which is megabytes, until the last block.
        match self.decoder.decode_blocks(EMPTY, one()) {
            Ok(_) => self.error = Some(error),
            Err(_) => return Err(error),
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.decoder.can_collect() == 0 {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            if !self.decoder.is_finished() {
                self.decode_block()?;
            } else if self.input.fill_buf()?.is_empty() {
                return Ok(0);
            } else {
                self.next()?;
            }
        }
        self.decoder.read(to)
    }
}

/// Returns a progress bar on standard error for long inputs, over all of them. It is visible only on a terminal.
fn progress_bar(sources: &[Source]) -> ProgressBar {
    let length = sources.iter().map(Source::length).sum();
    if length < LONG {
        return ProgressBar::hidden();
    }
    let template = "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template);
    ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr())
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
