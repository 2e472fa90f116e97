//! Errors of a provider's stream.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use l0_core::{Failure, FailureKind, NetworkErrorKind, redact};
use serde_json::error::Category;

use crate::classify::{MESSAGE_CHARS, WORD_CHARS, classify};
use crate::repair::replaced;

/// An error of a provider's stream. It is the last item of the stream.
///
/// `E` is the error of the byte stream. The [`source()`](StdError::source) chain ends in a [`Failure`], from which
/// `l0_core` reads whether to retry. For [`Transport`](Self::Transport), it is the chain of the transport error.
/// `Display` and `Debug` print no text of the prompt or of the answer, and no payload. Of a provider's own error they
/// print the status, and the type and code if these are single words of an API. Its message is in
/// [`ApiError::message`], and `{:#}` prints it.
#[non_exhaustive]
pub enum ProviderError<E> {
    /// The byte stream, or the request, failed.
    Transport(E),
    /// The provider answered with an error.
    Api(Box<ApiError>),
    /// A payload is not a JSON object. Read as a network failure of type `partial_chunks`.
    Json(InvalidJson),
    /// The stream is not UTF-8. Read as a network failure of type `partial_chunks`.
    Utf8(InvalidUtf8),
    /// One event exceeds the limit. Fatal.
    EventTooLarge(EventTooLarge),
    /// A whole answer exceeds the limit. Fatal.
    AnswerTooLarge(AnswerTooLarge),
    /// The answer to a request that does not stream was streamed, and ended without an end mark and without a finish
    /// reason. Read as a network failure of type `partial_chunks`.
    Truncated,
    /// A successful response is neither an event stream nor an answer of the API. Fatal.
    NotAnAnswer(NotAnAnswer),
    /// The request cannot be written as a JSON object; nothing was sent. Fatal.
    Request(InvalidRequest),
}

/// The error of a [`ProviderRequest`](crate::ProviderRequest) and of a [`ProviderStream`](crate::ProviderStream). A run
/// of one fails with [`l0_core::Error<RequestError>`](l0_core::Error).
#[cfg(feature = "reqwest")]
pub type RequestError = ProviderError<reqwest::Error>;

// Invalid JSON or UTF-8 inside a complete event was corrupted in transit: a proxy cut or mixed answers, or a server
// split a character. The model is not at fault, so this must not count as one of its retries. The next attempt usually
// succeeds, so it is a network failure. `max_retries` bounds the attempts if a server never sends anything else.
static MANGLED: Failure = Failure::network(NetworkErrorKind::PartialChunks);
static INVALID_REQUEST: Failure = Failure::fatal().detail("the request is not a JSON object");
static TOO_LARGE: Failure = Failure::fatal().detail("the response is too large");
static NOT_AN_ANSWER: Failure = Failure::fatal().detail("the response is not an answer of the API");

impl<E: StdError + 'static> ProviderError<E> {
    /// Returns the error's meaning for a run. For [`Transport`](Self::Transport), it is [`Failure::read`] of the
    /// transport's error.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Transport(error) => Failure::read(error),
            _ => self.failure_ref().copied().unwrap_or(Failure::fatal()),
        }
    }
}

impl<E> ProviderError<E> {
    /// Returns the error that the provider reports; `None` for any other error.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            _ => None,
        }
    }

    fn failure_ref(&self) -> Option<&Failure> {
        match self {
            Self::Transport(_) => None,
            Self::Api(error) => Some(&error.failure),
            Self::Json(_) | Self::Utf8(_) | Self::Truncated => Some(&MANGLED),
            Self::EventTooLarge(_) | Self::AnswerTooLarge(_) => Some(&TOO_LARGE),
            Self::NotAnAnswer(_) => Some(&NOT_AN_ANSWER),
            Self::Request(_) => Some(&INVALID_REQUEST),
        }
    }
}

/// An error that is not the transport's.
pub(crate) type Fault = ProviderError<Infallible>;

impl Fault {
    pub(crate) fn widen<E>(self) -> ProviderError<E> {
        match self {
            Self::Transport(never) => match never {},
            Self::Api(error) => ProviderError::Api(error),
            Self::Json(error) => ProviderError::Json(error),
            Self::Utf8(error) => ProviderError::Utf8(error),
            Self::EventTooLarge(error) => ProviderError::EventTooLarge(error),
            Self::AnswerTooLarge(error) => ProviderError::AnswerTooLarge(error),
            Self::Truncated => ProviderError::Truncated,
            Self::NotAnAnswer(error) => ProviderError::NotAnAnswer(error),
            Self::Request(error) => ProviderError::Request(error),
        }
    }
}

