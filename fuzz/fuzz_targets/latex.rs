#![no_main]

use l0_core::guardrail::Latex;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    l0_fuzz::check(Latex::new, data);
});
