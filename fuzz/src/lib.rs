//! Helpers shared by the fuzz targets: texts and bodies, and the ways in which a stream can split them.

use std::convert::Infallible;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use l0_core::{Check, Ended, Findings, Usage, Violation};
use l0_providers::Decoder;

/// Returns a text and the pieces that it is split into. The first byte is their length.
pub fn pieces(data: &[u8]) -> Option<(&str, Vec<&str>)> {
    let (length, text) = data.split_first()?;
    let text = std::str::from_utf8(text).ok()?;
    let length = usize::from(*length) % 16 + 1;
    let mut rest = text;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.ceil_char_boundary(length));
        pieces.push(piece);
        rest = after;
    }
    Some((text, pieces))
}

/// Returns the violations that a rule reports for a text in these pieces.
pub fn violations<C: Check>(mut rule: C, pieces: &[&str]) -> Vec<Violation> {
    let mut findings = Findings::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        rule.text(piece, &mut findings);
    }
    rule.end(&Ended::new(true), &mut findings);
    findings.iter().cloned().collect()
}

/// Checks that a rule does not panic, and that its report does not depend on how the text is split.
pub fn check<C: Check>(make: impl Fn() -> C, data: &[u8]) -> Option<(&str, Vec<Violation>)> {
    let (text, pieces) = pieces(data)?;
    let whole = violations(make(), &[text]);
    assert_eq!(violations(make(), &pieces), whole);
    Some((text, whole))
}

/// Returns the output of a future that never waits, although a decoder yields now and then.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

/// The chunks of a response's body.
pub type Body = BoxStream<'static, Result<Vec<u8>, Infallible>>;

/// Checks that counts are consistent: no part exceeds its whole, and the total is the sum.
fn check_usage(usage: &Usage) {
    if let Some(input) = usage.input {
        let uncached = input.checked_sub(usage.cached_input.unwrap_or_default());
        let rest =
            uncached.and_then(|rest| rest.checked_sub(usage.cache_write_input.unwrap_or_default()));
        assert!(rest.is_some(), "{usage:?}");
    }
    if let Some(output) = usage.output {
        assert!(usage.reasoning.unwrap_or_default() <= output, "{usage:?}");
    }
    if let (Some(input), Some(output)) = (usage.input, usage.output) {
        assert_eq!(usage.total, Some(input.saturating_add(output)), "{usage:?}");
    }
}

/// Checks that a decoder does not panic, that its counts are consistent, and that its tokens do not depend on how the
/// body is split. The first byte is the length of the chunks.
pub fn check_decoder(decode: impl Fn(Body) -> Decoder<Body>, data: &[u8]) {
    let Some((length, body)) = data.split_first() else {
        return;
    };
    let items = |length: usize| {
        let chunks: Vec<_> = body
            .chunks(length)
            .map(|chunk| Ok(chunk.to_vec()))
            .collect();
        let decoder = decode(stream::iter(chunks).boxed()).max_event_bytes(4096);
        let items: Vec<_> = block_on(decoder.collect());
        for token in items.iter().flatten() {
            token.usage.iter().for_each(check_usage);
        }
        format!("{items:?}")
    };
    let length = usize::from(*length) % 16 + 1;
    assert_eq!(items(length), items(body.len().max(1)));
}
