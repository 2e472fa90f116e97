#![no_main]

use l0_providers::anthropic;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    l0_fuzz::check_decoder(|body| anthropic::decode(body), data);
});