// For `?` in a source. An implementation for every `E` would conflict with all others.

impl From<std::io::Error> for ProviderError<std::io::Error> {
    fn from(error: std::io::Error) -> Self {
        Self::Transport(error)
    }
}

#[cfg(feature = "reqwest")]
impl From<reqwest::Error> for ProviderError<reqwest::Error> {
    fn from(error: reqwest::Error) -> Self {
        Self::Transport(error)
    }
}

/// Omits the text of the transport's error, which [`source()`](StdError::source) returns.
impl<E> fmt::Display for ProviderError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(_) => f.write_str("the connection to the provider failed"),
            Self::Api(error) => error.fmt(f),
            Self::Json(error) => error.fmt(f),
            Self::Utf8(error) => error.fmt(f),
            Self::EventTooLarge(error) => error.fmt(f),
            Self::AnswerTooLarge(error) => error.fmt(f),
            Self::Truncated => f.write_str("the answer was truncated"),
            Self::NotAnAnswer(error) => error.fmt(f),
            Self::Request(error) => error.fmt(f),
        }
    }
}

/// Prints [`redact::message`] of the transport's error.
impl<E: StdError + 'static> fmt::Debug for ProviderError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => f
                .debug_tuple("Transport")
                .field(&redact::message(error))
                .finish(),
            Self::Api(error) => f.debug_tuple("Api").field(error).finish(),
            Self::Json(error) => f.debug_tuple("Json").field(error).finish(),
            Self::Utf8(error) => f.debug_tuple("Utf8").field(error).finish(),
            Self::EventTooLarge(error) => f.debug_tuple("EventTooLarge").field(error).finish(),
            Self::AnswerTooLarge(error) => f.debug_tuple("AnswerTooLarge").field(error).finish(),
            Self::Truncated => f.write_str("Truncated"),
            Self::NotAnAnswer(error) => f.debug_tuple("NotAnAnswer").field(error).finish(),
            Self::Request(error) => f.debug_tuple("Request").field(error).finish(),
        }
    }
}

impl<E: StdError + 'static> StdError for ProviderError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Transport(error) => Some(error),
            _ => self
                .failure_ref()
                .map(|failure| failure as &(dyn StdError + 'static)),
        }
    }
}

/// An error that the provider reports, instead of the answer or in the middle of it.
///
/// Its texts are the provider's. A client removes its own credentials from all of them. `Display` and `Debug` print the
/// type, the code and the request id, each only if it looks like an API's identifier: one word of at most 64 letters,
/// digits, `_`, `-` and `.`. The alternate form of `Display` (`{:#}`) prints the message too.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiError {
    pub(crate) error_type: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) request_id: Option<String>,
    failure: Failure,
}

impl ApiError {
    /// Creates an error as a provider reports it.
    pub(crate) fn new(
        error_type: Option<&str>,
        code: Option<&str>,
        message: Option<&str>,
        status: Option<u16>,
    ) -> Self {
        Self {
            error_type: error_type.map(|text| scrub(text, WORD_CHARS)),
            code: code.map(|text| scrub(text, WORD_CHARS)),
            message: message.map(|text| scrub(text, MESSAGE_CHARS)),
            status,
            retry_after: None,
            request_id: None,
            failure: classify(error_type, code, message, status),
        }
    }

    /// Creates the error for a finish reason with which the provider reports a failure.
    pub(crate) fn finish(reason: &str) -> Self {
        let mut error = Self::new(Some("server_error"), Some(reason), None, None);
        error.failure = Failure::server();
        error
    }

