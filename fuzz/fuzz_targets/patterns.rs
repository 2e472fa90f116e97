#![no_main]

use l0_guardrails::Patterns;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    l0_fuzz::check(Patterns::new, data);
});
