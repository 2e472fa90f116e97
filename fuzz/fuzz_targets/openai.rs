#![no_main]

use l0_providers::openai;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    l0_fuzz::check_decoder(|body| openai::decode(body), data);
});
