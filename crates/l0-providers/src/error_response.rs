//! Reads an error from the status, headers and body of a response.

use std::time::{Duration, SystemTime};

use l0_core::FailureKind;

use crate::error::ApiError;
use crate::report::{ErrorObject, read_error};
use crate::wait::{parse_reset, parse_seconds};

/// Limit on the part of an error's body that is read, in bytes.
pub(crate) const MAX_ERROR_BODY: usize = 64 * 1024;

impl ApiError {
    /// Reads an error from the status, headers and body of a response, or, without a status, from an error in the
    /// middle of a stream. Use it for the errors of another client.
    ///
    /// Header names must be in lower case. At most 64 KiB of the body are read. Credentials that
    /// [`redact::content`](l0_core::redact::content) recognizes are removed.
    /// Other credentials of your client are not known here and are kept.
    ///
    /// ```
    /// use l0_core::{Failure, FailureKind};
    /// use l0_providers::ApiError;
    ///
    /// let body = r#"{"error":{"message":"...","code":"insufficient_quota"}}"#;
    /// let error = ApiError::read(Some(429), [("retry-after", "20")], body);
    /// assert_eq!(error.code(), Some("insufficient_quota"));
    /// assert_eq!(error.failure().kind, FailureKind::Fatal); // no waiting helps
    /// ```
    #[must_use]
    pub fn read<'h>(
        status: Option<u16>,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        body: &str,
    ) -> Self {
        let headers = Headers(headers.into_iter().collect());
        let cut = body
            .char_indices()
            .find(|(at, c)| at + c.len_utf8() > MAX_ERROR_BODY);
        let body = &body[..cut.map_or(body.len(), |(at, _)| at)];
        let event = event_data(body);
        let error = read_error(body).or_else(|| read_error(&event));
        let error = error.unwrap_or_else(|| {
            let text = body.trim();
            let essence = headers.get("content-type").unwrap_or_default();
            let essence = essence.split(';').next().unwrap_or_default().trim();
            let is_text = !text.is_empty() && essence.eq_ignore_ascii_case("text/plain");
            ErrorObject::from_message(is_text.then_some(text))
        });
        let error = error.into_api_error(status);
        let now = SystemTime::now();
        // Rate limit headers are part of every response.
        let limited = error.failure().kind == FailureKind::RateLimited;
        let reset = || limited.then(|| headers.reset(now)).flatten();
        let wait = headers.retry_after(now).or(error.retry_after);
        let mut error = error.with_retry_after(wait.or_else(reset));
        let ids = ["x-request-id", "request-id", "apim-request-id"];
        if let Some(id) = ids.iter().find_map(|name| headers.get(name)) {
            error = error.with_request_id(Some(id));
        }
        error.should_retry(match headers.get("x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        })
    }
}

/// The data of the first event, if the body is an event stream.
fn event_data(body: &str) -> String {
    let mut data = String::new();
    for line in body.lines() {
        if let Some(more) = line.strip_prefix("data:") {
            data.push_str(more);
            data.push('\n');
        } else if line.is_empty() && !data.is_empty() {
            break;
        }
    }
    data
}

/// Lower-case names with their values.
struct Headers<'h>(Vec<(&'h str, &'h str)>);

impl<'h> Headers<'h> {
    fn get(&self, name: &str) -> Option<&'h str> {
        let header = self.0.iter().find(|(known, _)| *known == name);
        header.map(|(_, value)| *value)
    }

    /// Returns the time until the exhausted limits reset, from headers such as `x-ratelimit-reset-tokens` and
    /// `anthropic-ratelimit-requests-reset`. Considers every limit if none is marked as exhausted.
    fn reset(&self, now: SystemTime) -> Option<Duration> {
        let resets = self.0.iter().filter_map(|(name, value)| {
            if !name.contains("ratelimit") || !name.contains("reset") {
                return None;
            }
            let wait = parse_reset(value, now)?;
            let used_up = self.get(&name.replace("reset", "remaining")) == Some("0");
            Some((used_up, wait))
        });
        resets.max().map(|(_, wait)| wait)
    }

    /// Returns the delay that the server asks for: `retry-after-ms`, or `Retry-After` in seconds or as a date.
    fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        if let Some(wait) = self.get("retry-after-ms").and_then(parse_seconds) {
            return Some(wait / 1000);
        }
        let value = self.get("retry-after")?;
        if let Some(wait) = parse_seconds(value) {
            return Some(wait);
        }
        let date = |text: &str| httpdate::parse_http_date(text.trim()).ok();
        let until = date(value)?;
        // Prefers the server's own clock, as the local one may be wrong.
        let now = self.get("date").and_then(date).unwrap_or(now);
        Some(until.duration_since(now).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_in_every_form() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        let check = |pairs: &[(&str, &str)], millis: Option<u64>| {
            let expected = millis.map(Duration::from_millis);
            let headers = Headers(pairs.to_vec());
            assert_eq!(headers.retry_after(now), expected, "{pairs:?}");
        };
        check(&[], None);
        check(&[("retry-after", "2")], Some(2000));
        check(&[("retry-after", " 0.25 ")], Some(250));
        check(&[("retry-after", "-1")], None);
        check(&[("retry-after", "NaN")], None);
        check(&[("retry-after", "inf")], None);
        check(&[("retry-after", "1e300")], None);
        check(&[("retry-after", "soon")], None);
        check(
            &[("retry-after", "2"), ("retry-after-ms", "1500")],
            Some(1500),
        );
        check(&[("retry-after", "2"), ("retry-after-ms", "x")], Some(2000));
        let date = ("retry-after", "Wed, 21 Oct 2015 07:28:05 GMT");
        check(&[date], Some(5000));
        check(
            &[date, ("date", "Wed, 21 Oct 2015 07:28:04 GMT")],
            Some(1000),
        );
        check(&[("retry-after", "Wed, 21 Oct 2015 07:27:00 GMT")], Some(0));
    }

    #[test]
    fn a_long_body_is_cut_at_a_character() {
        let body = format!("a{}", "\u{1F980}".repeat(MAX_ERROR_BODY));
        let error = ApiError::read(Some(500), [("content-type", "text/plain")], &body);
        assert!(
            error
                .message
                .is_some_and(|message| message.starts_with('a'))
        );
    }
}
