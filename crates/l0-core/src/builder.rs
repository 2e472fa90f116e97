//! The generic builder, and the kinds of builders.
//!
//! [`Builder`] has the setters that all builders share. To name a builder, use its alias:
//! [`L0Builder`](crate::L0Builder), [`RunBuilder`](crate::RunBuilder),
//! [`CallBuilder`](crate::CallBuilder) or [`WatchBuilder`](crate::WatchBuilder).

pub use crate::l0::Configuration;
pub use crate::options::Builder;
pub use crate::run::{ForRun, OfAnswers, OfStreams, Retried, Watching};
