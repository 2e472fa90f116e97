//! Provider errors, in a response's body or in the middle of a stream.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use l0_core::FailureKind;

use crate::error::ApiError;
use crate::lenient::{Code, Fields, List, Object, Text, anything, default_on, read_map, skip};
use crate::wait;

/// The value of an `error` field: an object, a text, or a list that begins with one of these.
#[derive(Default)]
pub(crate) struct ErrorField<'a>(Option<Box<ErrorObject<'a>>>);

impl<'a> ErrorField<'a> {
    /// Returns the error, if there is one. An empty object next to choices is not an error.
    pub(crate) fn error(self, has_choices: bool) -> Option<Box<ErrorObject<'a>>> {
        self.0.filter(|error| !has_choices || !error.is_empty())
    }
}

impl<'de> Deserialize<'de> for ErrorField<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = ErrorField<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_bool<E>(self, error: bool) -> Result<Self::Value, E> {
                Ok(ErrorField(error.then(Box::default)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(ErrorField((!text.is_empty()).then(|| {
                    Box::new(ErrorObject {
                        message: Text(Some(Cow::Owned(text.to_owned()))),
                        ..ErrorObject::default()
                    })
                })))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let mut error = Box::<ErrorObject<'de>>::default();
                read_map(&mut error, map)?;
                Ok(ErrorField(Some(error)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let first = seq.next_element::<ErrorField<'de>>()?;
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(first.unwrap_or_default())
            }
            default_on!(number null);
        }
        deserializer.deserialize_any(V)
    }
}

/// An error as the provider describes it.
#[derive(Default)]
pub(crate) struct ErrorObject<'a> {
    message: Text<'a>,
    kind: Text<'a>,
    code: Code<'a>,
    /// A number (an HTTP status) or a word (Google).
    status: Code<'a>,
    /// Sent by Groq.
    status_code: Code<'a>,
    wait: Option<Duration>,
    /// Sent by Google. May contain the delay before a retry.
    details: List<Detail<'a>>,
    /// Sent by Anthropic next to the error.
    request_id: Text<'a>,
}

impl<'de> Fields<'de> for ErrorObject<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "message" => self.message = map.next_value()?,
            // `msg` is sent by FastAPI's validation, one level down in `detail`.
            "msg" | "Message" | "error_message" | "errorMessage" | "error_msg" | "status_msg"
                if self.message.0.is_none() =>
            {
                self.message = map.next_value()?;
            }
            "type" => self.kind = map.next_value()?,
            "error_type" | "errorType" | "__type" if self.kind.0.is_none() => {
                self.kind = map.next_value()?;
            }
            "code" => self.code = map.next_value()?,
            "error_code" | "errorCode" | "Code" if self.code.0.is_none() => {
                self.code = map.next_value()?;
            }
            "status" => self.status = map.next_value()?,
            "status_code" | "statusCode" | "http_status" | "httpStatus" | "http_code"
            | "httpCode" => self.status_code = map.next_value()?,
            "details" => self.details.read(map)?,
            // Gateways nest another server's error in their own.
            "error" | "inner_error" => {
                let inner: ErrorField<'de> = map.next_value()?;
                if let Some(inner) = inner.0 {
                    self.adopt(*inner);
                }
            }
            "metadata" | "headers" => {
                let mut waits = Object::<Waits>::default();
                waits.read(map)?;
                self.wait = self.wait.or(waits.0.unwrap_or_default().0);
            }
            "request_id" | "requestId" | "RequestId" => self.request_id = map.next_value()?,
            _ => match read_wait(key, map)? {
                Some(wait) => self.wait = self.wait.or(wait),
                None => skip(map)?,
            },
        }
        Ok(())
    }
}

impl<'a> ErrorObject<'a> {
    pub(crate) fn from_message(message: Option<&'a str>) -> Self {
        Self {
            message: Text(message.map(Cow::Borrowed)),
            ..Self::default()
        }
    }
}

impl<'a> ErrorObject<'a> {
    /// Fills the absent fields from another description of the error.
    fn adopt(&mut self, other: Self) {
        let take = |own: &mut Text<'a>, other: Text<'a>| {
            *own = std::mem::take(own).or(other);
        };
        take(&mut self.message, other.message);
        take(&mut self.kind, other.kind);
        take(&mut self.request_id, other.request_id);
        for (own, other) in [
            (&mut self.code, other.code),
            (&mut self.status, other.status),
            (&mut self.status_code, other.status_code),
        ] {
            if own.0.is_none() {
                *own = other;
            }
        }
        self.wait = self.wait.or(other.wait);
        if self.details.is_empty() {
            self.details = other.details;
        }
    }
}

