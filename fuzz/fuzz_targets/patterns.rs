#![no_main]

use l0_core::guardrail::Patterns;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    l0_fuzz::check(Patterns::new, data);
});