    pub(crate) fn with_retry_after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = delay;
        self.failure.retry_after = delay;
        self
    }

    /// Sets the meaning of an error whose type, code and status are absent and whose message is not recognized.
    #[cfg(feature = "ollama")]
    pub(crate) fn unless_classified(mut self, failure: Failure) -> Self {
        let word = self.error_type.is_some() || self.code.is_some() || self.status.is_some();
        if !word && self.failure == Failure::fatal() {
            self.failure = failure;
        }
        self
    }

    /// The server's own statement on retries takes precedence.
    pub(crate) fn should_retry(mut self, retry: Option<bool>) -> Self {
        match (retry, self.failure.kind) {
            (Some(true), FailureKind::Fatal) => {
                self.failure.kind = FailureKind::Server;
                self.failure.detail = None;
            }
            (Some(false), _) => self.failure.kind = FailureKind::Fatal,
            _ => {}
        }
        self
    }

    pub(crate) fn with_request_id(mut self, id: Option<&str>) -> Self {
        self.request_id = id.map(|id| scrub(id, WORD_CHARS));
        self
    }

    /// Returns the provider's type of the error, such as `invalid_request_error`; `None` if it sends none.
    #[must_use]
    pub fn error_type(&self) -> Option<&str> {
        self.error_type.as_deref()
    }

    /// Returns the provider's code of the error, such as `rate_limit_exceeded` or a number; `None` if it sends none.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Returns the provider's message, on one line, at most 500 characters, without the credentials that
    /// [`redact::content`] recognizes; `None` if it sends none.
    ///
    /// It may repeat a part of the prompt, so neither `Display` nor `Debug` prints it. `{:#}` does, so
    /// [`Monitoring::error_text`](l0_core::Monitoring::error_text) exports it.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns the HTTP status, of the response or of an error in the middle of a stream; `None` if there is none.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        self.status
    }

    /// Returns the delay before a retry that the provider asks for; `None` if it asks for none.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns the provider's id of the request, from the response's headers or from the error's payload; `None` if
    /// there is none.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Returns the error's meaning for a run.
    #[must_use]
    pub const fn failure(&self) -> Failure {
        self.failure
    }
}

impl From<InvalidJson> for Fault {
    fn from(error: InvalidJson) -> Self {
        Self::Json(error)
    }
}

impl From<NotAnAnswer> for Fault {
    fn from(error: NotAnAnswer) -> Self {
        Self::NotAnAnswer(error)
    }
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Returns the text of a provider or of a model if it can be printed: a single identifier, and not a sentence that may
/// repeat the prompt.
pub(crate) fn word(text: Option<&String>) -> Option<&str> {
    let is_word = |text: &&str| {
        let letters = |c: u8| c.is_ascii_alphanumeric() || b"_-.".contains(&c);
        !text.is_empty() && text.len() <= 64 && text.bytes().all(letters)
    };
    text.map(String::as_str).filter(is_word)
}

/// Omits the message, which only the alternate form (`{:#}`) prints: a provider may repeat the prompt in it, and
/// printed errors end up in logs and telemetry.
impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the provider reports an error")?;
        let mut separator = " (";
        if let Some(status) = self.status {
            write!(f, "{separator}status {status}")?;
            separator = ", ";
        }
        let status = self.status.map(|status| status.to_string());
        let error_type = word(self.error_type.as_ref());
        let code = word(self.code.as_ref()).filter(|code| Some(*code) != error_type);
        for word in [error_type, code].into_iter().flatten() {
            if Some(word) != status.as_deref() {
                write!(f, "{separator}{word}")?;
                separator = ", ";
            }
        }
        if separator == ", " {
            f.write_str(")")?;
        }
        match &self.message {
            Some(message) if f.alternate() => write!(f, ": {message}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiError")
            .field("error_type", &word(self.error_type.as_ref()))
            .field("code", &word(self.code.as_ref()))
            .field("status", &self.status)
            .field("retry_after", &self.retry_after)
            .field("request_id", &word(self.request_id.as_ref()))
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl StdError for ApiError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.failure)
    }
}

/// A payload that is not a JSON object. Reports the position but never the text, which may be part of the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a payload of {length} byte{} is not a JSON object: {problem}, at line {line} column {column}",
    if *length == 1 { "" } else { "s" }
)]
#[non_exhaustive]
pub struct InvalidJson {
    /// The line in the payload, counted from 1.
    pub line: usize,
    /// The column in the line, in bytes, counted from 1; 0 if the error has no position.
    pub column: usize,
    /// The length of the payload, in bytes.
    pub length: usize,
    /// The problem, in fixed words.
    pub problem: &'static str,
}

