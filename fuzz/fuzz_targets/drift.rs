#![no_main]

use std::convert::Infallible;

use futures_util::{FutureExt, StreamExt, stream};
use l0_core::{L0, Monitoring};
use l0_guardrails::Drift;

/// Returns the kinds of drift found in a text in these pieces.
fn drift(l0: &L0, pieces: &[&str]) -> Option<Vec<String>> {
    let items: Vec<_> = pieces
        .iter()
        .map(|piece| Ok::<_, Infallible>((*piece).to_owned()))
        .collect();
    let mut watched = l0.watch(stream::iter(items)).start();
    watched
        .by_ref()
        .for_each(|_| async {})
        .now_or_never()
        .expect("never pending");
    let drift = watched.telemetry().expect("monitoring is on").drift?;
    let mut kinds: Vec<_> = drift.types.iter().map(ToString::to_string).collect();
    kinds.sort_unstable();
    Some(kinds)
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((text, pieces)) = l0_fuzz::pieces(data) else {
        return;
    };
    // Entropy depends on how the text is split.
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .drift(Drift::new().entropy_spike(false))
        .build();
    assert_eq!(drift(&l0, &pieces), drift(&l0, &[text]));
});
