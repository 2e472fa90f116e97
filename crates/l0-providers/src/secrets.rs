//! What a client must not let out: its key, the headers it was given, and the credentials in its
//! address.
//!
//! A server knows them all and may repeat them anywhere. They are looked for in what leaves a
//! client's stream, in one place each: an error, and the names that a token carries.

use std::ops::Range;
use std::sync::Arc;

use memchr::memmem;

use crate::error::{ELLIPSIS, ProviderError, REDACTED};
use crate::token::ProviderToken;

/// The shortest secret that is looked for, in bytes: a shorter one may be a part of any word.
const SHORTEST: usize = 6;

/// How much of a longer secret gives it away, in bytes.
const PIECE: usize = 12;

/// The shortest beginning of a secret that is looked for where a text was cut, in bytes.
const SHORTEST_BEGINNING: usize = 4;

/// What names no secret in a query: Azure's. Its values, such as `preview`, are parts of models' names.
#[cfg(feature = "reqwest")]
const VERSION: &str = "api-version";

/// The credentials of a client. Cheap to clone; empty for a response to a request of somebody else.
///
/// Found are a secret as it is and each piece of it from twelve bytes on, in any case, with spaces or
/// line breaks in it, percent-encoded, with escapes of JSON, and in base64 wherever it begins there.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// A line for each form of each secret, as [`normal`] makes it, each after a line break.
    forms: Arc<[u8]>,
}

impl Secrets {
    pub(crate) fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Takes the secrets out of a text; absent if there is none in it.
    pub(crate) fn hide(&self, text: &str) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let (letters, places): (Vec<u8>, Vec<Range<usize>>) = normal(text.as_bytes()).unzip();
        let mut secret = vec![false; text.len()];
        for found in self.found(&letters) {
            secret[places[found.start].start..places[found.end - 1].end].fill(true);
        }
        if !secret.contains(&true) {
            return None;
        }
        let mut clean = String::with_capacity(text.len());
        let mut was_secret = false;
        for (at, letter) in text.char_indices() {
            let is_secret = secret[at..at + letter.len_utf8()].contains(&true);
            if !is_secret {
                clean.push(letter);
            } else if !was_secret {
                clean.push_str(REDACTED);
            }
            was_secret = is_secret;
        }
        Some(clean)
    }

    /// Where secrets stand among these letters.
    fn found(&self, letters: &[u8]) -> Vec<Range<usize>> {
        let is_known = |piece: &[u8]| memmem::find(&self.forms, piece).is_some();
        let pieces = letters.windows(PIECE).enumerate();
        let pieces = pieces.filter(|(_, piece)| is_known(piece));
        let mut found = Vec::from_iter(pieces.map(|(at, _)| at..at + PIECE));

        let forms = self.forms.split(|byte| *byte == b'\n');
        let short = forms.filter(|form| form.len() < PIECE);
        for form in short.filter(|form| form.len() >= SHORTEST) {
            let places = memmem::find_iter(letters, form);
            found.extend(places.map(|at| at..at + form.len()));
        }

        // A text that was cut may have been cut in a secret, and too little of it may be left to be a
        // piece.
        if let Some(letters) = letters.strip_suffix(ELLIPSIS.as_bytes()) {
            let ends = (SHORTEST_BEGINNING..PIECE).rev();
            let end = ends
                .filter_map(|length| letters.len().checked_sub(length))
                .find(|at| is_known(&[b"\n", &letters[*at..]].concat()));
            found.extend(end.map(|at| at..letters.len()));
        }
        found
    }

    fn hide_in(&self, text: &mut Option<String>) {
        if let Some(clean) = text.as_deref().and_then(|text| self.hide(text)) {
            *text = Some(clean);
        }
    }

    /// Takes the secrets out of an error, whatever part of it a server filled.
    pub(crate) fn hide_in_error<E>(&self, mut error: ProviderError<E>) -> ProviderError<E> {
        match &mut error {
            ProviderError::Api(error) => {
                let error = &mut **error;
                let texts = [
                    &mut error.error_type,
                    &mut error.code,
                    &mut error.message,
                    &mut error.request_id,
                ];
                texts.into_iter().for_each(|text| self.hide_in(text));
            }
            ProviderError::NotAnAnswer(error) => {
                if let Some(clean) = self.hide(&error.content_type) {
                    error.content_type = clean;
                }
            }
            // These hold no text of a server.
            ProviderError::Transport(_)
            | ProviderError::Json(_)
            | ProviderError::Utf8(_)
            | ProviderError::EventTooLarge(_)
            | ProviderError::AnswerTooLarge(_)
            | ProviderError::Truncated
            | ProviderError::Request(_) => {}
        }
        error
    }

    /// Takes the secrets out of names that leave through exporters.
    #[cfg(feature = "reqwest")]
    pub(crate) fn hide_in_all<const N: usize>(&self, names: [&mut Option<String>; N]) {
        names.into_iter().for_each(|name| self.hide_in(name));
    }

    /// Takes the secrets out of those names in a token that leave through exporters.
    pub(crate) fn hide_in_names(&self, token: &mut ProviderToken) {
        if !self.is_empty() && (token.model.is_some() || token.response_id.is_some()) {
            self.hide_in(&mut token.model);
            self.hide_in(&mut token.response_id);
        }
    }
}