impl InvalidJson {
    pub(crate) fn new(payload: &str, error: Option<&serde_json::Error>) -> Self {
        let problem = match error.map(serde_json::Error::classify) {
            _ if payload.trim_start().starts_with('<') => "it looks like a web page",
            Some(Category::Eof) => "it ends too early",
            Some(_) => "it is malformed",
            None => "it is another kind of value",
        };
        Self {
            line: error.map_or(1, serde_json::Error::line),
            column: error.map_or(0, serde_json::Error::column),
            length: payload.len(),
            problem,
        }
    }
}

/// A part of the stream that is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a line is not UTF-8 from byte {valid_up_to} on")]
#[non_exhaustive]
pub struct InvalidUtf8 {
    /// Number of valid bytes before the first invalid one in the line's value.
    pub valid_up_to: usize,
}

/// An event that exceeds the limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event exceeds {limit} bytes")]
#[non_exhaustive]
pub struct EventTooLarge {
    /// The limit, in bytes.
    pub limit: usize,
}

/// A whole answer that exceeds the limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer exceeds {limit} {of}")]
#[non_exhaustive]
pub struct AnswerTooLarge {
    /// The limit.
    pub limit: usize,
    /// The unit of the limit: `bytes`, `tool calls` or `vectors`.
    pub of: &'static str,
}

/// A successful response that is neither an event stream nor an answer of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the response is `{content_type}`, not an answer of the API{}", self.hint())]
#[non_exhaustive]
pub struct NotAnAnswer {
    /// The response's content type, without parameters, or the type that its body looks like, such as
    /// `application/x-ndjson`. `unknown` if the response's is not a content type.
    pub content_type: String,
}

impl NotAnAnswer {
    fn hint(&self) -> &'static str {
        match &*self.content_type {
            "application/json" => ": does the address belong to another API?",
            _ => "",
        }
    }

    pub(crate) fn json() -> Self {
        Self {
            content_type: "application/json".to_owned(),
        }
    }

    /// Servers can send anything as the content type.
    #[cfg(feature = "reqwest")]
    pub(crate) fn of(content_type: String) -> Self {
        let letter = |c: u8| c.is_ascii_alphanumeric() || b"/+-.".contains(&c);
        let is_type = (1..=64).contains(&content_type.len()) && content_type.bytes().all(letter);
        let content_type = if is_type {
            content_type
        } else {
            "unknown".to_owned()
        };
        Self { content_type }
    }
}

/// A request that cannot be serialized to a JSON object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request is not a JSON object: {problem}")]
#[non_exhaustive]
pub struct InvalidRequest {
    /// The problem; never contains the request.
    pub problem: &'static str,
}

/// Prefixes of keys that an API masks in a message, such as `sk-proj-abc***xyz`.
const KEY_PREFIXES: [&str; 10] = [
    "sk-", "sk_", "pk-", "rk-", "gsk_", "xai-", "AIza", "hf_", "nvapi-", "eyJ",
];
pub(crate) const REDACTED: &str = "[redacted]";
/// Replaces a cut end.
pub(crate) const ELLIPSIS: &str = "…";

