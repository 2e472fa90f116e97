//! Checks at compile time which types are `Send` and `Sync`.

use std::error::Error;
use std::fmt::Debug;

use l0_report::compare::{Arms, Comparison, Confidence, ConfidenceError};
use l0_report::html::Page;
use l0_report::timeline::Timeline;
use l0_report::{
    Condition, Filter, FilterError, Profile, Quantiles, Reader, Reading, Run, Skipped, Stats,
    Summary,
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

assert_all!([Clone + Send + Sync + Debug + Unpin + 'static]
    Condition, Filter, Profile, Quantiles, Reader, Run, Skipped, Stats, Summary, Confidence,
);
assert_all!([Send + Sync + Debug + Unpin + 'static] Reading, Arms, Comparison, Page, Timeline);
assert_all!([Error + Send + Sync + Unpin + 'static] FilterError, ConfidenceError);
