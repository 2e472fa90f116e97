//! The auto traits of the public types, checked by the compiler.

use std::fmt::Debug;
use std::sync::Arc;

use l0_core::Interceptor;
use l0_otel::{OtelBuilder, OtelInterceptor};

#[test]
fn threads_share_an_interceptor() {
    fn check<T: Clone + Send + Sync + Debug + Unpin + 'static>() {}
    fn check_interceptor<T: Interceptor>() {}
    check::<OtelInterceptor>();
    check::<OtelBuilder>();
    check_interceptor::<OtelInterceptor>();
    check_interceptor::<Arc<OtelInterceptor>>();

    let interceptor: Box<dyn Interceptor> = Box::new(OtelInterceptor::default());
    assert!(interceptor.needs_telemetry());
}
