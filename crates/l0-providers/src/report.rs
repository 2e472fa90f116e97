//! An error as a provider reports it, in a response's body or in the middle of a stream.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::ApiError;
use crate::lenient::{Code, Fields, List, Object, Text, anything, default_on, read_map, skip};

/// The value of an `error` field: an object, a text, or a list with one of these first.
#[derive(Default)]
pub(crate) struct ErrorField<'a>(Option<Box<ErrorObject<'a>>>);

impl<'a> ErrorField<'a> {
    /// The error, if there is one. Beside choices, an empty object is none.
    pub(crate) fn error(self, beside_choices: bool) -> Option<Box<ErrorObject<'a>>> {
        self.0.filter(|error| !beside_choices || !error.is_empty())
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

/// An error, as the provider describes it.
#[derive(Default)]
pub(crate) struct ErrorObject<'a> {
    message: Text<'a>,
    kind: Text<'a>,
    code: Code<'a>,
    /// A number (an HTTP status) or a word (Google).
    status: Code<'a>,
    /// From Groq.
    status_code: Code<'a>,
    retry_after: Seconds,
    /// From Google: may say how long to wait.
    details: List<Detail<'a>>,
    /// From Anthropic, beside the error.
    request_id: Text<'a>,
}

impl<'de> Fields<'de> for ErrorObject<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "message" => self.message = map.next_value()?,
            // From FastAPI's validation, one level down in `detail`.
            "msg" if self.message.0.is_none() => self.message = map.next_value()?,
            "type" => self.kind = map.next_value()?,
            "code" => self.code = map.next_value()?,
            "status" => self.status = map.next_value()?,
            "status_code" => self.status_code = map.next_value()?,
            "retry_after" => self.retry_after = map.next_value()?,
            "details" => self.details.read(map)?,
            "request_id" => self.request_id = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[cfg(feature = "reqwest")]
impl<'a> ErrorObject<'a> {
    pub(crate) fn from_message(message: Option<&'a str>) -> Self {
        Self {
            message: Text(message.map(Cow::Borrowed)),
            ..Self::default()
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

    /// The typed error. The response's own `status` wins over one that the object names; `secrets`
    /// must not show.
    pub(crate) fn into_api_error(self, status: Option<u16>, secrets: &[String]) -> ApiError {
        let status = status
            .or_else(|| self.status_code.status())
            .or_else(|| self.status.status())
            .or_else(|| self.code.status());
        // `"type": "error"` only says that the payload is an error; Google has a word for a status.
        let word = self.status.0.filter(|word| word.parse::<u16>().is_err());
        let kind = self.kind.filled().filter(|kind| kind != "error").or(word);
        let delays = self.details.into_iter();
        let mut delays = delays
            .filter_map(|detail| parse_seconds(detail.retry_delay.as_str().strip_suffix('s')?));
        ApiError::new(
            kind.as_deref(),
            self.code.0.as_deref(),
            self.message.filled().as_deref(),
            status,
            secrets,
        )
        .retry_after(self.retry_after.0.or_else(|| delays.next()))
        .request_id(self.request_id.filled().map(Cow::into_owned))
    }
}

/// One of Google's details of an error.
#[derive(Default)]
struct Detail<'a> {
    /// Of a `RetryInfo`, such as `27.5s`.
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

/// A payload, or a response's body, that is an error itself or has one in it.
#[derive(Default)]
struct Envelope<'a> {
    error: ErrorField<'a>,
    detail: ErrorField<'a>,
    own: ErrorObject<'a>,
}

impl<'de> Fields<'de> for Envelope<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "error" => self.error = map.next_value()?,
            "detail" => self.detail = map.next_value()?,
            _ => self.own.read(key, map)?,
        }
        Ok(())
    }
}

/// Reads an error from a payload or body that is known to be one, whatever its shape. `None` if
/// nothing in it describes an error.
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
            if error.code.0.is_none() {
                error.code = own.code;
            }
            if error.status.0.is_none() {
                error.status = own.status;
            }
            if error.request_id.0.is_none() {
                error.request_id = own.request_id;
            }
            Some(error)
        }
        (_, own) if !own.is_empty() => Some(own),
        _ => envelope.detail.error(true).map(|error| *error),
    }
}

/// The error in a payload that is known to be or to have one, whatever its shape.
pub(crate) fn api_error(json: &str) -> ApiError {
    let error = read_error(json).unwrap_or_default();
    error.into_api_error(None, &[])
}

/// A number of seconds, also as a string.
#[derive(Default)]
struct Seconds(Option<Duration>);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = Code::deserialize(deserializer)?;
        Ok(Self(seconds.0.as_deref().and_then(parse_seconds)))
    }
}

/// A number of seconds, whole or not, that is not negative.
pub(crate) fn parse_seconds(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse::<f64>().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}
