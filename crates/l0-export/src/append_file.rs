//! [`AppendFile`]: a file that several processes append whole lines to.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{self, Path, PathBuf};

// `File::lock` came with Rust 1.89. Where it is there too, the trait has to be named.
#[cfg(any(unix, windows))]
use fs4::FileExt;

/// A file that several processes append lines to.
///
/// A write is one line, or several, and ends in a line end, as those of
/// [`json::write_line`](crate::json::write_line) and `csv::Writer` do. A write that returns `Ok` is
/// whole in the file. One that fails, on a full disk for example, leaves nothing behind: the file is
/// cut back to where the write began. A line that a process left unfinished, because it died while it
/// wrote, is ended by the next write, so that only it is lost.
///
/// The file is locked (`flock` on Unix) for the time of a write, so that others who append lines to it
/// do not come between. There is nothing to flush, and nothing is synced: what was written outlives the
/// process, and not a loss of power.
///
/// # Rotation
///
/// On Unix, each write looks whether the path still leads to the file that is open. When the file was
/// moved away or replaced, the write goes to the one that is at the path now, which is created if there
/// is none. A file that was cut to nothing, as `copytruncate` of logrotate does, is appended to from
/// its start. Lines that are written after such a program has copied the file and before it cuts it are
/// lost, unless it holds the lock meanwhile, as with `flock FILE sh -c 'cp FILE COPY && : > FILE'`.
/// Prefer a rotation that renames.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let telemetry = l0_core::Telemetry::default();
/// # let path = std::env::temp_dir().join(format!("l0-append-{}.jsonl", std::process::id()));
/// use l0_export::{AppendFile, json};
///
/// let mut file = AppendFile::open(&path)?;
/// json::write_line(&mut file, &telemetry)?;
/// # std::fs::remove_file(&path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AppendFile {
    file: File,
    path: PathBuf,
    before: Before,
}

/// What has to stand in the file before the next line: a header in an empty file, or what ends a line
/// that was left unfinished. It is asked while the file is locked.
pub(crate) type Before = fn(&mut File) -> io::Result<Cow<'static, [u8]>>;

impl AppendFile {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened for reading and appending, or its system has no locks.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_with(path.as_ref(), |file| {
            let torn = ends_in_mid_line(file)?;
            Ok(Cow::Borrowed(if torn { b"\n" } else { b"" }))
        })
    }

    pub(crate) fn open_with(path: &Path, before: Before) -> io::Result<Self> {
        // As long as the file is open, it is that of the folder in which it was opened.
        let path = path::absolute(path)?;
        let file = open(&path)?;
        let mut opened = Self { file, path, before };
        opened.append(b"")?;
        Ok(opened)
    }

    /// Appends these lines and what has to stand before them, or nothing.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        /// Whoever rotates faster than this gets the lines in a file that has been moved already.
        const MAX_REOPENED: usize = 8;

        for _ in 0..MAX_REOPENED {
            lock(&self.file)?;
            if !was_replaced(&self.file, &self.path) {
                return self.append_locked(lines);
            }
            // Closing it unlocks it. If there is no other one, it stays open, and others may wait for it.
            match open(&self.path) {
                Ok(file) => self.file = file,
                Err(error) => {
                    let _ = unlock(&self.file);
                    return Err(error);
                }
            }
        }
        lock(&self.file)?;
        self.append_locked(lines)
    }

    /// Appends to the file, which is locked, and unlocks it.
    fn append_locked(&mut self, lines: &[u8]) -> io::Result<()> {
        /// Whoever empties the file more often than this while one line is written gets what they want.
        const MAX_TRIES: usize = 8;

        let mut appended = Ok(true);
        for _ in 0..MAX_TRIES {
            appended = self.try_append(lines);
            if !matches!(appended, Ok(false)) {
                break;
            }
        }
        // What is in the file is there. A lock that stays is gone when the file is closed.
        let _ = unlock(&self.file);
        appended.map(drop)
    }

    /// Appends to the file, or says `false` if somebody who takes no lock emptied it meanwhile.
    fn try_append(&mut self, lines: &[u8]) -> io::Result<bool> {
        let start = self.file.seek(SeekFrom::End(0))?;
        let before = match (self.before)(&mut self.file) {
            // What it looked at is gone.
            Err(_) if self.file.seek(SeekFrom::End(0))? < start => return Ok(false),
            before => before?,
        };
        match &*before {
            [] => append_all(&mut self.file, start, lines),
            before => append_all(&mut self.file, start, &[before, lines].concat()),
        }
    }
}

