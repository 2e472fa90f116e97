//! The secrets of a client: its key, and the credentials in its headers and its address.
//!
//! A server knows them all and can repeat them anywhere. They are removed from everything that a client's stream
//! yields, in one place each: errors, and the names in a token.

use std::ops::Range;
use std::sync::Arc;

#[cfg(feature = "reqwest")]
use l0_core::redact;
use memchr::memmem;

use crate::error::{ELLIPSIS, ProviderError, REDACTED};
use crate::token::ProviderToken;

/// Length of the shortest secret that is detected, in bytes. A shorter one may be part of any word.
const SHORTEST: usize = 6;

/// Length of the pieces by which a longer secret is detected, in bytes.
const PIECE: usize = 12;

/// Length of the shortest secret prefix that is detected at the end of a cut text, in bytes.
const SHORTEST_BEGINNING: usize = 4;

/// The query parameter that is not a secret: Azure's. Its values, such as `preview`, are parts of model names.
#[cfg(feature = "reqwest")]
const VERSION: &str = "api-version";

/// Words of a header's name that mark its value as a credential.
#[cfg(feature = "reqwest")]
const NAMES: [&str; 7] = ["auth", "bearer", "jwt", "key", "pat", "pwd", "sig"];

/// Suffixes of such words. `key` is not one, as a gateway's name ends with it.
#[cfg(feature = "reqwest")]
const NAME_ENDS: [&str; 13] = [
    "accesskey",
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "secret",
    "secretkey",
    "signature",
    "token",
];

/// Words before a credential in a value.
#[cfg(feature = "reqwest")]
const SCHEMES: [&str; 6] = ["bearer", "basic", "digest", "token", "key", "apikey"];

/// Number of letters and digits in a row that look random: of those that change often between lower case, upper case
/// and digits, and of any.
#[cfg(feature = "reqwest")]
const RANDOM: (usize, usize) = (16, 32);

/// Minimum number of these changes in the shorter one.
#[cfg(feature = "reqwest")]
const CHANGES: usize = 4;

/// The credentials of a client. Clones are cheap. Empty for a response to a request that no client of this crate sent.
///
/// A secret is detected whole and in pieces of at least twelve bytes, in any case, with spaces or line breaks in it,
/// percent-encoded, with JSON escapes, and in base64 at any offset.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// One line for each form of each secret, normalized by [`normal`], each after a line break.
    forms: Arc<[u8]>,
}

impl Secrets {
    pub(crate) fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Returns the text with its secrets redacted; `None` if it contains none.
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

    /// Returns the ranges of secrets among these letters.
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

        // A cut text may end within a secret, with too little of it left for a piece.
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

    /// Redacts secrets in an error, in every field that a server can fill.
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
            // These contain no text from a server.
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

    /// Redacts secrets in names that are exported.
    #[cfg(feature = "reqwest")]
    pub(crate) fn hide_in_all<const N: usize>(&self, names: [&mut Option<String>; N]) {
        names.into_iter().for_each(|name| self.hide_in(name));
    }

    /// Redacts secrets in the names of a token that are exported.
    pub(crate) fn hide_in_names(&self, token: &mut ProviderToken) {
        if !self.is_empty() && (token.model.is_some() || token.response_id.is_some()) {
            self.hide_in(&mut token.model);
            self.hide_in(&mut token.response_id);
        }
    }
}

#[cfg(feature = "reqwest")]
impl Secrets {
    /// Adds the value of a header if it is a credential. Any other value, such as a provider's name, can be part of a
    /// model's name.
    pub(crate) fn add_header(&mut self, name: &str, value: &str) {
        if names_credential(name) || looks_like_credential(value) {
            self.add(value);
        }
    }

    /// Adds a key or the value of a header: the whole, and each of its words except a scheme before them (`Bearer`).
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

    /// Adds the possible secrets of an address: user, password, and the values of its query except an API version.
    pub(crate) fn add_address(&mut self, url: &reqwest::Url) {
        let mut forms = self.forms.to_vec();
        // Sent together in a header, in base64.
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

/// Returns `true` if the value of a header with this name is a credential.
#[cfg(feature = "reqwest")]
fn names_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| NAMES.contains(&word) || NAME_ENDS.iter().any(|end| word.ends_with(end)))
}

/// Returns `true` if a header's value contains a credential: after a scheme, in a form that the redactor recognizes, or
/// because it looks random.
#[cfg(feature = "reqwest")]
fn looks_like_credential(value: &str) -> bool {
    let mut words = value.split_whitespace();
    let first = words.next().unwrap_or_default().to_ascii_lowercase();
    (SCHEMES.contains(&&*first) && words.next().is_some())
        || redact::text(value).contains(REDACTED)
        || value
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(looks_random)
}

/// Returns `true` if letters and digits alternate unlike words, versions and dates. The parts of a UUID are too short
/// to decide.
#[cfg(feature = "reqwest")]
fn looks_random(run: &str) -> bool {
    let kind = |byte: &u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let kinds = Vec::from_iter(run.bytes().map(|byte| kind(&byte)));
    let changes = kinds.windows(2).filter(|pair| pair[0] != pair[1]).count();
    run.len() >= RANDOM.1 || (run.len() >= RANDOM.0 && changes >= CHANGES)
}

/// Adds a line for a secret as it is, and lines for the parts of it that are visible in base64 at each of the three
/// offsets.
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
        // The first and the last letter may contain bits of adjacent text.
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

/// Returns the letters of a text that distinguish secrets, each with its place: in lower case, in either base64
/// alphabet, percent-decoded, without spaces, line breaks and backslashes.
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

