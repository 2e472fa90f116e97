//! How a provider's stream fails.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use l0_core::{Failure, FailureKind, NetworkErrorKind, redact};
use serde_json::error::Category;

use crate::repair::replaced;

/// Why a provider's stream failed. It is the last item of the stream.
///
/// `E` is the byte stream's own error. The [`source()`](StdError::source) chain ends in a
/// [`Failure`], from which `l0_core` reads whether to try again; for
/// [`Transport`](Self::Transport) it is the transport error's own chain. No text of the prompt or of
/// the answer and no payload is in what `Display` and `Debug` print: of a provider's own error that is
/// its status, and its type and code if they are words of an API. Its message is in
/// [`ApiError::message`], and in what `{:#}` prints.
#[non_exhaustive]
pub enum ProviderError<E> {
    /// The byte stream, or the request, failed.
    Transport(E),
    /// The provider answered with an error.
    Api(Box<ApiError>),
    /// A payload is no JSON object. Read as a network failure of type `partial_chunks`.
    Json(InvalidJson),
    /// The stream is no UTF-8. Read as a network failure of type `partial_chunks`.
    Utf8(InvalidUtf8),
    /// One event is larger than allowed. Fatal.
    EventTooLarge(EventTooLarge),
    /// A whole answer is larger than allowed. Fatal.
    AnswerTooLarge(AnswerTooLarge),
    /// An answer that was asked for as a whole came as a stream, and was cut: it ended without an end
    /// mark and without a finish reason. Read as a network failure of type `partial_chunks`.
    Truncated,
    /// A successful response is neither an event stream nor an answer of the API. Fatal.
    NotAnAnswer(NotAnAnswer),
    /// The request cannot be written as a JSON object; nothing was sent. Fatal.
    Request(InvalidRequest),
}

/// Why a request of a client failed, or the stream that came of it: the error of a
/// [`ProviderRequest`](crate::ProviderRequest) and of a [`ProviderStream`](crate::ProviderStream). A
/// run of one fails with [`l0_core::Error<RequestError>`](l0_core::Error).
#[cfg(feature = "reqwest")]
pub type RequestError = ProviderError<reqwest::Error>;

// Bytes that are no JSON or no UTF-8 inside of an event that is complete were mangled on the way: a
// proxy cut or mixed answers, or a server split a character. The model is not at fault (which would
// count toward its retries), and the next attempt usually goes well, so this is the network's
// failure; if a server never sends anything else, `max_retries` bounds the attempts.
static MANGLED: Failure = Failure::network(NetworkErrorKind::PartialChunks);
static FATAL: Failure = Failure::fatal();

impl<E> ProviderError<E> {
    /// What the error means for a run; `None` for [`Transport`](Self::Transport), which only its
    /// own error tells.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure_ref().copied()
    }

    fn failure_ref(&self) -> Option<&Failure> {
        match self {
            Self::Transport(_) => None,
            Self::Api(error) => Some(&error.failure),
            Self::Json(_) | Self::Utf8(_) | Self::Truncated => Some(&MANGLED),
            Self::EventTooLarge(_)
            | Self::AnswerTooLarge(_)
            | Self::NotAnAnswer(_)
            | Self::Request(_) => Some(&FATAL),
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

// For `?` in a source. One for every `E` would stand in the way of all others.

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

/// Without the text of the transport's error, which [`source()`](StdError::source) gives.
impl<E> fmt::Display for ProviderError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(_) => f.write_str("the connection to the provider failed"),
            Self::Api(error) => error.fmt(f),
            Self::Json(error) => error.fmt(f),
            Self::Utf8(error) => error.fmt(f),
            Self::EventTooLarge(error) => error.fmt(f),
            Self::AnswerTooLarge(error) => error.fmt(f),
            Self::Truncated => f.write_str("the answer was cut"),
            Self::NotAnAnswer(error) => error.fmt(f),
            Self::Request(error) => error.fmt(f),
        }
    }
}

/// Of the transport's error, what [`redact::message`] says.
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

