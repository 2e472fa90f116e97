#![no_main]

use l0_guardrails::{Json, StrictJson};
use serde::de::IgnoredAny;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    l0_fuzz::check(StrictJson::new, data);
    let Some((text, violations)) = l0_fuzz::check(Json::new, data) else {
        return;
    };
    if text
        .trim_start_matches([' ', '\t', '\r', '\n'])
        .starts_with(['{', '['])
    {
        let valid = serde_json::from_str::<IgnoredAny>(text).is_ok();
        assert_eq!(violations.is_empty(), valid);
    }
});
