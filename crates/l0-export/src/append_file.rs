//! [`AppendFile`]: a file to which several processes append whole lines.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{self, Path, PathBuf};

// `File::lock` is stable since Rust 1.89. Where it exists, the trait method must be named explicitly.
#[cfg(any(unix, windows))]
use fs4::FileExt;

/// A file to which several processes append lines.
///
/// Each write must consist of whole lines, as [`json::write_line`](crate::json::write_line) and
/// `csv::Writer` produce them. A write that returns `Ok` is complete in the file. A write that fails,
/// for example on a full disk, leaves nothing behind: the file is truncated to its previous length. If a
/// process dies during a write, the next write ends the unfinished line, so only that line is lost.
///
/// Each write holds a file lock (`flock` on Unix), so the lines of several writers do not mix.
/// No flush is needed and nothing is synced: written lines survive the end of the process, but not a
/// loss of power.
///
/// # Rotation
///
/// On Unix, each write checks that the path still leads to the open file. If the file was moved or
/// replaced, the write goes to the file that is now at the path, and creates it if necessary. If the file
/// was truncated, as by logrotate's `copytruncate`, the write starts at the beginning. Lines that are
/// written between the copy and the truncation are lost, unless the rotating program holds the lock in
/// between, as in `flock FILE sh -c 'cp FILE COPY && : > FILE'`. Prefer a rotation that renames.
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
    prefix: Prefix,
}

/// Returns the bytes that must precede the next line: the header of an empty file, or the end of an
/// unfinished line. Called while the file is locked.
pub(crate) type Prefix = fn(&mut File) -> io::Result<Cow<'static, [u8]>>;

impl AppendFile {
    /// Opens the file, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened for reading and appending, or the file system has no locks.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_with(path.as_ref(), |file| {
            let torn = ends_in_mid_line(file)?;
            Ok(Cow::Borrowed(if torn { b"\n" } else { b"" }))
        })
    }

    pub(crate) fn open_with(path: &Path, prefix: Prefix) -> io::Result<Self> {
        // A later change of the working directory must not change the file.
        let path = path::absolute(path)?;
        let file = open(&path)?;
        let mut opened = Self { file, path, prefix };
        opened.append(b"")?;
        Ok(opened)
    }

    /// Appends these lines, preceded by what the file needs before them, or nothing at all.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        /// If rotation is faster than this, the lines go into a file that has already been moved.
        const MAX_REOPENED: usize = 8;

        for _ in 0..MAX_REOPENED {
            lock(&self.file)?;
            if !was_replaced(&self.file, &self.path) {
                return self.append_locked(lines);
            }
            // Closing the old file unlocks it. If opening fails, the old file stays open and is unlocked here.
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

    /// Appends to the locked file, then unlocks it.
    fn append_locked(&mut self, lines: &[u8]) -> io::Result<()> {
        /// The limit of attempts for one write while another program keeps emptying the file.
        const MAX_TRIES: usize = 8;

        let mut appended = Ok(true);
        for _ in 0..MAX_TRIES {
            appended = self.try_append(lines);
            if !matches!(appended, Ok(false)) {
                break;
            }
        }
        // The lines are in the file. A lock that cannot be released ends when the file is closed.
        let _ = unlock(&self.file);
        appended.map(drop)
    }

    /// Appends to the file. Returns `false` if a program without the lock emptied the file during the write.
    fn try_append(&mut self, lines: &[u8]) -> io::Result<bool> {
        let start = self.file.seek(SeekFrom::End(0))?;
        let before = match (self.prefix)(&mut self.file) {
            // The file was emptied while `prefix` read it.
            Err(_) if self.file.seek(SeekFrom::End(0))? < start => return Ok(false),
            before => before?,
        };
        match &*before {
            [] => append_all(&mut self.file, start, lines),
            before => append_all(&mut self.file, start, &[before, lines].concat()),
        }
    }
}

/// Returns `true` if the path leads to another file than the open one, or to no file. Returns `false` if
/// the path cannot be read.
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

/// The standard library cannot identify a file on this platform.
#[cfg(not(unix))]
fn was_replaced(_: &File, _: &Path) -> bool {
    false
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).read(true);
    if cfg!(windows) {
        // On Windows, a file that is open for appending cannot be truncated.
        options.write(true).truncate(false);
    } else {
        options.append(true);
    }
    options.open(path)
}

/// Appends all bytes to the file, which ended at `start`, in a single write if possible. Truncates the file
/// if that fails.
///
/// Returns `false` if another program emptied the file during the write. The bytes are then lost, or at the
/// start of the file without the prefix that belongs there; the file is left empty.
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
    // Truncates only bytes that were written here. If that fails, the next write ends the line.
    if emptied {
        let _ = file.set_len(0);
    } else if result.is_err() && end == start + written {
        let _ = file.set_len(start);
    }
    result.map(|()| !emptied)
}

impl Write for AppendFile {
    /// Writes all of these bytes, or none.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match bytes.last() {
            None => return Ok(0),
            Some(b'\n') => {}
            Some(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a write to an `AppendFile` must end in a line end",
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

/// Waits for the lock. A signal interrupts the call, but not the wait: callers that open a file do not expect
/// `Interrupted`, which `write_all` retries only for writes.
#[cfg(any(unix, windows))]
fn lock(file: &File) -> io::Result<()> {
    uninterrupted(|| FileExt::lock(file))
}

/// Repeats the call while signals interrupt it.
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

/// Returns `true` if the file is not empty and does not end in a line end.
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
    fn only_a_call_that_a_signal_interrupts_is_repeated() {
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
