//! l0-core

mod distribution;
mod error;
mod failure;
pub mod keys;
mod redact;
mod telemetry;
mod token;
mod verdict;

pub use distribution::{Bucket, Distribution};
pub use error::{Error, Refusal, SourceError, TimeoutKind};
pub use failure::{Failure, FailureKind, NetworkErrorKind, UnknownNetworkErrorKind};
pub use telemetry::{
    DriftStats, GuardrailStats, Metrics, Network, NetworkErrorRecord, SeverityCounts, Summary,
    Telemetry, Timestamp,
};
pub use token::{FinishReason, Token, TokenKind, TokenView, Usage};
pub use verdict::{DriftReport, Outcome, Severity, Violation};
