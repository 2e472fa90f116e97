//! The meaning of an error that a provider reports: the words of types, codes and messages, as observed.

use l0_core::{Failure, FailureKind};

/// Limits on a message, and on a type or code, in characters.
pub(crate) const MESSAGE_CHARS: usize = 500;
pub(crate) const WORD_CHARS: usize = 100;

/// Derives the meaning of a provider's error: from a clear type or code, then from phrases that only its message has,
/// then from the status, then from the remaining words.
pub(crate) fn classify(
    error_type: Option<&str>,
    code: Option<&str>,
    message: Option<&str>,
    status: Option<u16>,
) -> Failure {
    // Providers spell a word in many ways, so only letters and digits are compared.
    let letters = |word: Option<&str>| -> String {
        let letters = word.unwrap_or_default().chars().take(WORD_CHARS);
        let letters = letters.filter(char::is_ascii_alphanumeric);
        letters.map(|letter| letter.to_ascii_lowercase()).collect()
    };
    let words = [letters(error_type), letters(code)];
    let matches = |parts: &[&str]| {
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
    let mut failure = by_status.unwrap_or(Failure::fatal());
    failure.kind = if matches(&NO_CREDIT) || status == Some(402) {
        // Often arrives with status 429, but waiting does not help.
        failure.detail = Some("no credit left");
        FailureKind::Fatal
    } else if matches(&THROTTLED) {
        FailureKind::RateLimited
    } else if tells(&NO_CREDIT_PHRASES) {
        failure.detail = Some("no credit left");
        FailureKind::Fatal
    } else if (retried.is_some() || (status.is_none() && !matches(&FATAL_WORDS)))
        && tells(&THROTTLED_PHRASES)
    {
        FailureKind::RateLimited
    } else if let Some(failure) = retried {
        failure.kind
    } else if matches(&FATAL_WORDS) {
        FailureKind::Fatal
    } else if matches(&SERVER) {
        FailureKind::Server
    } else {
        // A status that a retry cannot fix, or an error without any known sign.
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
    // DashScope and Volcengine.
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

// Phrases of messages, in lower case, as observed from providers. A message may repeat a prompt, so they count only if
// type and code do not decide.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meaning_of_errors() {
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
}
