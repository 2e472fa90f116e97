//! How L0 reads the streams of other crates.
//!
//! A stream of another crate's items needs one function, which says what an item says: copy the one
//! of your crate, with [`usage::normalise`] where it calls that, and leave out what you do not need.
//! Each is used the same way, with `view_with`.

pub mod async_openai;
pub mod usage;
