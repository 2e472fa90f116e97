#![no_main]

use l0_providers::gemini;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    l0_fuzz::check_decoder(|body| gemini::decode(body), data);
});
