//! crate docs to come
mod breakdown;
mod buckets;
mod gaps;
mod handles;
mod interceptor;
mod label_sets;
mod labels;
mod layout;
mod series;
mod streams;

pub use interceptor::MetricsInterceptor;
