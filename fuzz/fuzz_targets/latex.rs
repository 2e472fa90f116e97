#![no_main]

use l0_guardrails::Latex;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    l0_fuzz::check(Latex::new, data);
});
