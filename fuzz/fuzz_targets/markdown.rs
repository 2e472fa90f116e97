#![no_main]

use l0_guardrails::Markdown;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    l0_fuzz::check(Markdown::new, data);
});