impl ErrorObject<'_> {
    fn is_empty(&self) -> bool {
        let texts = [&self.message.0, &self.kind.0, &self.code.0];
        texts.iter().all(|text| text.is_none())
            && self.status.0.is_none()
            && self.status_code.0.is_none()
    }

    /// Converts to the typed error. The response's own `status` takes precedence over the object's.
    pub(crate) fn into_api_error(mut self, status: Option<u16>) -> ApiError {
        // The message may be another server's error, as text.
        let message = std::mem::take(&mut self.message);
        let inner = message.as_str();
        let inner = Some(inner).filter(|inner| inner.trim_start().starts_with('{'));
        match inner.and_then(read_error) {
            Some(mut inner) => {
                inner.message = inner
                    .message
                    .or(Text(Some(Cow::Borrowed(message.as_str()))));
                let mut own = self;
                own.adopt(inner);
                own.describe(status)
            }
            None => {
                self.message = message;
                self.describe(status)
            }
        }
    }

    fn describe(self, status: Option<u16>) -> ApiError {
        let status = status
            .or_else(|| self.status_code.status())
            .or_else(|| self.status.status())
            .or_else(|| self.code.status());
        // `"type": "error"` only marks the payload as an error. Google sends a word as the status.
        let word = self.status.0.filter(|word| word.parse::<u16>().is_err());
        let kind = self.kind.filled().filter(|kind| kind != "error").or(word);
        let delays = self.details.into_iter();
        let mut delays = delays.filter_map(|detail| wait::parse_span(detail.retry_delay.as_str()));
        let message = self.message.filled();
        let error = ApiError::new(
            kind.as_deref(),
            self.code.0.or(self.status_code.0).as_deref(),
            message.as_deref(),
            status,
        );
        // The message of an error that waiting cannot fix may mention any delay.
        let message = message.filter(|_| error.failure().kind != FailureKind::Fatal);
        let wait = self.wait.or_else(|| delays.next());
        let wait = wait.or_else(|| wait::in_message(&message?));
        error
            .with_retry_after(wait)
            .with_request_id(self.request_id.filled().as_deref())
    }
}

/// A detail of a Google error.
#[derive(Default)]
struct Detail<'a> {
    /// The delay in a `RetryInfo`, such as `27.5s`.
    retry_delay: Text<'a>,
}

impl<'de> Fields<'de> for Detail<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "retryDelay" => self.retry_delay = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A payload or response body that is an error or contains one.
#[derive(Default)]
struct Envelope<'a> {
    error: ErrorField<'a>,
    detail: ErrorField<'a>,
    own: ErrorObject<'a>,
}

impl<'de> Fields<'de> for Envelope<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            // `base_resp` is sent by MiniMax.
            "error" | "Error" | "errors" | "err" | "fault" | "base_resp" => {
                let error: ErrorField<'de> = map.next_value()?;
                if error.0.is_some() {
                    self.error = error;
                }
            }
            "detail" => self.detail = map.next_value()?,
            _ => self.own.read(key, map)?,
        }
        Ok(())
    }
}

/// Reads an error from a payload or body that is known to be one, in any shape. `None` if nothing in it describes an
/// error.
pub(crate) fn read_error(json: &str) -> Option<ErrorObject<'_>> {
    // Google sends a list with one error in it.
    let list = json.trim_start().starts_with('[');
    let envelope: Envelope<'_> = if list {
        serde_json::from_str::<List<_>>(json)
            .ok()?
            .into_iter()
            .next()?
    } else {
        serde_json::from_str::<Object<_>>(json).ok()?.0?
    };
    match (envelope.error.0, envelope.own) {
        (Some(error), own) if !error.is_empty() => {
            let mut error = *error;
            // Fields next to the error belong to the payload: its type is not the error's.
            let own = ErrorObject {
                message: Text(None),
                kind: Text(None),
                ..own
            };
            error.adopt(own);
            Some(error)
        }
        (_, own) if !own.is_empty() => Some(own),
        _ => envelope.detail.error(true).map(|error| *error),
    }
}

/// Returns the error in a payload of no dialect: a message next to a code, in an event of another name.
pub(crate) fn bare_error(json: &str) -> Option<ApiError> {
    const MARKS: [&[u8]; 4] = [b"ode\"", b"base_resp", b"\"errors\"", b"\"fault\""];
    let has = |mark: &&[u8]| memchr::memmem::find(json.as_bytes(), mark).is_some();
    if json.len() > 16 * 1024 || !MARKS.iter().any(has) {
        return None;
    }
    let error = read_error(json)?;
    let good = |code: &str| {
        let words = ["0", "200", "ok", "success"];
        words.iter().any(|word| code.eq_ignore_ascii_case(word))
    };
    let codes = [&error.code.0, &error.status_code.0];
    let bad = codes.into_iter().flatten().any(|code| !good(code));
    (bad && !error.message.as_str().is_empty()).then(|| error.into_api_error(None))
}

