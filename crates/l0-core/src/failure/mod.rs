//! The kinds of failure. [`read`](mod@read) classifies errors, with the texts in [`table`].

mod read;
#[cfg(test)]
mod seen;
mod table;
#[cfg(test)]
mod test_error;
mod text;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::label::{label_enum, read_back};

pub(crate) use read::{prepare, read, transport_texts};
#[cfg(test)]
pub(crate) use text::MAX_TEXT;
pub(crate) use text::{Beginning, char_boundary, texts_in_full};

/// The meaning of an error for the run: its kind, and what the server reported about it.
///
/// L0 reads one from every error of a source: see [`read`](Self::read). An error type can provide a
/// `Failure` by returning it from [`source()`](StdError::source). A builder's `classify` hook can
/// return one instead.
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
    /// The HTTP status, if a server responded with one.
    pub status: Option<u16>,
    /// The wait that the server requested, if any.
    pub retry_after: Option<Duration>,
    /// Any other detail, in words of L0 or of a client crate. It is part of messages.
    pub detail: Option<&'static str>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The connection failed. Retried, except for [`NetworkErrorKind::SslError`]. Does not count
    /// toward the model retries.
    Network(NetworkErrorKind),
    /// The server reported too many requests. Retried like a network error.
    RateLimited,
    /// The server failed. Retried like a network error.
    Server,
    /// The model's answer is faulty. Retried, and counts toward the model retries.
    Model,
    /// Another attempt would not help. Never retried.
    Fatal,
}

impl Failure {
    /// Classifies an error, as runs do by default. The first of these decides:
    ///
    /// 1. a `Failure` in the error's source chain, also inside an [`io::Error`](std::io::Error);
    /// 2. the [`kind`](std::io::Error::kind) of an `io::Error`, or Tokio's `Elapsed`, in the chain;
    /// 3. a status in the chain's texts: `status 503`, `HTTP 429`, `error code: 500`,
    ///    `502 Bad Gateway` and similar;
    /// 4. an exact text of an operating system, of reqwest, hyper, h2, rustls, OpenSSL or of
    ///    another well-known client, such as `connection closed before message completed`. It must
    ///    be a whole segment of the chain's texts: from the start, a line's start or `": "`, up to
    ///    a line's end or a `:`. The last match decides.
    ///
    /// Other words are ignored: ``invalid value for `timeout` `` is not a timeout. If nothing
    /// matches, the error is fatal and is not retried. About 1 KiB of the texts is searched.
    ///
    /// ```
    /// use std::io;
    /// use l0_core::{Failure, NetworkErrorKind};
    ///
    /// let error = io::Error::from(io::ErrorKind::ConnectionReset);
    /// let failure = Failure::read(&error);
    /// assert_eq!(failure.network_error_kind(), Some(NetworkErrorKind::Econnreset));
    ///
    /// let error = io::Error::other("upstream: Connection refused (os error 111)");
    /// let failure = Failure::read(&error);
    /// assert_eq!(failure.network_error_kind(), Some(NetworkErrorKind::Econnrefused));
    ///
    /// let error = io::Error::other("`stop`: the text `Connection refused` is too long");
    /// assert_eq!(Failure::read(&error), Failure::fatal());
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
            detail: None,
        }
    }

    /// Creates the failure of a connection.
    #[must_use]
    pub const fn network(kind: NetworkErrorKind) -> Self {
        Self::new(FailureKind::Network(kind))
    }

    /// Creates the failure for an unsuccessful HTTP status: 429 is rate limited; 408, 409, 425 and
    /// 5xx are server failures; any other is fatal.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        let kind = match status {
            429 => FailureKind::RateLimited,
            408 | 409 | 425 | 500..=599 => FailureKind::Server,
            _ => FailureKind::Fatal,
        };
        let mut failure = Self::new(kind);
        failure.status = Some(status);
        failure
    }

    /// Creates a rate-limit failure without a status.
    #[must_use]
    pub const fn rate_limited() -> Self {
        Self::new(FailureKind::RateLimited)
    }

    /// Creates a server failure without a status.
    #[must_use]
    pub const fn server() -> Self {
        Self::new(FailureKind::Server)
    }

    /// Creates the failure of a faulty answer of the model.
    #[must_use]
    pub const fn model() -> Self {
        Self::new(FailureKind::Model)
    }

    /// Creates a failure that another attempt would not fix.
    #[must_use]
    pub const fn fatal() -> Self {
        Self::new(FailureKind::Fatal)
    }

    /// Sets the wait that the server requested.
    #[must_use]
    pub const fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Sets another detail, such as `no credit left`.
    ///
    /// The detail is part of messages, so use a fixed table of your own words. A provider's words
    /// can repeat a prompt or a key.
    #[must_use]
    pub const fn detail(mut self, detail: &'static str) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Returns the class of the failure as a stable label: that of its [`NetworkErrorKind`], or
    /// else its status, `model_error`, or `_OTHER`.
    #[must_use]
    pub fn error_type(&self) -> Cow<'static, str> {
        match (self.network_error_kind(), self.status, self.kind) {
            (Some(kind), ..) => kind.as_str().into(),
            (None, Some(status), _) => status.to_string().into(),
            (None, None, FailureKind::Model) => "model_error".into(),
            // The name in OpenTelemetry's conventions for an unclassified error.
            (None, None, _) => "_OTHER".into(),
        }
    }

    /// Returns the type under which the failure counts as a network error, or `None` if it is not
    /// one.
    #[must_use]
    pub const fn network_error_kind(&self) -> Option<NetworkErrorKind> {
        match self.kind {
            FailureKind::Network(kind) => Some(kind),
            FailureKind::RateLimited => Some(NetworkErrorKind::RateLimited),
            FailureKind::Server => Some(NetworkErrorKind::ServerError),
            FailureKind::Model | FailureKind::Fatal => None,
        }
    }

    /// Describes the failure in L0's own words: `status 401`, `connection refused`, `rate limited`.
    /// Empty if it is only known to be fatal.
    pub(crate) fn describe(&self) -> String {
        let mut words = match self.status {
            Some(status) => format!("status {status}"),
            None => self.kind_in_words().to_owned(),
        };
        self.add_detail(&mut words);
        words
    }

    /// Describes it with the status's standard name: `status 401 Unauthorized`.
    pub(crate) fn describe_in_full(&self) -> String {
        let name = self.status.and_then(reason_phrase);
        match (self.status, name) {
            (Some(status), Some(name)) => {
                let mut words = format!("status {status} {name}");
                self.add_detail(&mut words);
                words
            }
            _ => self.describe(),
        }
    }

    fn add_detail(&self, words: &mut String) {
        if let Some(detail) = self.detail {
            if !words.is_empty() {
                words.push_str(", ");
            }
            words.push_str(detail);
        }
    }

    fn kind_in_words(&self) -> &'static str {
        match self.kind {
            FailureKind::Network(kind) => in_words(kind),
            FailureKind::RateLimited => "rate limited",
            FailureKind::Server => "server error",
            FailureKind::Model => "faulty answer",
            FailureKind::Fatal => "",
        }
    }
}

