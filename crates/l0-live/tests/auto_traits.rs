//! Checks at compile time which types are `Send` and `Sync`.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use l0_core::Interceptor;
use l0_live::{
    FinishedAttempt, FinishedRun, Live, LiveBuilder, LiveRun, ModelTotals, Reason, Snapshot, Spent,
    Totals,
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
    Live, LiveBuilder, Snapshot, Totals, ModelTotals, Spent, LiveRun, FinishedRun, FinishedAttempt,
    Reason,
);
assert_all!([Interceptor] Live, Arc<Live>);

/// A task that watches for stalls can be spawned.
const _: fn(&Live) = |live| {
    fn check(_: impl Future<Output = ()> + Send + 'static) {}
    check(live.watch_stalls(Duration::from_secs(1), |_| {}));
};

#[cfg(feature = "axum")]
const _: fn(Live) = |live| {
    fn check(_: impl Clone + Send + Sync + 'static) {}
    check(l0_live::routes::<()>(live));
};