/// Returns the byte that a text begins with, if it is percent-encoded.
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
    fn a_secret_is_found_in_every_form_that_a_server_can_use() {
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
    fn a_header_is_redacted_whole_and_by_its_words() {
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
    fn a_header_is_a_secret_by_its_name_or_its_value() {
        const HEX: &str = "3f786850e387550fdab836ed7e6dc881";
        const UUID: &str = "123e4567-e89b-12d3-a456-426614174000";
        for (name, value) in [
            // Any value of a header with such a name.
            ("Authorization", "opaque words"),
            ("Proxy-Authorization", "Digest opaque"),
            ("cf-aig-authorization", "Bearer opaque-one"),
            ("Helicone-Auth", "Bearer opaque-one"),
            ("api-key", "opaque-one"),
            ("x-api-key", "opaque-one"),
            ("xi-api-key", "opaque-one"),
            ("x-goog-api-key", "opaque-one"),
            ("x-litellm-api-key", "opaque-one"),
            ("x-portkey-api-key", "opaque-one"),
            ("x-portkey-virtual-key", "opaque-one"),
            ("Ocp-Apim-Subscription-Key", "opaque-one"),
            ("X-ApiKey", "opaque-one"),
            ("apikey", "opaque-one"),
            ("x-auth-token", "opaque-one"),
            ("X-Amz-Security-Token", "opaque-one"),
            ("modal-secret", "opaque-one"),
            ("CF-Access-Client-Secret", "opaque-one"),
            ("cookie", "session=opaque"),
            ("x-password", "opaque-one"),
            ("x-credentials", "opaque-one"),
            ("x-hub-signature-256", "opaque-one"),
            ("x-user-jwt", "opaque-one"),
            // Such a value in a header of any name.
            ("x-upstream", "Bearer opaque-one"),
            ("x-upstream", "Basic opaque-one"),
            ("x-upstream", "sk-proj-abcdefghijkl0123mnop"),
            ("x-upstream", "https://user:opaque@host.example/v1"),
            (
                "x-portkey-config",
                r#"{"provider":"openai","api_key":"opaque-one"}"#,
            ),
            ("x-upstream", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.opaque"),
            ("x-vercel-protection-bypass", HEX),
            ("x-upstream", "Kd83Jsl2Mx0PqT5v"),
            ("x-upstream", "aB3-kd83JsL2Mx0PqT5vW_9"),
            ("x-upstream", "abcdefghijklmnopqrstuvwxyzabcdef"),
            ("openai-organization", "org-Kd83Jsl2Mx0PqT5vWy7ZaB1c"),
            ("openai-project", "proj_Kd83Jsl2Mx0PqT5vWy7ZaB1c"),
        ] {
            let mut secrets = Secrets::default();
            secrets.add_header(name, value);
            let clean = secrets.hide(value);
            assert_eq!(clean.as_deref(), Some("[redacted]"), "{name}: {value}");
        }
        for (name, value) in [
            ("x-portkey-provider", "openai"),
            ("x-portkey-trace-id", UUID),
            ("x-portkey-config", "pc-openai-3f2a9c"),
            (
                "x-portkey-metadata",
                r#"{"_user":"anna","environment":"production"}"#,
            ),
            ("x-portkey-custom-host", "https://models.example.com/v1"),
            ("Helicone-Cache-Enabled", "true"),
            ("Helicone-Property-Environment", "production"),
            ("Helicone-Session-Path", "/courses/planning"),
            ("Helicone-Model-Override", "gpt-4o-2024-08-06"),
            ("Helicone-User-Id", "anna@example.com"),
            ("HTTP-Referer", "https://chat.example.com"),
            ("X-Title", "The Chat of the Example Company"),
            ("cf-aig-metadata", r#"{"team":"assistants","user":12345}"#),
            ("cf-aig-cache-ttl", "36000000"),
            ("anthropic-version", "2023-06-01"),
            (
                "anthropic-beta",
                "interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14,output-128k-2025-02-19",
            ),
            ("OpenAI-Beta", "assistants=v2"),
            ("openai-organization", "example-company"),
            ("openai-project", "example-project"),
            ("x-goog-user-project", "example-project-123456"),
            ("x-goog-user-project", "123456789012"),
            ("x-litellm-tags", "production,evaluation"),
            ("x-litellm-timeout", "600000"),
            ("x-ms-client-request-id", UUID),
            ("X-Amz-Date", "20240831T120000Z"),
            (
                "user-agent",
                "example-chat/1.24.3 (linux; x86_64) rust/1.85.0",
            ),
            (
                "x-model",
                "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8",
            ),
            ("x-max-tokens", "100000"),
            ("x-author", "the example company"),
            ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
            ("x-region", "europe-west4-north-amsterdam"),
        ] {
            let mut secrets = Secrets::default();
            secrets.add_header(name, value);
            assert!(secrets.is_empty(), "{name}: {value}");
        }
    }

    #[test]
    fn an_address_can_contain_secrets() {
        let mut secrets = Secrets::default();
        let url = "http://someone:p%40ssword@h/v1?api-version=preview&key=qu3ryk3y&v=1";
        secrets.add_address(&url.parse().unwrap());
        let basic = STANDARD.encode("someone:p@ssword");
        for text in ["someone", "p@ssword", "p%40ssword", "qu3ryk3y", &basic] {
            // The last letter of base64 may contain some bits.
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
                // An encoded space next to the secret is not part of it.
                let mut rest = normal(rest.as_bytes());
                prop_assert!(!rest.any(|(letter, _)| letter.is_ascii_alphanumeric()), "{}", clean);
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