/// Returns a provider's text on one line, at most `chars` characters, without anything that looks like a key.
///
/// Removes what [`redact::content`] removes, keys that are masked in their middle, and every word after `Bearer`.
fn scrub(text: &str, chars: usize) -> String {
    // Enough for `chars` characters even if much is redacted, and a bound on the work that a server can cause.
    let cut = text.char_indices().nth(8 * chars).map(|(index, _)| index);
    let text = replaced(&text[..cut.unwrap_or(text.len())]);
    let text = redact::content(&text.replace(|c: char| c.is_control() || c.is_whitespace(), " "));
    let mut clean = String::with_capacity(text.len());
    let mut after_bearer = false;
    let is_word = |c: char| c.is_alphanumeric() || "-_.*~+/=".contains(c);
    for (at, mut part) in text.split(REDACTED).enumerate() {
        if at > 0 {
            clean.push_str(REDACTED);
            after_bearer = false;
            // A masked key can go on after its redacted start: `***xyz`. Punctuation is not a part of it.
            let rest = part.trim_start_matches(is_word);
            let end = &part[..part.len() - rest.len()];
            if end.contains(char::is_alphanumeric) {
                part = rest;
            }
        }
        for piece in part.split_inclusive(|c| !is_word(c)) {
            let word = piece.trim_end_matches(|c| !is_word(c));
            if word.is_empty() {
                clean.push_str(piece);
                continue;
            }
            // `key=sk-...` counts as one word.
            let value = word.rfind('=').map_or(0, |at| at + 1);
            let value = if word[value..].is_empty() { 0 } else { value };
            let looks_like_key = word.len() - value >= 8
                && KEY_PREFIXES
                    .iter()
                    .any(|prefix| word[value..].starts_with(prefix));
            if after_bearer {
                clean.push_str(REDACTED);
            } else if looks_like_key {
                clean.push_str(&word[..value]);
                clean.push_str(REDACTED);
            } else {
                clean.push_str(word);
            }
            clean.push_str(&piece[word.len()..]);
            after_bearer = word.eq_ignore_ascii_case("bearer");
        }
    }
    let was_cut = cut.is_some();
    let end = clean.char_indices().nth(chars - usize::from(was_cut));
    if let Some((end, _)) = end {
        let last = clean[..end].char_indices().next_back();
        clean.truncate(if was_cut {
            end
        } else {
            last.map_or(0, |(index, _)| index)
        });
    }
    if was_cut || end.is_some() {
        clean.push_str(ELLIPSIS);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_show() {
        let check = |text: &str, expected: &str| assert_eq!(scrub(text, 100), expected);
        check("plain words, 12 of them", "plain words, 12 of them");
        check(
            "Incorrect API key provided: sk-proj-abc***xyz. See",
            "Incorrect API key provided: [redacted] See",
        );
        check("(Bearer abc.def)", "(Bearer [redacted])");
        check("Authorization: bearer abc", "Authorization: [redacted]");
        check("\"key=gsk_12345678\"", "\"key=[redacted]\"");
        check("a\r\nb", "a  b");
        check("sk-", "sk-");
        check("https://x?key=AIzaSyA12345&b=1", "https://x?[redacted]");
        check("https://user:hunter2@host/v1", "https://[redacted]@host/v1");
        check("x-api-key: hunter2", "x-api-key: [redacted]");
        check(
            "{\"api_key\":\u{2028}\"hunter2\"}",
            "{\"api_key\": \"[redacted]\"}",
        );
        for key in [
            "sk-0123456789abcdef",
            "csk-0123456789abcdef",
            "pplx-0123456789abcdef",
            "fw_0123456789abcdef",
            "tgp_0123456789abcdef",
            "r8_0123456789abcdef",
            "AKIA0123456789ABCDEF",
            "ABSK0123456789abcdef",
        ] {
            check(&format!("the key {key}. See"), "the key [redacted]. See");
            check(&format!("Bearer {key}, sorry"), "Bearer [redacted], sorry");
            check(&format!("\"{key}***wxyz\""), "\"[redacted]\"");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_left_that_core_redacts(text in r#"(?:bearer|token|key|sk-|hf_|api_key|[ :=."*\n\[\]]|[a-z0-9]{1,20}){0,12}"#) {
            let clean = scrub(&text, 1000);
            proptest::prop_assert_eq!(redact::content(&clean), clean);
        }
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let long = "\u{1F980}".repeat(100_000);
        let short = scrub(&long, MESSAGE_CHARS);
        assert_eq!(short.chars().count(), MESSAGE_CHARS);
        assert!(short.ends_with('…'));
        assert_eq!(scrub("abc", 3), "abc");
    }

    #[test]
    fn messages_contain_all_known_details() {
        let error = |t, c, m, s| ApiError::new(t, c, m, s).to_string();
        assert_eq!(
            error(None, None, None, None),
            "the provider reports an error"
        );
        assert_eq!(
            error(Some("tokens"), Some("429"), Some("slow down"), Some(429)),
            "the provider reports an error (status 429, tokens)"
        );
        assert_eq!(
            error(Some("x"), Some("x"), None, None),
            "the provider reports an error (x)"
        );
        assert_eq!(
            error(None, Some("x"), None, None),
            "the provider reports an error (x)"
        );
        let error = ApiError::new(Some("a b"), Some("x"), Some("slow down"), Some(429));
        let shown = format!("{error}");
        assert_eq!(shown, "the provider reports an error (status 429, x)");
        assert_eq!(format!("{error:#}"), format!("{shown}: slow down"));
    }
}