/// An error that the provider reports: in place of the answer, or in the middle of it.
///
/// Its texts are the provider's. A client takes its own credentials out of all of them. What
/// `Display` and `Debug` print of them is the type, the code and the request id, and these only if they
/// are what an API may call something: one word of at most 64 letters, digits, `_`, `-` and `.`. The
/// alternate form of `Display` (`{:#}`) says the message too.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiError {
    /// The provider's type of the error, such as `invalid_request_error`; absent if it gives none.
    pub error_type: Option<String>,
    /// The provider's code of the error, such as `rate_limit_exceeded`, or a number; absent if it
    /// gives none.
    pub code: Option<String>,
    /// The provider's message, on one line, at most 500 characters, without anything that looks
    /// like a key; absent if it gives none. It may repeat a part of the prompt, so neither `Display`
    /// nor `Debug` prints it; `{:#}` does, and so
    /// [`Monitoring::error_text`](l0_core::Monitoring::error_text) lets it leave.
    pub message: Option<String>,
    /// The HTTP status: the response's, or the one that an error in the middle of a stream names;
    /// absent if there is none.
    pub status: Option<u16>,
    /// How long the provider asks to wait; absent if it does not.
    pub retry_after: Option<Duration>,
    /// The provider's id of the request, from the response's headers or from beside the error; absent
    /// if there is none.
    pub request_id: Option<String>,
    failure: Failure,
}

/// How much of a message, and of a type or code, is kept, in characters.
const MESSAGE_CHARS: usize = 500;
const WORD_CHARS: usize = 100;

impl ApiError {
    /// An error as a provider reports it.
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

    /// A failure that the provider told as the reason why the answer ended.
    pub(crate) fn finish(reason: &str) -> Self {
        let mut error = Self::new(Some("server_error"), Some(reason), None, None);
        error.failure = Failure::server();
        error
    }

    pub(crate) fn retry_after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = delay;
        self.failure.retry_after = delay;
        self
    }

    /// What the error means if the provider says no more of it than words that tell nothing.
    #[cfg(feature = "ollama")]
    pub(crate) fn unless_told(mut self, failure: Failure) -> Self {
        let word = self.error_type.is_some() || self.code.is_some() || self.status.is_some();
        if !word && self.failure == FATAL {
            self.failure = failure;
        }
        self
    }

    /// What the server says itself of another attempt wins.
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

    pub(crate) fn request_id(mut self, id: Option<&str>) -> Self {
        self.request_id = id.map(|id| scrub(id, WORD_CHARS));
        self
    }

    /// What the error means for a run.
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

/// A text of a provider's, if it may be printed: if it is a word that an API has for something, and no
/// sentence, which may repeat the prompt.
fn word(text: Option<&String>) -> Option<&str> {
    let is_word = |text: &&str| {
        let letters = |c: u8| c.is_ascii_alphanumeric() || b"_-.".contains(&c);
        !text.is_empty() && text.len() <= 64 && text.bytes().all(letters)
    };
    text.map(String::as_str).filter(is_word)
}

/// Without the message, which only the alternate form (`{:#}`) says: a provider may repeat the prompt in
/// it, and what is printed ends up in logs and telemetry.
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

/// What a provider's error means: first what its type and code say clearly, then what only its
/// message tells, then the status, then the rest of its words.
fn classify(
    error_type: Option<&str>,
    code: Option<&str>,
    message: Option<&str>,
    status: Option<u16>,
) -> Failure {
    // Providers spell the same word in every way, so only letters and digits tell words apart.
    let letters = |word: Option<&str>| -> String {
        let letters = word.unwrap_or_default().chars().take(WORD_CHARS);
        let letters = letters.filter(char::is_ascii_alphanumeric);
        letters.map(|letter| letter.to_ascii_lowercase()).collect()
    };
    let words = [letters(error_type), letters(code)];
    let says = |parts: &[&str]| {
        words
            .iter()
            .any(|word| parts.iter().any(|part| word.contains(part)))
    };
    let message: String = message
        .unwrap_or_default()
        .chars()
        .take(MESSAGE_CHARS)
        .collect();
    let message = message.to_lowercase();
    let tells = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    let by_status = status.map(Failure::status);
    let retried = by_status.filter(|failure| failure.kind != FailureKind::Fatal);
    let mut failure = by_status.unwrap_or(FATAL);
    failure.kind = if says(&NO_CREDIT) || status == Some(402) {
        // Often comes with status 429, but no waiting helps.
        failure.detail = Some("no credit left");
        FailureKind::Fatal
    } else if says(&THROTTLED) {
        FailureKind::RateLimited
    } else if tells(&NO_CREDIT_PHRASES) {
        failure.detail = Some("no credit left");
        FailureKind::Fatal
    } else if (retried.is_some() || (status.is_none() && !says(&FATAL_WORDS)))
        && tells(&THROTTLED_PHRASES)
    {
        FailureKind::RateLimited
    } else if let Some(failure) = retried {
        failure.kind
    } else if says(&FATAL_WORDS) {
        FailureKind::Fatal
    } else if says(&SERVER) {
        FailureKind::Server
    } else {
        // A status that no new attempt mends, or an error of which nothing is known.
        FailureKind::Fatal
    };
    failure
}

