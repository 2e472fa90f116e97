//! Checks at compile time which types are `Send`, `Sync` and object-safe.

use std::fmt::Debug;
use std::sync::Arc;

use l0_core::Interceptor;
use l0_metrics::MetricsInterceptor;

const fn check<T: Default + Send + Sync + Debug + Unpin + 'static>() {}
const fn check_interceptor<T: Interceptor>() {}

const _: () = check::<MetricsInterceptor>();
const _: () = check_interceptor::<Arc<MetricsInterceptor>>();

#[test]
fn an_interceptor_is_an_object() {
    let interceptor: Box<dyn Interceptor> = Box::new(MetricsInterceptor::new());
    assert!(interceptor.needs_telemetry());
}
