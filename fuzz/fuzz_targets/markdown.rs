#![no_main]

use l0_core::guardrail::Markdown;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    l0_fuzz::check(Markdown::new, data);
});