/// Whether the path leads to another file than the open one, or to none. A path that cannot be looked
/// at says neither.
#[cfg(unix)]
fn was_replaced(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match (path.metadata(), file.metadata()) {
        (Ok(there), Ok(open)) => identity(there) != identity(open),
        (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

/// The standard library does not say which file is which.
#[cfg(not(unix))]
fn was_replaced(_: &File, _: &Path) -> bool {
    false
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).read(true);
    if cfg!(windows) {
        // There, a file that is open for appending cannot be cut back.
        options.write(true).truncate(false);
    } else {
        options.append(true);
    }
    options.open(path)
}

/// Writes all bytes at the end of the file, which was at `start`, all at once if it can be. If that fails,
/// the file is cut back.
/// Says `false` if the file was emptied meanwhile: the bytes were cut off, or stand at its start, where
/// others belong before them; then there is nothing in it.
fn append_all(file: &mut File, start: u64, bytes: &[u8]) -> io::Result<bool> {
    file.seek(SeekFrom::End(0))?;
    let mut written = 0;
    let result = loop {
        if written == bytes.len() {
            break Ok(());
        }
        match file.write(&bytes[written..]) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };

    let Some(end) = file.metadata().ok().filter(Metadata::is_file) else {
        return result.map(|()| true);
    };
    let (end, written) = (end.len(), written as u64);
    let emptied = start > 0 && end <= written;
    // Nothing but what was written here is cut off. If that fails, the next write ends the line.
    if emptied {
        let _ = file.set_len(0);
    } else if result.is_err() && end == start + written {
        let _ = file.set_len(start);
    }
    result.map(|()| !emptied)
}

impl Write for AppendFile {
    /// Writes all of these bytes or none.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match bytes.last() {
            None => return Ok(0),
            Some(b'\n') => {}
            Some(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a write to an `AppendFile` has to end in a line end",
                ));
            }
        }
        self.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for the lock. A signal that comes meanwhile ends a call and not the wait for it: whoever opens a
/// file does not expect `Interrupted`, which only writes are tried again for.
#[cfg(any(unix, windows))]
fn lock(file: &File) -> io::Result<()> {
    uninterrupted(|| FileExt::lock(file))
}

/// Calls until no signal comes in between.
#[cfg(any(unix, windows))]
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(any(unix, windows))]
fn unlock(file: &File) -> io::Result<()> {
    FileExt::unlock(file)
}

#[cfg(not(any(unix, windows)))]
fn lock(_: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(any(unix, windows)))]
fn unlock(_: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the last byte is there, and no line end.
pub(crate) fn ends_in_mid_line(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(all(test, any(unix, windows)))]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_a_signal_interrupts_is_made_again_and_no_other() {
        let answers = |kinds: &[io::ErrorKind]| {
            let mut kinds = kinds.iter();
            let mut calls = 0;
            let result = uninterrupted(|| {
                calls += 1;
                kinds.next().map_or(Ok(calls), |kind| Err((*kind).into()))
            });
            (result.map_err(|error| error.kind()), calls)
        };
        let interrupted = io::ErrorKind::Interrupted;
        let blocked = io::ErrorKind::WouldBlock;
        assert_eq!(answers(&[]), (Ok(1), 1));
        assert_eq!(answers(&[interrupted; 3]), (Ok(4), 4));
        assert_eq!(answers(&[blocked]), (Err(blocked), 1));
        assert_eq!(answers(&[interrupted, blocked]), (Err(blocked), 2));
    }
}
