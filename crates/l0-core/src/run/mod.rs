//! Runs: the retrying stream, the call whose answer comes as one, the watched stream, and their builders.

mod attempt;
mod builder;
mod call;
mod deadlines;
mod reading;
#[allow(clippy::module_inception, reason = "the file of a type has its name")]
mod run;
mod sources;
mod timer;
mod watch;

pub(crate) use builder::OfL0;
pub use builder::{
    CallBuilder, ForRun, OfAnswers, OfStreams, Retried, RunBuilder, WatchBuilder, Watching,
};
pub use call::Call;
pub use run::Run;
pub use watch::Watched;

use crate::error::Error;

/// What a run hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Chunk<T> {
    /// The source's own item, untouched.
    Item(T),
    /// Another attempt begins, by a retry or of a fallback, and items of the one before had been handed
    /// out: discard them.
    #[non_exhaustive]
    Restart {
        /// The number of the attempt that begins.
        attempt: u32,
    },
}

impl<T> Chunk<T> {
    /// Returns the item, if it is one.
    pub fn into_item(self) -> Option<T> {
        match self {
            Self::Item(item) => Some(item),
            Self::Restart { .. } => None,
        }
    }
}

/// What a poll hands out: a chunk, the error that ended the run, or nothing more.
type HandOut<T, E> = Option<Result<Chunk<T>, Error<E>>>;
