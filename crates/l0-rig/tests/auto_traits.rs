//! Checks at compile time which types are `Send` and `Sync`.

use std::error::Error as StdError;
use std::fmt::Debug;

use l0_core::Source;
use l0_rig::{
    AgentError, AgentEvent, AgentEvents, AgentStream, Completion, CompletionOnce, Embeddings,
    Error, Event, Events,
};

/// Asserts that each of the types has all of the traits.
macro_rules! assert_all {
    ([$($bound:tt)+] $($kind:ty),+ $(,)?) => {
        const _: fn() = || {
            fn check<T: ?Sized + $($bound)+>() {}
            $( check::<$kind>(); )+
        };
    };
}

assert_all!([Send + Sync + Debug + Unpin + 'static] Event, AgentEvent);
assert_all!([Send + Debug + Unpin + 'static] Events, AgentEvents);
assert_all!([Source + Debug + 'static] Completion, CompletionOnce, Embeddings, AgentStream);
assert_all!([StdError + Send + Sync + Unpin + 'static] Error, AgentError);