#[cfg(feature = "reqwest")]
impl Secrets {
    /// Adds a key, or the value of a header: as a whole, and each of its words but a scheme before
    /// them (`Bearer`).
    pub(crate) fn add(&mut self, secret: &str) {
        let mut forms = self.forms.to_vec();
        add_forms(&mut forms, secret);
        let mut words = secret
            .split(|c: char| c.is_whitespace() || ",;=\"'".contains(c))
            .filter(|word| !word.is_empty());
        if let Some(scheme) = words.next() {
            let words = Vec::from_iter(words);
            if scheme.eq_ignore_ascii_case("basic") {
                let pair = words.first().and_then(|word| from_base64(word));
                let parts = pair.iter().flat_map(|pair| pair.splitn(2, ':'));
                parts.for_each(|part| add_forms(&mut forms, part));
            }
            words.iter().for_each(|word| add_forms(&mut forms, word));
        }
        self.forms = forms.into();
    }

    /// Adds what an address may hold of secrets: user, password, and the values of its query but the
    /// version of an API.
    pub(crate) fn add_address(&mut self, url: &reqwest::Url) {
        let mut forms = self.forms.to_vec();
        // Sent as a header, in base64: both together.
        let password = url.password().unwrap_or_default();
        if !password.is_empty() {
            add_forms(&mut forms, &format!("{}:{password}", url.username()));
        }
        let query = url.query().unwrap_or_default().split('&');
        let pairs = query.filter_map(|pair| pair.split_once('='));
        let values = pairs
            .filter(|(name, _)| *name != VERSION)
            .map(|(_, value)| value);
        for part in [url.username(), password].into_iter().chain(values) {
            add_forms(&mut forms, part);
        }
        self.forms = forms.into();
    }
}

/// Adds a line for a secret as it is, and for what of it shows in base64, which begins at one of
/// three places.
#[cfg(feature = "reqwest")]
fn add_forms(forms: &mut Vec<u8>, secret: &str) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;

    let letters: Vec<u8> = normal(secret.as_bytes())
        .map(|(letter, _)| letter)
        .collect();
    if letters.len() < SHORTEST {
        return;
    }
    let mut add = |line: &[u8]| {
        forms.push(b'\n');
        forms.extend_from_slice(line);
    };
    add(&letters);
    let decoded = percent_decoded(secret);
    for before in 0..3 {
        let bytes = [&[0; 2][..before], &decoded].concat();
        let encoded = STANDARD_NO_PAD.encode(&bytes);
        // The first and the last letter may hold bits of what stands beside the secret.
        let start = (before * 8).div_ceil(6);
        let end = bytes.len() * 8 / 6;
        let letters = normal(&encoded.as_bytes()[start..end]);
        let letters: Vec<u8> = letters.map(|(letter, _)| letter).collect();
        if letters.len() >= PIECE {
            add(&letters);
        }
    }
}

#[cfg(feature = "reqwest")]
fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = escaped(&bytes[at..]);
        decoded.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    decoded
}

#[cfg(feature = "reqwest")]
fn from_base64(word: &str) -> Option<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;

    let bytes = STANDARD_NO_PAD.decode(word.trim_end_matches('=')).ok()?;
    String::from_utf8(bytes).ok()
}

/// The letters of a text that tell secrets apart, each with its place: in lower case, of either
/// alphabet of base64, percent-decoded, without spaces, line breaks and backslashes.
fn normal(text: &[u8]) -> impl Iterator<Item = (u8, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at;
            let letter = *text.get(at)?;
            let letter = match escaped(&text[at..]) {
                Some(letter) => {
                    at += 3;
                    letter
                }
                None => {
                    at += 1;
                    letter
                }
            };
            if !letter.is_ascii_whitespace() && letter != b'\\' {
                let letter = match letter.to_ascii_lowercase() {
                    b'-' => b'+',
                    b'_' => b'/',
                    letter => letter,
                };
                return Some((letter, start..at));
            }
        }
    })
}

