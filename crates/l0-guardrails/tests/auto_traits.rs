//! Checks at compile time which types are `Send` and `Sync`.

use std::error::Error;
use std::fmt::Debug;

use l0_core::Check;
use l0_guardrails::{
    CustomPattern, Drift, Json, Latex, Markdown, PatternError, Patterns, StrictJson, ZeroOutput,
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

assert_all!([Send + Sync + Debug + Unpin + 'static]
    CustomPattern, Drift, Json, Latex, Markdown, Patterns, StrictJson, ZeroOutput,
);
assert_all!([Check] CustomPattern, Json, Latex, Markdown, Patterns, StrictJson, ZeroOutput);
assert_all!([Error + Send + Sync + Unpin + 'static] PatternError);