/// Describes the failure as part of an error's chain: `classified as connection refused`, or
/// `classified as rate limited, status 429, retry after 2 s`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With its own prefix, because the earlier errors of the chain describe the rest:
        // `(status 401)`.
        f.write_str("classified as ")?;
        f.write_str(match self.kind {
            FailureKind::Fatal => "not retryable",
            _ => self.kind_in_words(),
        })?;
        if let Some(status) = self.status {
            write!(f, ", status {status}")?;
        }
        if let Some(detail) = self.detail {
            write!(f, ", {detail}")?;
        }
        match self.retry_after {
            Some(delay) => write!(f, ", retry after {} s", delay.as_secs_f64()),
            None => Ok(()),
        }
    }
}

impl StdError for Failure {}

fn in_words(kind: NetworkErrorKind) -> &'static str {
    const WORDS: [(NetworkErrorKind, &str); 14] = [
        (NetworkErrorKind::ConnectionDropped, "connection dropped"),
        (NetworkErrorKind::FetchError, "request not sent"),
        (NetworkErrorKind::Econnreset, "connection reset"),
        (NetworkErrorKind::Econnrefused, "connection refused"),
        (NetworkErrorKind::SseAborted, "event stream aborted"),
        (NetworkErrorKind::NoBytes, "no bytes received"),
        (NetworkErrorKind::PartialChunks, "answer cut short"),
        (NetworkErrorKind::RuntimeKilled, "runtime killed"),
        (NetworkErrorKind::BackgroundThrottle, "client suspended"),
        (NetworkErrorKind::DnsError, "host name not resolved"),
        (NetworkErrorKind::SslError, "no secure connection"),
        (NetworkErrorKind::Timeout, "timed out"),
        (NetworkErrorKind::RateLimited, "rate limited"),
        (NetworkErrorKind::ServerError, "server error"),
    ];
    let words = WORDS.iter().find(|(known, _)| *known == kind);
    words.map_or("network error", |(_, words)| words)
}

/// Returns the standard name of an HTTP error status, as servers and clients write it.
pub(crate) fn reason_phrase(status: u16) -> Option<&'static str> {
    Some(match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => return None,
    })
}

label_enum! {
    /// The types of network errors: the keys of `errorsByType`.
    pub enum NetworkErrorKind {
        /// The other side closed an open connection.
        ConnectionDropped = "connection_dropped",
        /// The request could not be sent.
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
        /// The server reported too many requests.
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
    /// Returns `true` if another attempt can succeed: for all types except
    /// [`SslError`](Self::SslError).
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
            (409, FailureKind::Server),
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
    fn a_label_round_trips() {
        for &kind in NetworkErrorKind::ALL {
            assert_eq!(NetworkErrorKind::from_label(kind.as_str()), kind);
        }
        let newer = NetworkErrorKind::from_label("of_a_newer_version");
        assert_eq!(newer, NetworkErrorKind::Other);
    }
}
