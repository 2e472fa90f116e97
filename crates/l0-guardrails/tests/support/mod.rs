//! Passes texts to rules, in all the ways in which a stream can be divided.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    unreachable_pub,
    single_use_lifetimes,
    reason = "a module of test binaries"
)]

use l0_core::{Check, Ended, Findings, Severity, Violation};

/// Returns the violations of a text that arrives in these pieces.
pub fn violations_of<'a, C: Check>(
    mut rule: C,
    pieces: impl IntoIterator<Item = &'a str>,
) -> Vec<Violation> {
    let mut findings = Findings::new();
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        rule.text(piece, &mut findings);
    }
    rule.end(&Ended::new(true), &mut findings);
    findings.iter().cloned().collect()
}

/// Divides the text at random character boundaries, without empty pieces.
pub fn split<'a>(text: &'a str, rng: &mut fastrand::Rng) -> Vec<&'a str> {
    let mut borders: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    borders.retain(|_| rng.u8(..4) == 0);
    borders.push(text.len());
    let mut start = 0;
    borders
        .into_iter()
        .map(|end| &text[std::mem::replace(&mut start, end)..end])
        .filter(|piece| !piece.is_empty())
        .collect()
}

/// Returns the violations of a text: as one piece, one character per piece, and in 50 random divisions.
/// They must all be equal.
pub fn violations_in_any_split<C: Check>(make: impl Fn() -> C, text: &str) -> Vec<Violation> {
    let whole = violations_of(make(), [text]);
    let characters: Vec<&str> = text.split("").collect();
    assert_eq!(
        violations_of(make(), characters),
        whole,
        "one character per piece: {text:?}"
    );
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..50 {
        let pieces = split(text, &mut rng);
        assert_eq!(
            violations_of(make(), pieces.iter().copied()),
            whole,
            "{pieces:?}"
        );
    }
    whole
}

/// Checks a table of texts and the violations expected for each: names and severities, in order.
pub fn check_table<C: Check>(make: impl Fn() -> C, table: &[(&str, &[(&str, Severity)])]) {
    for (text, expected) in table {
        let found = violations_in_any_split(&make, text);
        let found: Vec<_> = found.iter().map(|one| (&*one.rule, one.severity)).collect();
        assert_eq!(found, *expected, "{text:?}");
    }
}
