//! What threads share state by. One name for all of it, so that a model checker can put its own in its
//! place: see `loom/`.

pub(crate) use std::sync::atomic::{AtomicU8, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock};
