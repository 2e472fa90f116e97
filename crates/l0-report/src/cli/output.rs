//! Output: a report written to a file or to standard output.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{Failure, print};

/// The destination of a report.
#[derive(clap::Args)]
pub(crate) struct Output {
    /// Write to this file. The default, or `-`, is standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Output {
    /// Returns the file to write to. `None` is standard output.
    pub(crate) fn path(&self) -> Option<&Path> {
        let path = self.output.as_deref();
        path.filter(|path| *path != Path::new("-"))
    }

    pub(crate) fn write(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let Some(path) = self.path() else {
            return print(write);
        };
        let written = File::create(path).and_then(|file| {
            let mut file = BufWriter::new(file);
            write(&mut file)?;
            file.flush()
        });
        written.map_err(|error| format!("{}: {error}", path.display()))
    }
}