// Parts of types and codes, letters and digits only.

const NO_CREDIT: [&str; 20] = [
    "insufficientquota",
    "insufficientuserquota",
    "insufficientbalance",
    "insufficientcredit",
    "insufficientfund",
    "exceededcurrentquota",
    "billing",
    "paymentrequired",
    "nocredit",
    "outofcredit",
    "notenoughcredit",
    "creditexhausted",
    "creditsexhausted",
    "creditlimit",
    "creditbalance",
    "balancenotenough",
    "spendinglimit",
    // DashScope, and Volcengine.
    "arrearage",
    "accountoverdue",
    "overduebalance",
];

const THROTTLED: [&str; 14] = [
    "ratelimit",
    "toomanyrequests",
    "resourceexhausted",
    "throttl",
    "requestlimit",
    "limitrequests",
    "limitburst",
    "burstrate",
    "concurrencylimit",
    "concurrentlimit",
    "tokenlimitperminute",
    "tokensperminute",
    "quotaexceeded",
    "slowdown",
];

const FATAL_WORDS: [&str; 5] = [
    "invalid",
    "authentication",
    "permission",
    "notfound",
    "unsupported",
];

const SERVER: [&str; 13] = [
    "overload",
    "servererror",
    "apierror",
    "internal",
    "unavailable",
    "insufficientsystemresource",
    "capacityexceeded",
    "badgateway",
    "timeout",
    "deadlineexceeded",
    "networkerror",
    "serverbusy",
    "upstreamerror",
];

// Phrases of messages, in lower case, as providers were seen to write them. A message may repeat a
// prompt, so they count only where type and code say nothing of it.

const NO_CREDIT_PHRASES: [&str; 14] = [
    "insufficient balance",
    "insufficient account balance",
    "insufficient credit",
    "insufficient quota",
    "insufficient fund",
    "credit balance is too low",
    "not enough credits",
    "out of credits",
    "no credits remaining",
    "used all available credits",
    "requires more credits",
    "recharge your account",
    "account is in arrears",
    "余额不足",
];

const THROTTLED_PHRASES: [&str; 16] = [
    "rate limit",
    "rate-limit",
    "ratelimit",
    "too many requests",
    "throttl",
    "request limit",
    "requests per minute",
    "tokens per minute",
    "quota exceeded",
    "exceeded your current quota",
    "exceeded the quota",
    "concurrency limit",
    "too many concurrent",
    "request rate increased too quickly",
    "try again in ",
    "请求过于频繁",
];

/// A payload that is no JSON object. Says where, but never what: the payload may hold the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {length} bytes is no JSON object: {problem}, at line {line} column {column}")]
#[non_exhaustive]
pub struct InvalidJson {
    /// The line in the payload, from 1.
    pub line: usize,
    /// The column in the line, in bytes, from 1; 0 if only the whole payload is at fault.
    pub column: usize,
    /// The length of the payload, in bytes.
    pub length: usize,
    /// What is wrong, in fixed words.
    pub problem: &'static str,
}

impl InvalidJson {
    pub(crate) fn new(payload: &str, error: Option<&serde_json::Error>) -> Self {
        let problem = match error.map(serde_json::Error::classify) {
            _ if payload.trim_start().starts_with('<') => "it looks like a web page",
            Some(Category::Eof) => "it ends too early",
            Some(_) => "it is malformed",
            None => "it is no object",
        };
        Self {
            line: error.map_or(1, serde_json::Error::line),
            column: error.map_or(0, serde_json::Error::column),
            length: payload.len(),
            problem,
        }
    }
}

/// A part of the stream that is no UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a line is no UTF-8 from byte {valid_up_to} on")]
#[non_exhaustive]
pub struct InvalidUtf8 {
    /// How many bytes of the line's value are valid before the first that is not.
    pub valid_up_to: usize,
}

/// An event that is larger than allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {limit} bytes")]
#[non_exhaustive]
pub struct EventTooLarge {
    /// The largest size allowed, in bytes.
    pub limit: usize,
}

/// A whole answer that is larger than allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer has more than {limit} {of}")]
#[non_exhaustive]
pub struct AnswerTooLarge {
    /// How many are allowed.
    pub limit: usize,
    /// Of what: `bytes` or `tool calls`.
    pub of: &'static str,
}

