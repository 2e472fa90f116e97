//! Checks at compile time which types are `Send` and `Sync`.

use std::error::Error;
use std::fmt::Debug;

use l0_core::Pricing;
use l0_pricing::{Characters, PriceList, PriceListError, ServiceTier, Skipped};

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
    PriceList, Characters, ServiceTier, Skipped,
);
assert_all!([Pricing] PriceList);
assert_all!([Error + Send + Sync + Unpin + 'static] PriceListError);
