//! The auto traits of the public types. Removing one would break users.

use std::fmt::Debug;

use l0_core::Interceptor;
use l0_tracing::TracingInterceptor;

fn interceptor<T: Interceptor + Clone + Default + Debug + Send + Sync + Unpin + 'static>() {}

#[test]
fn an_interceptor_can_be_shared_between_threads() {
    interceptor::<TracingInterceptor>();
}
