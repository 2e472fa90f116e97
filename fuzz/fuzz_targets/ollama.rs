#![no_main]

use l0_providers::ollama;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    l0_fuzz::check_decoder(|body| ollama::decode(body), data);
});
