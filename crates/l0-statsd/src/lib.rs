//! Send the final numbers of runs of [`l0_core`] to `StatsD` or DogStatsD.
//!
//! ```
//! use l0_core::L0;
//! use l0_statsd::StatsdInterceptor;
//!
//! # fn main() -> Result<(), l0_statsd::BuildError> {
//! let statsd = StatsdInterceptor::builder("127.0.0.1:8125") // or unix:///var/run/datadog/dsd.socket
//!     .tag("env", "prod")
//!     .tag_keys(["model"])?
//!     .build()?;
//! let l0 = L0::builder().interceptor(statsd.clone()).build();
//! // ... runs ...
//! println!("points not sent: {}", statsd.dropped());
//! # drop(l0);
//! # Ok(())
//! # }
//! ```
//!
//! Every measured run sends its [points](l0_export::metrics) once, when it ends, on every exit: among
//! them `l0.runs` with the tag `outcome`, and `l0.failures` with the tag `error_type`, which says why a
//! run failed: `401`, `rate_limited`, `zero_output`. Of a run that fell back to another source, each
//! source sends the points of its own attempts under its own tags: the model that failed has
//! `l0.attempts` with the tag `result` and `l0.fallbacks`, and the one that was tried last the rest of
//! the run. A run that is not measured sends nothing: with a
//! sample rate, counts are those of the sample. Of the metadata only what is listed with
//! [`tag_keys`](StatsdBuilder::tag_keys) leaves.
//!
//! Servers differ in what they understand:
//!
//! | server | settings |
//! |---|---|
//! | Datadog's agent, and what speaks its protocol | the default |
//! | `StatsD` that knows tags (`\|#key:value`), such as Etsy's from 0.9 on | [`.types(MetricTypes::Statsd)`](StatsdBuilder::types) |
//! | `StatsD` that knows none | [`.types(MetricTypes::Statsd)`](StatsdBuilder::types)[`.without_tags()`](StatsdBuilder::without_tags) |
//!
//! Sending never waits, fails or logs: it is a few system calls on a socket that does not block.
//! What the system does not take at once is dropped and [counted](StatsdInterceptor::dropped).
//!
//! # Features
//!
//! None.

mod builder;
mod error;
mod interceptor;
mod line;
mod packet;
mod socket;

pub use builder::StatsdBuilder;
pub use error::BuildError;
pub use interceptor::StatsdInterceptor;
pub use line::MetricTypes;
