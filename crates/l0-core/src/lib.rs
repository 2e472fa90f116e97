//! l0-core

mod distribution;
mod error;
mod event;
mod failure;
pub mod keys;
mod l0;
mod monitor;
mod observe;
mod recorder;
mod redact;
mod retry;
mod run;
mod stop;
mod telemetry;
mod timeout;
mod token;
mod verdict;

pub use distribution::{Bucket, Distribution};
pub use error::{Error, Refusal, SourceError, TimeoutKind};
pub use event::{Event, RetryReason};
pub use failure::{Failure, FailureKind, NetworkErrorKind, UnknownNetworkErrorKind};
pub use l0::{L0, L0Builder};
pub use monitor::{Monitor, Monitoring, RetryKind};
pub use observe::{
    Interceptor, Interest, ObserveFn, Observer, Observers, Request, RunInfo, observe_fn,
};
pub use retry::{Backoff, Retry, RetryContext};
pub use run::{Attempt, ByFn, ByToken, Chunk, Run, RunBuilder, View, WatchBuilder, Watched};
pub use stop::RunHandle;
pub use telemetry::{
    DriftStats, GuardrailStats, Metrics, Network, NetworkErrorRecord, SeverityCounts, Summary,
    Telemetry, Timestamp,
};
pub use timeout::Timeouts;
pub use token::{FinishReason, Token, TokenKind, TokenView, Usage};
pub use verdict::{DriftReport, Outcome, Severity, Violation};
