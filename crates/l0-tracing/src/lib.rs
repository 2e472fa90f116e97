//! x
mod attributes;
mod fields;
mod interceptor;
mod live;
mod names;
mod numbers;
mod run;
mod sites;

pub use interceptor::TracingInterceptor;
