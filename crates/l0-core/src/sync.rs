//! Primitives for state shared by threads, re-exported in one place so a model checker can replace
//! them. See `loom/`.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock};
