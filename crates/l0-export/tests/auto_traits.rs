//! Checks at compile time which types are `Send` and `Sync`.

use std::error::Error;
use std::fmt::Debug;
use std::fs::File;

use l0_core::Interceptor;
use l0_export::json::{LineError, Lines};
use l0_export::log::LogRecord;
use l0_export::metrics::{MetricKind, MetricPoint};
use l0_export::{AppendFile, Queue, QueueReceiver};

/// Asserts that each of the types has all of the traits.
macro_rules! assert_all {
    ([$($bound:tt)+] $($kind:ty),+ $(,)?) => {
        const _: fn() = || {
            fn check<T: ?Sized + $($bound)+>() {}
            $( check::<$kind>(); )+
        };
    };
}

assert_all!([Clone + Send + Sync + Debug + Unpin + 'static] Queue);
assert_all!([Interceptor] Queue);
assert_all!([Send + Sync + Debug + Unpin + 'static] QueueReceiver, AppendFile, Lines<File>);
assert_all!([Send + Sync + Debug + Unpin] MetricKind, MetricPoint<'static>, LogRecord<'static>);
assert_all!([Error + Send + Sync + Unpin + 'static] LineError);
#[cfg(feature = "csv")]
assert_all!([Error + Send + Sync + Unpin + 'static] l0_export::csv::Error);
#[cfg(feature = "csv")]
assert_all!([Send + Sync + Debug + Unpin + 'static] l0_export::csv::Writer<AppendFile>);
