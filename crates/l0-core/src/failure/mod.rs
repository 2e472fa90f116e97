//! The kinds of failure. How one is read from an error, [`read`](mod@read) says.

mod read;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::label::{label_enum, read_back};

pub(crate) use read::{capped, read, texts};

/// What an error means for the run: which kind it is, and what the server said about it.
///
/// Core reads one from every error of a source. An error type takes part by returning a `Failure`
/// from [`source()`](StdError::source), or a builder's `classify` hook makes one.
///
/// ```
/// use std::time::Duration;
/// use l0_core::{Failure, FailureKind};
///
/// let failure = Failure::status(429).retry_after(Duration::from_secs(2));
/// assert_eq!(failure.kind, FailureKind::RateLimited);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The kind, which decides on retries.
    pub kind: FailureKind,
    /// The HTTP status, if a server answered with one.
    pub status: Option<u16>,
    /// How long the server asked to wait, if it did.
    pub retry_after: Option<Duration>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The connection failed. Retried, except for [`NetworkErrorKind::SslError`]; does not count
    /// toward the model retries.
    Network(NetworkErrorKind),
    /// The server said that it is asked too often. Retried like a network error.
    RateLimited,
    /// The server failed. Retried like a network error.
    Server,
    /// The model's answer is at fault. Retried, and counts toward the model retries.
    Model,
    /// A new attempt would not help. Never retried.
    Fatal,
}

impl Failure {
    /// Reads one from an error, as runs do by default. The first hit wins: a `Failure` in the
    /// error's source chain; the kind of an [`io::Error`](std::io::Error), or Tokio's `Elapsed`, in
    /// the chain; whole words of the text. No hit is fatal.
    ///
    /// ```
    /// use std::io;
    /// use l0_core::{Failure, NetworkErrorKind};
    ///
    /// let error = io::Error::from(io::ErrorKind::ConnectionReset);
    /// let failure = Failure::read(&error);
    /// assert_eq!(failure.network_error_kind(), Some(NetworkErrorKind::Econnreset));
    /// ```
    #[must_use]
    pub fn read(error: &(dyn StdError + 'static)) -> Self {
        read(error)
    }

    const fn new(kind: FailureKind) -> Self {
        Self {
            kind,
            status: None,
            retry_after: None,
        }
    }

    /// A failed connection.
    #[must_use]
    pub const fn network(kind: NetworkErrorKind) -> Self {
        Self::new(FailureKind::Network(kind))
    }

    /// An answer with an HTTP status that is no success: 429 is rate limited; 408, 425 and 5xx
    /// are the server's failure; any other is fatal.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        let kind = match status {
            429 => FailureKind::RateLimited,
            408 | 425 | 500..=599 => FailureKind::Server,
            _ => FailureKind::Fatal,
        };
        Self {
            kind,
            status: Some(status),
            retry_after: None,
        }
    }

    /// A faulty answer of the model.
    #[must_use]
    pub const fn model() -> Self {
        Self::new(FailureKind::Model)
    }

    /// A failure that a new attempt would not mend.
    #[must_use]
    pub const fn fatal() -> Self {
        Self::new(FailureKind::Fatal)
    }

    /// Adds how long the server asked to wait.
    #[must_use]
    pub const fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Returns the class of the failure as one of few stable words: the label of its
    /// [`NetworkErrorKind`], or else its status, `model_error`, or `_OTHER`.
    #[must_use]
    pub fn error_type(&self) -> Cow<'static, str> {
        match (self.network_error_kind(), self.status, self.kind) {
            (Some(kind), ..) => kind.as_str().into(),
            (None, Some(status), _) => status.to_string().into(),
            (None, None, FailureKind::Model) => "model_error".into(),
            // The name that OpenTelemetry's conventions have for what has none.
            (None, None, _) => "_OTHER".into(),
        }
    }

    /// Under which type the failure is counted among the network errors; `None` if it is none.
    #[must_use]
    pub const fn network_error_kind(&self) -> Option<NetworkErrorKind> {
        match self.kind {
            FailureKind::Network(kind) => Some(kind),
            FailureKind::RateLimited => Some(NetworkErrorKind::RateLimited),
            FailureKind::Server => Some(NetworkErrorKind::ServerError),
            FailureKind::Model | FailureKind::Fatal => None,
        }
    }
}

pub(crate) fn prepare() {}
impl Failure {
    pub(crate) fn describe(&self) -> String {
        self.status.map_or_else(
            || {
                self.network_error_kind()
                    .map_or_else(String::new, |kind| kind.as_str().replace('_', " "))
            },
            |status| format!("status {status}"),
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FailureKind::Network(kind) => write!(f, "network error: {kind}")?,
            FailureKind::RateLimited => f.write_str("rate limited")?,
            FailureKind::Server => f.write_str("server error")?,
            FailureKind::Model => f.write_str("model error")?,
            FailureKind::Fatal => f.write_str("fatal error")?,
        }
        if let Some(status) = self.status {
            write!(f, ", status {status}")?;
        }
        if let Some(delay) = self.retry_after {
            write!(f, ", retry after {} s", delay.as_secs_f64())?;
        }
        Ok(())
    }
}

impl StdError for Failure {}

label_enum! {
    /// The types of network errors: the keys of `errorsByType`.
    pub enum NetworkErrorKind {
        /// An open connection was closed by the other side.
        ConnectionDropped = "connection_dropped",
        /// The request could not be made.
        FetchError = "fetch_error",
        /// The connection was reset.
        Econnreset = "econnreset",
        /// The connection was refused.
        Econnrefused = "econnrefused",
        /// A server-sent event stream was aborted.
        SseAborted = "sse_aborted",
        /// The answer had no bytes.
        NoBytes = "no_bytes",
        /// The answer was cut short.
        PartialChunks = "partial_chunks",
        /// The process or function behind the source was killed.
        RuntimeKilled = "runtime_killed",
        /// A background client was suspended.
        BackgroundThrottle = "background_throttle",
        /// A host name could not be resolved.
        DnsError = "dns_error",
        /// TLS failed. Never retried.
        SslError = "ssl_error",
        /// A time limit was exceeded.
        Timeout = "timeout",
        /// A network error of no known type.
        Unknown = "unknown",
        /// The server said that it is asked too often.
        RateLimited = "rate_limited",
        /// The server failed.
        ServerError = "server_error",
    }
    only_read {
        /// A type that this version does not know, read back from a record.
        Other = "other"
    }
}
read_back!(NetworkErrorKind);

impl NetworkErrorKind {
    /// Returns whether a new attempt may succeed: all but [`SslError`](Self::SslError).
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        !matches!(self, Self::SslError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_means_what_the_docs_say() {
        for (status, kind) in [
            (400, FailureKind::Fatal),
            (401, FailureKind::Fatal),
            (404, FailureKind::Fatal),
            (408, FailureKind::Server),
            (425, FailureKind::Server),
            (429, FailureKind::RateLimited),
            (500, FailureKind::Server),
            (529, FailureKind::Server),
        ] {
            let failure = Failure::status(status);
            assert_eq!((failure.kind, failure.status), (kind, Some(status)));
        }
    }

    #[test]
    fn a_label_is_read_back() {
        for &kind in NetworkErrorKind::ALL {
            assert_eq!(NetworkErrorKind::from_label(kind.as_str()), kind);
        }
        let newer = NetworkErrorKind::from_label("of_a_newer_version");
        assert_eq!(newer, NetworkErrorKind::Other);
    }
}
