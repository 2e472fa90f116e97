//! Runs: the retrying stream, the single-answer call, the watched stream, and their builders.

mod attempt;
mod builder;
mod call;
mod deadlines;
mod reading;
#[allow(clippy::module_inception, reason = "files are named after their type")]
mod run;
mod sources;
mod timer;
mod watch;

pub(crate) use builder::SharedState;
pub use builder::{
    CallBuilder, ForRun, OfAnswers, OfStreams, Retried, RunBuilder, WatchBuilder, Watching,
};
pub use call::Call;
pub use run::Run;
pub use watch::Watched;

use crate::error::Error;

/// An element of a run's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Chunk<T> {
    /// The source's own item, untouched.
    Item(T),
    /// The start of another attempt, by a retry or a fallback. The previous attempt yielded items:
    /// discard them.
    #[non_exhaustive]
    Restart {
        /// The number of the new attempt.
        attempt: u32,
    },
}

impl<T> Chunk<T> {
    /// Returns the item, or `None` for a restart.
    pub fn into_item(self) -> Option<T> {
        match self {
            Self::Item(item) => Some(item),
            Self::Restart { .. } => None,
        }
    }
}

/// The result of a poll: a chunk, the error that ended the run, or the end of the stream.
type NextChunk<T, E> = Option<Result<Chunk<T>, Error<E>>>;
