//! Finish reasons of all providers.
//!
//! One vocabulary serves all dialects, as gateways pass on the words of any provider, in any case. Only letters are
//! compared, so `MAX_TOKENS`, `max-tokens` and `maxTokens` are the same word.

use l0_core::FinishReason;

/// The meaning of a finish reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The answer has ended.
    Ended(FinishReason),
    /// The provider failed and reports it as a reason. The answer is not complete.
    Failed,
}

impl Finish {
    /// Reads a reason; `None` if the word stands for no reason.
    pub(crate) fn read(reason: &str) -> Option<Self> {
        let mut letters = [0; MAX_LETTERS];
        let mut count = 0;
        for letter in reason.bytes().filter(u8::is_ascii_alphanumeric) {
            let Some(place) = letters.get_mut(count) else {
                return Some(Self::Ended(FinishReason::Other));
            };
            *place = letter.to_ascii_lowercase();
            count += 1;
        }
        let word = std::str::from_utf8(&letters[..count]).unwrap_or_default();
        // Written as an enumeration value: `FINISH_REASON_STOP`.
        let word = match word.strip_prefix("finishreason") {
            Some(rest) if !rest.is_empty() => rest,
            _ => word,
        };
        if word.is_empty() {
            // A reason without letters is still a reason.
            let blank = reason.trim().is_empty();
            return (!blank).then_some(Self::Ended(FinishReason::Other));
        }
        if ["null", "none", "nil", "undefined", "nan"].contains(&word) {
            return None;
        }
        let known = WORDS.iter().find(|(words, _)| words.contains(&word));
        let fails = || {
            FAILURES.contains(&word)
                || FAILURE_ENDS.iter().any(|end| word.ends_with(end))
                || word.starts_with("ratelimit")
        };
        Some(match known {
            Some((_, finish)) => Self::Ended(*finish),
            None if fails() => Self::Failed,
            None => Self::Ended(FinishReason::Other),
        })
    }

    /// The reason to report.
    pub(crate) fn reason(self) -> FinishReason {
        match self {
            Self::Ended(reason) => reason,
            Self::Failed => FinishReason::Other,
        }
    }
}

/// The length of the longest known word.
const MAX_LETTERS: usize = 48;

const WORDS: [(&[&str], FinishReason); 5] = [
    (
        &[
            "stop",
            "stopsequence",
            "stopsequences",
            "stoptoken",
            "stopstr",
            "stopped",
            "eos",
            "eostoken",
            "eosfound",
            "eot",
            "endturn",
            "endofturn",
            "endoftext",
            "complete",
            "completed",
            "finish",
            "finished",
            "done",
            "end",
            "ended",
            "succeeded",
        ],
        FinishReason::Stop,
    ),
    (
        &[
            "length",
            "lengthlimit",
            "limit",
            "maxlength",
            "maxtoken",
            "maxtokens",
            "maxnewtokens",
            "maxoutputtokens",
            "maxcompletiontokens",
            "maxtokensreached",
            "tokenlimit",
            "tokenlimitreached",
            "outputlimit",
            // The response's status, used if no reason is reported.
            "incomplete",
            "modellength",
            "modelcontextwindowexceeded",
            "contextlength",
            "contextlengthexceeded",
            "contextwindow",
            "contextwindowexceeded",
            // Cohere: the context limit.
            "errorlimit",
        ],
        FinishReason::Length,
    ),
    (
        &[
            "toolcall",
            "toolcalls",
            "tooluse",
            "tooluses",
            "functioncall",
            "functioncalls",
        ],
        FinishReason::ToolCalls,
    ),
    (
        &[
            "contentfilter",
            "contentfiltered",
            "contentblocked",
            "contentpolicy",
            "contentpolicyviolation",
            "policyviolation",
            "filtered",
            "blocked",
            "flagged",
            "moderation",
            "moderated",
            "safety",
            "recitation",
            "blocklist",
            "prohibitedcontent",
            "spii",
            "imagesafety",
            "imageprohibitedcontent",
            "imagerecitation",
            "modelarmor",
            "jailbreak",
            // Bedrock.
            "guardrailintervened",
            // Cohere.
            "errortoxic",
            // Zhipu.
            "sensitive",
        ],
        FinishReason::ContentFilter,
    ),
    (&["refusal", "refused", "refuse"], FinishReason::Refusal),
];

const FAILURES: [&str; 22] = [
    // vLLM and SGLang: the engine gave up the request.
    "abort",
    "aborted",
    "crashed",
    "deadlineexceeded",
    "disconnect",
    "disconnected",
    "connectionclosed",
    "connectionlost",
    "connectionreset",
    "enginedead",
    "engineshutdown",
    "exception",
    "insufficientsystemresource",
    "insufficientsystemresources",
    "interrupted",
    "overloaded",
    "preempted",
    "serviceunavailable",
    "shutdown",
    "timedout",
    "timeout",
    "unavailable",
];

const FAILURE_ENDS: [&str; 4] = ["error", "failure", "failed", "timeout"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_every_spelling() {
        use FinishReason::{ContentFilter, Length, Other, Refusal, Stop, ToolCalls};
        let ended = |reason| Some(Finish::Ended(reason));
        for (words, expected) in [
            (
                &[
                    "stop",
                    "STOP",
                    "Stop",
                    "end_turn",
                    "EndTurn",
                    "eos_token",
                    "COMPLETE",
                    "FINISH_REASON_STOP",
                    "FinishReason.STOP",
                ][..],
                ended(Stop),
            ),
            (
                &[
                    "length",
                    "LENGTH",
                    "MAX_TOKENS",
                    "max-tokens",
                    "maxTokens",
                    "max tokens",
                    "model_context_window_exceeded",
                    "ERROR_LIMIT",
                ],
                ended(Length),
            ),
            (
                &[
                    "tool_calls",
                    "TOOL_CALLS",
                    "tool_use",
                    "TOOL_CALL",
                    "function_call",
                ],
                ended(ToolCalls),
            ),
            (
                &[
                    "content_filter",
                    "Content-Filter",
                    "SAFETY",
                    "guardrail_intervened",
                    "ERROR_TOXIC",
                    "sensitive",
                    "MODEL_ARMOR",
                ],
                ended(ContentFilter),
            ),
            (&["refusal", "REFUSED"], ended(Refusal)),
            (
                &[
                    "pause_turn",
                    "MALFORMED_FUNCTION_CALL",
                    "OTHER",
                    "repetition",
                    "unheard_of",
                    "停",
                    "-",
                ],
                ended(Other),
            ),
            (
                &[
                    "error",
                    "ERROR",
                    "network_error",
                    "Network-Error",
                    "internalServerError",
                    "timeout",
                    "abort",
                    "insufficient_system_resource",
                    "generation_failed",
                    "upstream_failure",
                    "request_timeout",
                ],
                Some(Finish::Failed),
            ),
            (
                &[
                    "",
                    " ",
                    "null",
                    "NULL",
                    "Null",
                    " null ",
                    "None",
                    "undefined",
                    "nil",
                ],
                None,
            ),
        ] {
            for word in words {
                assert_eq!(Finish::read(word), expected, "{word}");
            }
        }
        assert_eq!(Finish::read(&"x".repeat(1_000_000)), ended(Other));
    }

    #[test]
    fn every_known_word_can_match() {
        let words = WORDS.iter().flat_map(|(words, _)| words.iter());
        for word in words.chain(&FAILURES) {
            assert!(word.len() <= MAX_LETTERS);
            assert!(word.bytes().all(|c| c.is_ascii_lowercase()), "{word}");
        }
    }
}