/// A successful response that is neither an event stream nor an answer of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the response is no answer of the API but `{content_type}`{}", self.hint())]
#[non_exhaustive]
pub struct NotAnAnswer {
    /// The response's content type, without parameters; or the one that its body looks like, such as
    /// `application/x-ndjson`; `unknown` if it is no content type.
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

    /// What a server puts in the place of a content type may be anything.
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

/// A request that cannot be written as a JSON object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request is no JSON object: {problem}")]
#[non_exhaustive]
pub struct InvalidRequest {
    /// What is wrong; never holds the request.
    pub problem: &'static str,
}

/// The beginnings of keys that providers hand out.
const KEY_PREFIXES: [&str; 10] = [
    "sk-", "sk_", "pk-", "rk-", "gsk_", "xai-", "AIza", "hf_", "nvapi-", "eyJ",
];
pub(crate) const REDACTED: &str = "[redacted]";
/// What stands in the place of a cut end.
pub(crate) const ELLIPSIS: &str = "…";

/// A provider's words on one line, at most `chars` characters, without what looks like a key.
fn scrub(text: &str, chars: usize) -> String {
    // Enough for `chars` characters even if much is redacted, and an end to what a server can cost.
    let cut = text.char_indices().nth(8 * chars).map(|(index, _)| index);
    let text = replaced(&text[..cut.unwrap_or(text.len())]).replace(char::is_control, " ");
    let mut clean = String::with_capacity(text.len());
    let mut after_bearer = false;
    let is_word = |c: char| c.is_alphanumeric() || "-_.*~+/=".contains(c);
    for piece in text.split_inclusive(|c| !is_word(c)) {
        let word = piece.trim_end_matches(|c| !is_word(c));
        if word.is_empty() {
            clean.push_str(piece);
            continue;
        }
        // `key=sk-...` is one word to us.
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
        let check = |text, expected: &str| assert_eq!(scrub(text, 100), expected);
        check("plain words, 12 of them", "plain words, 12 of them");
        check(
            "Incorrect API key provided: sk-proj-abc***xyz. See",
            "Incorrect API key provided: [redacted] See",
        );
        check("(Bearer abc.def)", "(Bearer [redacted])");
        check(
            "Authorization: bearer abc",
            "Authorization: bearer [redacted]",
        );
        check("\"key=gsk_12345678\"", "\"key=[redacted]\"");
        check("a\r\nb", "a  b");
        check("sk-", "sk-");
        check(
            "https://x?key=AIzaSyA12345&b=1",
            "https://x?key=[redacted]&b=1",
        );
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
    fn what_an_error_means() {
        use FailureKind::{Fatal, RateLimited, Server};
        for (error_type, code, status, kind) in [
            ("insufficient_quota", "insufficient_quota", Some(429), Fatal),
            ("tokens", "rate_limit_exceeded", Some(429), RateLimited),
            ("rate_limit_error", "", None, RateLimited),
            ("", "429", Some(429), RateLimited),
            ("", "", Some(429), RateLimited),
            ("server_error", "", None, Server),
            ("overloaded_error", "", None, Server),
            ("overloaded_error", "", Some(529), Server),
            ("api_error", "", None, Server),
            ("timeout_error", "", None, Server),
            ("billing_error", "", Some(402), Fatal),
            ("request_too_large", "", Some(413), Fatal),
            ("UNAVAILABLE", "", None, Server),
            ("INTERNAL", "", None, Server),
            ("DEADLINE_EXCEEDED", "504", Some(504), Server),
            ("RESOURCE_EXHAUSTED", "429", Some(429), RateLimited),
            ("INVALID_ARGUMENT", "400", Some(400), Fatal),
            ("", "service_unavailable", None, Server),
            ("", "internal_server_error", Some(500), Server),
            ("unheard_of", "", Some(503), Server),
            ("unheard_of", "", Some(418), Fatal),
            ("unheard_of", "", None, Fatal),
            ("", "", None, Fatal),
            (
                "invalid_request_error",
                "context_length_exceeded",
                Some(400),
                Fatal,
            ),
            ("invalid_request_error", "", None, Fatal),
            ("authentication_error", "invalid_api_key", Some(401), Fatal),
            ("permission_error", "", Some(403), Fatal),
            ("not_found_error", "model_not_found", Some(404), Fatal),
            ("", "insufficient_system_resource", None, Server),
        ] {
            let failure = classify(Some(error_type), Some(code), None, status);
            assert_eq!(failure.kind, kind, "{error_type} {code} {status:?}");
            assert_eq!(failure.status, status);
        }
    }

    #[test]
    fn messages_say_what_is_known() {
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
