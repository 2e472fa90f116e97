//! The adaptors of a [`Source`], and the views that read its items.
//!
//! These types appear in signatures. You name one to keep a source in a struct, or to implement
//! `Source` for a type of your own.

mod map;
#[allow(clippy::module_inception, reason = "files are named after their type")]
pub(crate) mod source;
mod view;
mod with;

pub use map::{Map, MapAnswer, MapAnswerConnecting, MapConnecting, MapStream};
pub(crate) use source::{Attempt, Description, Source, source};
pub use source::{Connecting, FnSource};
pub use view::{ByAnswer, ByFn, ByToken, View};
pub use with::{WithMetadata, WithView};