/// Returns the error in a body that is JSON and not a stream.
pub(crate) fn in_band_error(body: &str) -> Option<ErrorObject<'_>> {
    #[derive(Default)]
    struct Shape {
        is_error: bool,
    }
    impl<'de> Fields<'de> for Shape {
        fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
            match key {
                "error" => {
                    let error: ErrorField<'de> = map.next_value()?;
                    self.is_error |= error.error(false).is_some();
                }
                "object" | "type" => {
                    let word: Text<'de> = map.next_value()?;
                    self.is_error |= word.as_str() == "error";
                }
                _ => skip(map)?,
            }
            Ok(())
        }
    }
    let shape: Object<Shape> = serde_json::from_str(body).ok()?;
    let is_error = shape.0.is_some_and(|shape| shape.is_error);
    is_error.then(|| read_error(body).unwrap_or_default())
}

impl ApiError {
    /// Reads the error in a payload or a body, in any shape that providers use. `None` if it is not JSON with an error
    /// in it.
    ///
    /// Use it if a client of another crate exposes the text of an answer that it could not read, or of an error.
    /// `status` is the response's status if that is not a success.
    ///
    /// ```
    /// use l0_core::FailureKind;
    /// use l0_providers::ApiError;
    ///
    /// let payload = r#"{"error": {"code": "rate_limit_exceeded", "message": "Try again in 2s."}}"#;
    /// let error = ApiError::from_json(payload, None).ok_or("no error")?;
    /// assert_eq!(error.failure().kind, FailureKind::RateLimited);
    /// assert_eq!(error.retry_after(), Some(std::time::Duration::from_secs(2)));
    /// assert_eq!(ApiError::from_json(r#"{"choices": []}"#, None), None);
    /// # Ok::<_, &str>(())
    /// ```
    #[must_use]
    pub fn from_json(json: &str, status: Option<u16>) -> Option<Self> {
        let error = match status {
            Some(_) => read_error(json),
            None => in_band_error(json),
        };
        error.map(|error| error.into_api_error(status))
    }
}

/// Returns `true` if a body that is not a stream is JSON with an error in it.
pub(crate) fn is_error(body: &str) -> bool {
    in_band_error(body).is_some() || bare_error(body).is_some()
}

/// Returns the error in a payload that is known to have one, in any shape.
pub(crate) fn api_error(json: &str) -> ApiError {
    let error = read_error(json).unwrap_or_default();
    error.into_api_error(None)
}

/// Delays among the fields of an object and of its `headers`.
#[derive(Default)]
struct Waits(Option<Duration>);

impl<'de> Fields<'de> for Waits {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if key == "headers" {
            let mut headers = Object::<Box<Self>>::default();
            headers.read(map)?;
            self.0 = self.0.or(headers.0.and_then(|waits| waits.0));
            return Ok(());
        }
        match read_wait(key, map)? {
            Some(wait) => self.0 = self.0.or(wait),
            None => skip(map)?,
        }
        Ok(())
    }
}

/// Reads the value of a key that is a known name for a delay.
fn read_wait<'de, A: MapAccess<'de>>(
    key: &str,
    map: &mut A,
) -> Result<Option<Option<Duration>>, A::Error> {
    let letters = key.bytes().filter(u8::is_ascii_alphanumeric).take(32);
    let letters: Vec<u8> = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    let read: fn(&str) -> Option<Duration> = match &letters[..] {
        b"retryafter"
        | b"retryafterseconds"
        | b"retryafterinseconds"
        | b"retryin"
        | b"retryinseconds"
        | b"retrydelay"
        | b"resetsin"
        | b"resetin"
        | b"resetsinseconds"
        | b"resetinseconds"
        | b"resetafter"
        | b"waitseconds" => wait::parse_span,
        b"retryafterms"
        | b"retryaftermillis"
        | b"retryaftermilliseconds"
        | b"retryinms"
        | b"resetsinms"
        | b"resetinms" => |text| Some(wait::parse_seconds(text)? / 1000),
        b"resetsat"
        | b"resetat"
        | b"resettime"
        | b"retryat"
        | b"ratelimitreset"
        | b"xratelimitreset"
        | b"xratelimitresetrequests"
        | b"xratelimitresettokens" => |text| wait::parse_reset(text, SystemTime::now()),
        _ => return Ok(None),
    };
    let value: Code<'de> = map.next_value()?;
    Ok(Some(value.0.as_deref().and_then(read)))
}
