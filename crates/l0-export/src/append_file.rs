//! [`AppendFile`]: a file that several processes append whole lines to.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

// `File::lock` came with Rust 1.89. Where it is there too, the trait has to be named.
#[cfg(any(unix, windows))]
use fs4::FileExt;

/// A file that several processes append lines to: each of them stays whole if it is written at
/// once, as [`json::write_line`](crate::json::write_line) and `csv::Writer` do.
///
/// There is nothing to flush. The file is locked for the time of a write, and while whoever opens it
/// looks at its end. After an error, part of a line may have been written: open the file again.
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
pub struct AppendFile(File);

impl AppendFile {
    /// Opens the file, or creates it. If it ends in mid-line, because a process died while it wrote,
    /// that line is ended, so that only it is lost.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened for reading and appending, or its system has no locks.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_with(path, |file| {
            if ends_in_mid_line(file)? {
                file.write_all(b"\n")?;
            }
            Ok(())
        })
    }

    /// Opens the file and prepares it while nobody else reads or writes it.
    pub(crate) fn open_with<E: From<io::Error>>(
        path: impl AsRef<Path>,
        prepare: impl FnOnce(&mut File) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut options = File::options();
        let mut file = options.create(true).read(true).append(true).open(path)?;
        lock(&file)?;
        let prepared = prepare(&mut file);
        unlock(&file)?;
        prepared.map(|()| Self(file))
    }
}

impl Write for AppendFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0)?;
        let written = self.0.write(bytes);
        unlock(&self.0)?;
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(any(unix, windows))]
fn lock(file: &File) -> io::Result<()> {
    FileExt::lock(file)
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
