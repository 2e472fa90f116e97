//! Sends the final numbers of [`l0_core`] runs to `StatsD` or DogStatsD.
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
//! Every measured run sends its [points](l0_export::metrics) once, when it ends, on every exit. Among them are
//! `l0.runs` with the tag `outcome`, and `l0.failures` with the tag `error_type`, the reason why a run failed:
//! `401`, `rate_limited`, `zero_output`. If a run falls back to another source, each source sends the points of
//! its own attempts under its own tags. The model that failed has `l0.attempts` with the tag `result` and
//! `l0.fallbacks`; the one that was tried last has all other points of the run. An unmeasured run sends
//! nothing: with a sample rate, counts are those of the sample. Only the metadata listed with
//! [`tag_keys`](StatsdBuilder::tag_keys) is sent.
//!
//! Servers support different parts of the protocol:
//!
//! | server | settings |
//! |---|---|
//! | Datadog's agent and compatible servers | the default |
//! | `StatsD` with tags (`\|#key:value`), such as Etsy's from 0.9 on | [`.types(MetricTypes::Statsd)`](StatsdBuilder::types) |
//! | `StatsD` without tags | [`.types(MetricTypes::Statsd)`](StatsdBuilder::types)[`.without_tags()`](StatsdBuilder::without_tags) |
//!
//! Sending never blocks, fails or logs: it takes a few system calls on a non-blocking socket. Points that the
//! system does not accept immediately are dropped and [counted](StatsdInterceptor::dropped).
//!
//! # Features
//!
//! None.
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Exporters](https://docs.rs/l0-core/latest/l0_core/guide/exporters/)

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
