//! Checks at compile time which types are `Send`, `Sync` and object-safe.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;

use l0_core::Interceptor;
use l0_prometheus::{
    Buckets, BuildError, Collector, LabelError, LabeledCollector, Labels, MetricError,
    PrometheusBuilder, PrometheusInterceptor, Registry, Trace,
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
    Collector, LabeledCollector, Registry, PrometheusInterceptor, Labels, Buckets,
    PrometheusBuilder<Collector>, PrometheusBuilder<Registry>,
);
assert_all!([Copy + Eq + Debug + Send + Sync + Unpin + 'static] Trace);
assert_all!([Clone + Debug + PartialEq + Error + Send + Sync + 'static]
    BuildError, LabelError, MetricError,
);
assert_all!([Interceptor] PrometheusInterceptor, Arc<PrometheusInterceptor>);
assert_all!([prometheus::core::Collector]
    Collector, Registry, dyn prometheus::core::Collector,
);

#[test]
fn an_interceptor_is_an_object() {
    let collector = Collector::builder().build().unwrap();
    let interceptor: Box<dyn Interceptor> = Box::new(collector.label_keys(["model"]).unwrap());
    assert!(interceptor.needs_telemetry());
}
