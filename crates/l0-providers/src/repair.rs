//! Repairs payloads that are almost JSON: halves of surrogate pairs, and numbers without a value, such as `NaN`.
//!
//! A server that cuts text between the UTF-16 units of a character writes half of an escaped pair into each of two
//! payloads. A half is not a character, so a character of a private area replaces it until the text after it has
//! arrived. [`Halves`] then joins the two halves, or replaces a lone one with U+FFFD.

use std::borrow::Cow;
use std::collections::VecDeque;

use l0_core::TokenKind;

use crate::token::ProviderToken;

/// Stands for the surrogate D800. The other 2047 follow it.
const FIRST: u32 = 0x10_F000;
const REPLACEMENT: char = '\u{FFFD}';

fn surrogate(c: char) -> Option<u32> {
    (FIRST..FIRST + 0x800)
        .contains(&u32::from(c))
        .then(|| u32::from(c) - FIRST + 0xD800)
}

fn is_high(unit: u32) -> bool {
    unit < 0xDC00
}

/// Returns the text with U+FFFD in place of each half.
pub(crate) fn replaced(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| surrogate(c).is_some()) {
        text.replace(|c| surrogate(c).is_some(), "\u{FFFD}").into()
    } else {
        text.into()
    }
}

/// Returns the payload with a private character in place of each escape that is half a pair; `None` if there is none.
pub(crate) fn mark_halves(json: &str) -> Option<String> {
    let bytes = json.as_bytes();
    // The UTF-16 unit of an escape that begins here.
    let unit = |at: usize| {
        let digits = json.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        let unit = u32::from_str_radix(digits, 16).ok()?;
        (0xD800..0xE000).contains(&unit).then_some(unit)
    };
    let mut marked = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &bytes[at..]) {
        at += found;
        let Some(half) = unit(at) else {
            at = (at + 2).min(bytes.len());
            continue;
        };
        if is_high(half) && unit(at + 6).is_some_and(|low| !is_high(low)) {
            at += 12;
            continue;
        }
        marked.push_str(&json[copied..at]);
        marked.extend(char::from_u32(half - 0xD800 + FIRST));
        at += 6;
        copied = at;
    }
    (copied > 0).then(|| marked + &json[copied..])
}

/// Returns the payload with `null` in place of numbers that have no value: `NaN`, `Infinity` and `-Infinity`, as Python
/// writes them, and numbers above the range of floats. Returns `None` if there is none.
pub(crate) fn without_infinite(json: &str) -> Option<String> {
    let mut fixed = String::new();
    let mut copied = 0;
    let mut at = 0;
    let mut in_string = false;
    while let Some(byte) = json.as_bytes().get(at) {
        let mut len = 1;
        match byte {
            b'\\' if in_string => len = 2,
            b'"' => in_string = !in_string,
            b'-' | b'I' | b'N' | b'0'..=b'9' if !in_string => {
                let number = number_at_start(&json[at..]);
                len = number.len().max(1);
                if number.parse().is_ok_and(|number: f64| !number.is_finite()) {
                    fixed.push_str(&json[copied..at]);
                    fixed.push_str("null");
                    copied = at + len;
                }
            }
            _ => {}
        }
        at += len;
    }
    (copied > 0).then(|| fixed + &json[copied..])
}

/// Returns the number at the start of a text, which can be a word. Empty if there is none.
fn number_at_start(text: &str) -> &str {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    if let Some(word) = WORDS.iter().find(|word| text.starts_with(**word)) {
        return &text[..word.len()];
    }
    let is_part = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
    let end = text.find(|c: char| !is_part(c));
    &text[..end.unwrap_or(text.len())]
}

/// Identifies the text that a half belongs to.
type Key = (TokenKind, u32, u32);

/// Halves that wait for the text after them; almost always empty.
#[derive(Debug, Default)]
pub(crate) struct Halves(Vec<(Key, u32)>);

/// Limit on the texts that wait at once.
const MAX_WAITING: usize = 256;

impl Halves {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Joins halves in the tokens of one payload with those that wait.
    pub(crate) fn join(&mut self, tokens: &mut VecDeque<ProviderToken>) {
        for mut token in std::mem::take(tokens) {
            let call = token.tool_call.as_ref().map_or(0, |call| call.index);
            let key = (token.kind, token.choice, call);
            let texts = [
                &mut token.finish_reason,
                &mut token.model,
                &mut token.response_id,
            ];
            for text in texts.into_iter().flatten() {
                *text = replaced(text).into_owned();
            }
            if let Some(call) = &mut token.tool_call {
                for text in [&mut call.id, &mut call.name].into_iter().flatten() {
                    *text = replaced(text).into_owned();
                }
            }
            let had_text = !token.piece_mut().is_empty();
            if had_text {
                self.join_text(key, token.piece_mut());
            }
            if token.finish.is_some() || token.finish_reason.is_some() {
                // Nothing follows in this text.
                if let Some(at) = self.0.iter().position(|(waiting, _)| *waiting == key) {
                    self.0.swap_remove(at);
                    token.piece_mut().push(REPLACEMENT);
                }
                let choice = token.choice;
                let whole = token.finish.is_some();
                self.give_up(tokens, |key| whole || key.1 == choice);
            }
            // The whole text waits.
            let empty = ProviderToken::new(token.kind, "");
            let says_nothing = {
                let mut plain = token.clone();
                plain.choice = 0;
                plain == empty
            };
            if !(had_text && says_nothing) {
                tokens.push_back(token);
            }
        }
    }

    fn join_text(&mut self, key: Key, text: &mut String) {
        let waiting = self.0.iter().position(|(waiting, _)| *waiting == key);
        let mut high = waiting.map(|at| self.0.swap_remove(at).1);
        let mut joined = String::with_capacity(text.len() + 4);
        for c in text.chars() {
            match (high.take(), surrogate(c)) {
                (Some(high), Some(low)) if !is_high(low) => {
                    let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                    joined.push(char::from_u32(code).unwrap_or(REPLACEMENT));
                }
                (before, half) => {
                    if before.is_some() {
                        joined.push(REPLACEMENT);
                    }
                    match half {
                        Some(unit) if is_high(unit) => high = Some(unit),
                        Some(_) => joined.push(REPLACEMENT),
                        None => joined.push(c),
                    }
                }
            }
        }
        match high {
            Some(unit) if self.0.len() < MAX_WAITING => self.0.push((key, unit)),
            Some(_) => joined.push(REPLACEMENT),
            None => {}
        }
        *text = joined;
    }

    /// Replaces the halves that stay alone, and yields them.
    pub(crate) fn give_up(
        &mut self,
        tokens: &mut VecDeque<ProviderToken>,
        which: impl Fn(&Key) -> bool,
    ) {
        let (alone, waiting) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(key, _)| which(key));
        self.0 = waiting;
        let alone: Vec<(Key, u32)> = alone;
        for ((kind, choice, call), _) in alone {
            let mut token = ProviderToken::new(kind, "");
            token.choice = choice;
            if kind == TokenKind::ToolCall {
                token.tool_call = Some(crate::token::ToolCall::new(call));
            }
            token.piece_mut().push(REPLACEMENT);
            tokens.push_back(token);
        }
    }
}