/// The byte that a text begins with, if it is percent-encoded.
fn escaped(text: &[u8]) -> Option<u8> {
    let (b'%', [high, low]) = (*text.first()?, text.get(1..3)?) else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(all(test, feature = "reqwest"))]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    fn secrets(all: &[&str]) -> Secrets {
        let mut secrets = Secrets::default();
        all.iter().for_each(|secret| secrets.add(secret));
        secrets
    }

    #[test]
    fn a_secret_is_found_in_every_form_that_a_server_may_give_it() {
        const KEY: &str = "ab/cd+EF==gh_ij-kl=23456";
        let secrets = secrets(&[KEY]);
        let basic = STANDARD.encode(format!("user:{KEY}"));
        let in_json = URL_SAFE_NO_PAD.encode(format!(r#"{{"a":1,"key":"{KEY}"}}"#));
        for (text, expected) in [
            (KEY.to_owned(), "[redacted]"),
            (format!("é{KEY}é"), "é[redacted]é"),
            (format!("{KEY}{KEY}"), "[redacted]"),
            (KEY.to_lowercase(), "[redacted]"),
            (KEY.to_uppercase(), "[redacted]"),
            (
                "x ab%2Fcd%2bEF%3D%3Dgh_ij-kl%3D23456 y".into(),
                "x [redacted] y",
            ),
            (r"ab\/cd+EF==gh_ij-kl=23456".into(), "[redacted]"),
            ("ab/cd+EF==\n gh_ij-kl=2 3456".into(), "[redacted]"),
            (
                "twelve: ab/cd+EF==gh, others".into(),
                "twelve: [redacted], others",
            ),
            ("cut: ab/c…".into(), "cut: [redacted]…"),
            (
                format!("twice: {}", STANDARD.encode(KEY)),
                "twice: [redacted]",
            ),
        ] {
            let clean = secrets.hide(&text);
            let clean = clean.map(|clean| clean.trim_end_matches('=').to_owned());
            assert_eq!(clean.as_deref(), Some(expected), "{text}");
        }
        for (text, least) in [(basic, "dXNlcj"), (in_json, "eyJhIjoxLCJrZXkiOi")] {
            let clean = secrets.hide(&text).unwrap();
            assert!(
                clean.starts_with(least) && clean.len() < least.len() + 20,
                "{clean}"
            );
        }
        for text in [
            "",
            "…",
            "ab/c",
            "plain words, 12 of them",
            "é",
            "%",
            "%2",
            "%zz",
            "cut: ab…",
        ] {
            assert_eq!(secrets.hide(text), None, "{text}");
        }
    }

    #[test]
    fn a_header_is_looked_for_as_a_whole_and_by_its_words() {
        let secrets = secrets(&[
            "Bearer s3cr3t",
            "Basic dXNlcm5hbWU6cGFzc3dvcmQ=",
            "session=4ndm0re; theme=d4rk",
            "tiny",
        ]);
        for (text, expected) in [
            ("s3cr3t", "[redacted]"),
            ("as bearer s3cr3t.", "as [redacted]."),
            (
                "user `username`, not `password`",
                "user `[redacted]`, not `[redacted]`",
            ),
            ("dXNlcm5hbWU6cGFzc3dvcmQ=", "[redacted]"),
            ("cookie 4ndm0re", "cookie [redacted]"),
        ] {
            assert_eq!(secrets.hide(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["Bearer", "Basic", "d4rk", "tiny"] {
            assert_eq!(secrets.hide(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_holds_secrets() {
        let mut secrets = Secrets::default();
        let url = "http://someone:p%40ssword@h/v1?api-version=preview&key=qu3ryk3y&v=1";
        secrets.add_address(&url.parse().unwrap());
        let basic = STANDARD.encode("someone:p@ssword");
        for text in ["someone", "p@ssword", "p%40ssword", "qu3ryk3y", &basic] {
            // The last letter of base64 may hold some bits.
            let clean = secrets.hide(text).unwrap();
            let rest = clean.strip_prefix("[redacted]").unwrap();
            assert!(rest.trim_end_matches('=').len() <= 1, "{text}: {clean}");
        }
        assert_eq!(secrets.hide("http://h/v1"), None);
        assert_eq!(secrets.hide("gpt-4o-audio-preview"), None);
    }

    proptest! {
        #[test]
        fn nothing_of_a_secret_is_left_and_nothing_else_goes(
            key in "[ -~]{6,40}",
            before in "[Ѐ-ӿ…]{0,20}",
            after in "[Ѐ-ӿ…]{0,20}",
        ) {
            let secrets = secrets(&[&key]);
            let is_long = normal(key.as_bytes()).count() >= SHORTEST;
            let text = format!("{before}{key}{after}");
            let clean = secrets.hide(&text);
            prop_assert_eq!(clean.is_some(), is_long, "{}", text);
            if let Some(clean) = clean {
                prop_assert!(clean.starts_with(&before) && clean.ends_with(&after), "{}", clean);
                let rest = clean.replace(REDACTED, "");
                prop_assert!(!rest.contains(|c: char| c.is_ascii_alphanumeric()), "{}", clean);
            }
        }

        #[test]
        fn no_text_and_no_secret_panics(key in ".*", text in ".*") {
            let mut secrets = Secrets::default();
            secrets.add(&key);
            secrets.hide(&text);
            secrets.hide(&format!("{text}{key}{text}…"));
        }
    }
}
