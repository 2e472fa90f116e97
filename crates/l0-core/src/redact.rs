//! Takes credentials out of error texts before they reach an observer or an exporter.
//!
//! A text is walked once, and each [rule](RULES) says at each place whether a secret starts there.
//! The rules know where credentials stand (after a name, a scheme, inside a URL) and what widely
//! used keys look like. They prefer to take out too much of a text that has a credential in it,
//! and leave alone prose that only speaks of one.

use std::error::Error as StdError;
use std::ops::Range;

use crate::failure::{capped, texts};

/// The longest message that leaves, in bytes.
const MAX_MESSAGE: usize = 512;

/// What stands in a secret's place.
const REDACTED: &str = "[redacted]";

/// What stands in the place of a cut end.
const ELLIPSIS: &str = "…";

/// How often the redacted text is redacted again at most.
const MAX_PASSES: usize = 4;

/// How much of a name, or of a value that may be a secret, is looked at, in bytes.
const MAX_LOOK: usize = 64;

/// The least length of a value that is taken for a secret where one is likely.
const MIN_SECRET: usize = 8;

/// The least length of a value that is taken for a secret anywhere.
const MIN_KEY: usize = 16;

/// How many words before a token are taken for its schemes.
const MAX_SCHEMES: usize = 3;

/// How far the end of a malformed `user:password` is looked for, in bytes.
const MAX_USER_INFO: usize = 256;

/// The texts of an error and of its source chain, joined by `": "`, without credentials and cut to
/// [`MAX_MESSAGE`].
pub(crate) fn message(error: &(dyn StdError + 'static)) -> String {
    text(&texts(error))
}

/// A text without credentials and control characters, cut to [`MAX_MESSAGE`]. Redacting a text
/// again changes nothing.
pub(crate) fn text(raw: &str) -> String {
    let head = capped(raw);
    let mut text = redact_and_cut(head, head.len() < raw.len());
    // A cut, or a secret taken out, may make what is left look like a secret. Nearly always the
    // first time round finds nothing.
    for _ in 0..MAX_PASSES {
        let again = redact_and_cut(&text, false);
        if again == text {
            break;
        }
        text = again;
    }
    text
}

fn redact_and_cut(raw: &str, is_head: bool) -> String {
    let line = raw.replace(
        |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'),
        " ",
    );
    let mut text = redact(line.trim());
    if is_head || text.len() > MAX_MESSAGE {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE - ELLIPSIS.len()));
        text.truncate(text.trim_end().len());
        text.push_str(ELLIPSIS);
    }
    text
}

/// Whether a secret starts at or soon after this place, and if so, which part of the text it is.
/// A rule looks at a bounded part of the text, unless it finds a secret: then it may look at as
/// much as it takes out. So the walk takes linear time.
type Rule = fn(&str, usize) -> Option<Range<usize>>;

/// All rules but the one for URLs, which needs to know where it is.
const RULES: [Rule; 6] = [
    named_value,
    scheme_token,
    prefixed_key,
    json_web_token,
    private_key,
    bare_query,
];

/// The text with [`REDACTED`] in the place of every secret.
fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut written = 0;
    let mut at = 0;
    // Where the URL around `at` ends.
    let mut url_end = 0;
    while let Some(c) = text[at..].chars().next() {
        let secret = if text[at..].starts_with("://") {
            let user_info = user_info(text, at + 3);
            let rest = user_info.as_ref().map_or(at + 3, |secret| secret.end);
            if rest >= url_end {
                url_end = end_of_url(text, rest);
            }
            user_info
        } else if at < url_end && matches!(c, '?' | '#') {
            Some(at + 1..url_end)
        } else {
            RULES.iter().find_map(|rule| rule(text, at))
        };
        match secret.filter(|secret| !secret.is_empty()) {
            Some(secret) => {
                clean.push_str(&text[written..secret.start]);
                clean.push_str(REDACTED);
                written = secret.end;
                at = secret.end;
            }
            None => at += c.len_utf8(),
        }
    }
    clean.push_str(&text[written..]);
    clean
}

/// The `user:password` of a URL whose authority starts here.
fn user_info(text: &str, start: usize) -> Option<Range<usize>> {
    let rest = &text[start..];
    let ends_word = |c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`');
    let length = rest.find(|c| ends_word(c) || matches!(c, '/' | '?' | '#'));
    let authority = &rest[..length.unwrap_or(rest.len())];
    if let Some(length) = authority.rfind('@') {
        return Some(start..start + length);
    }
    // A password that should have been percent-encoded: what follows the colon is no port.
    let (_, port) = authority.split_once(':')?;
    let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if is_port || authority.starts_with('[') {
        return None;
    }
    let near = &rest[..rest.floor_char_boundary(MAX_USER_INFO)];
    let word = &near[..near.find(ends_word).unwrap_or(near.len())];
    word.rfind('@').map(|length| start..start + length)
}

/// Where the URL that goes on here ends. Punctuation at its end belongs to the text around it.
fn end_of_url(text: &str, start: usize) -> usize {
    let rest = &text[start..];
    let ends = |&(at, c): &(usize, char)| match c {
        // In JSON inside a text, `\/` and `\u0026` go on, and `\"` and `\n` end the URL.
        '\\' => !rest[at + 1..].starts_with(['/', 'u']),
        _ => c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`'),
    };
    let end = rest
        .char_indices()
        .find(ends)
        .map_or(rest.len(), |(at, _)| at);
    start + trim_punctuation(&rest[..end]).len()
}

/// A query outside of a URL, as in `GET /v1/models?key=...`.
fn bare_query(text: &str, at: usize) -> Option<Range<usize>> {
    let query = text[at..].strip_prefix('?')?;
    let name = query.bytes().take_while(|b| {
        b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'%' | b'[' | b']')
    });
    let length = name.count();
    (length > 0 && query[length..].starts_with('=')).then(|| at + 1..end_of_url(text, at + 1))
}

/// The value after the name of a credential: `api_key=...`, `"x-api-key": "..."`,
/// `Authorization: Bearer ...`, `("api-key", "...")`, also in escaped JSON.
fn named_value(text: &str, at: usize) -> Option<Range<usize>> {
    let separator = text.as_bytes()[at];
    if !matches!(separator, b'=' | b':' | b',') {
        return None;
    }
    let (before, after) = (&text[..at], &text[at + 1..]);
    match separator {
        b'=' => {}
        b':' if !before.ends_with(':') && !after.starts_with(':') && !after.starts_with("//") => {}
        b',' if after.trim_start().starts_with(['"', '\'', '\\']) => {}
        _ => return None,
    }
    let before = before.trim_end();
    let unquoted = before.trim_end_matches(['"', '\'', '`']);
    let is_quoted = unquoted.len() < before.len();
    let certainty = credential(unquoted.trim_end_matches('\\'))?;

    let after = after.trim_start_matches(['=', '>']).trim_start();
    let start = text.len() - after.len();
    let value = value(text, start, certainty == Certainty::Header);
    let content = &text[value.clone()];
    let is_string = text[..value.start].ends_with(['"', '\'', '`']);
    let is_secret = match certainty {
        _ if is_plain(content) => false,
        // What comes before the colon is the next name, not this one's value.
        Certainty::Header | Certainty::Name if separator == b',' => {
            let next = text[value.end..].trim_start_matches(['\\', '"', '\'']);
            is_quoted && !next.trim_start().starts_with(':')
        }
        Certainty::Header | Certainty::Name => true,
        Certainty::Word(_) if separator == b',' => false,
        Certainty::Word(_) if separator == b'=' || is_quoted => true,
        Certainty::Word(_) if is_string => is_opaque(content, MIN_SECRET),
        Certainty::Word(length) => is_opaque(content, length),
    };
    is_secret.then_some(value)
}

/// How sure it is that a name is that of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certainty {
    /// A header whose value has several words.
    Header,
    /// Nothing else has this name.
    Name,
    /// A word that prose has too ("unexpected token: ..."): after a colon, the value must look
    /// like a secret and have at least this length.
    Word(usize),
}

/// Ends of names, without their separators, that only credentials have.
const CREDENTIAL_NAMES: [&str; 34] = [
    "apikey",
    "accesskey",
    "accesskeyid",
    "authkey",
    "encryptionkey",
    "functionskey",
    "privatekey",
    "secretkey",
    "sharedkey",
    "signingkey",
    "subscriptionkey",
    "accesstoken",
    "apitoken",
    "authtoken",
    "bearertoken",
    "clienttoken",
    "csrftoken",
    "githubtoken",
    "hftoken",
    "idtoken",
    "oauthtoken",
    "privatetoken",
    "refreshtoken",
    "secrettoken",
    "securitytoken",
    "sessiontoken",
    "usertoken",
    "bearer",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "secret",
];

/// Prose that ends in a name of a credential.
const CREDENTIAL_PHRASES: [&str; 7] = [
    "api key",
    "api key provided",
    "key provided",
    "access key",
    "access token",
    "api token",
    "token provided",
];

/// Whether the text ends with the name of a credential.
fn credential(text: &str) -> Option<Certainty> {
    let tail = &text[text.ceil_char_boundary(text.len().saturating_sub(MAX_LOOK))..];
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let name = &tail[tail.trim_end_matches(is_part).len()..];
    let last_part = name.rsplit(['_', '-', '.']).next()?;
    let compact: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    // `OPENAI_API_KEY_2`
    let compact = compact.trim_end_matches(|c: char| c.is_ascii_digit());

    if compact.ends_with("authorization") || compact.ends_with("cookie") {
        return Some(Certainty::Header);
    }
    if compact == "pwd" || CREDENTIAL_NAMES.iter().any(|end| compact.ends_with(end)) {
        return Some(Certainty::Name);
    }
    let tail = tail.to_ascii_lowercase();
    if CREDENTIAL_PHRASES.iter().any(|end| tail.ends_with(end)) {
        return Some(Certainty::Word(MIN_SECRET));
    }
    let is_word = matches!(
        last_part.to_ascii_lowercase().as_str(),
        "key" | "token" | "auth" | "sig" | "signature"
    );
    // `subscriptionKey`, but not `monkey`.
    let is_camel = last_part.ends_with("Key") || last_part.ends_with("Token");
    (is_word || is_camel).then_some(Certainty::Word(MIN_KEY))
}

/// The token after a scheme: `Bearer ...`, `Basic ...`.
fn scheme_token(text: &str, at: usize) -> Option<Range<usize>> {
    let scheme = ["bearer", "basic"]
        .into_iter()
        .find(|scheme| starts_with_ignoring_case(&text[at..], scheme))?;
    let after = &text[at + scheme.len()..];
    let token = after.trim_start();
    if token.len() == after.len() || !starts_word(text, at) {
        return None;
    }
    let value = value(text, text.len() - token.len(), false);
    let content = &text[value.clone()];
    let is_secret = match scheme {
        "basic" => is_basic_token(content),
        // `Bearer realm="..."` is what a server asks for.
        _ => !is_plain(content.split('=').next().unwrap_or(content)),
    };
    is_secret.then_some(value)
}

/// Whether this is the Base64 of `user:password`, and no word of prose.
fn is_basic_token(content: &str) -> bool {
    let content = content.trim_end_matches(']');
    let look = look(content);
    let is_base64 =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_');
    let has_upper_inside = look.bytes().skip(1).any(|b| b.is_ascii_uppercase());
    let is_mixed = has_upper_inside && look.bytes().any(|b| b.is_ascii_lowercase());
    look.bytes().all(is_base64)
        && (content.ends_with('=')
            || content.len() >= MIN_SECRET
                && (is_mixed || look.bytes().any(|b| b.is_ascii_digit())))
}

/// How keys of widely used services start.
const KEY_PREFIXES: [&str; 24] = [
    "sk-",
    "sk_",
    "pk_",
    "rk_",
    "csk-",
    "gsk_",
    "xai-",
    "pplx-",
    "nvapi-",
    "r8_",
    "fw_",
    "tgp_",
    "AIza",
    "ya29.",
    "AKIA",
    "ASIA",
    "hf_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "xox",
];

/// A key that is known by how it starts.
fn prefixed_key(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = &text[at..];
    let prefix = *KEY_PREFIXES
        .iter()
        .find(|prefix| rest.starts_with(**prefix))?;
    if !starts_word(text, at) {
        return None;
    }
    let body = &rest[prefix.len()..];
    let is_part: fn(&u8) -> bool = match prefix {
        "AKIA" | "ASIA" => |b| b.is_ascii_uppercase() || b.is_ascii_digit(),
        _ => |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'),
    };
    let looked_at = body.bytes().take(MAX_LOOK).take_while(is_part).count();
    if !is_key_body(&body[..looked_at], prefix == "sk-") {
        return None;
    }
    let length = body.bytes().take_while(is_part).count();
    Some(at..at + prefix.len() + length)
}

/// Whether this follows a key's prefix in a key, and not in a name such as `sk-learn`,
/// `hf_hub_download`.
fn is_key_body(body: &str, may_be_short: bool) -> bool {
    let digits = body.bytes().filter(u8::is_ascii_digit).count();
    let is_random = digits > 0
        || body.bytes().any(|b| b.is_ascii_uppercase())
        || body.split(['-', '_']).any(|part| part.len() >= MIN_KEY);
    body.len() >= MIN_KEY && is_random || may_be_short && body.len() >= 6 && digits >= 2
}

/// A JSON web token, or anything else that is JSON in Base64.
fn json_web_token(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = &text[at..];
    if !rest.starts_with("eyJ") || !starts_word(text, at) {
        return None;
    }
    let is_part =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'=' | b'+');
    let length = rest.bytes().take_while(is_part).count();
    (length >= MIN_KEY).then(|| at..at + trim_punctuation(&rest[..length]).len())
}

/// A private key in PEM form, to its end line or that of the text.
fn private_key(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = text[at..].strip_prefix("-----BEGIN ")?;
    if !look(rest).split("-----").next()?.ends_with("PRIVATE KEY") {
        return None;
    }
    let end = rest.find("-----END ").map_or(text.len(), |end| {
        let end = text.len() - rest.len() + end + "-----END ".len();
        text[end..]
            .find("-----")
            .map_or(text.len(), |line| end + line + 5)
    });
    Some(at..end)
}

/// Where the value is that starts here: inside its quotes, or up to the next space.
fn value(text: &str, start: usize, is_header: bool) -> Range<usize> {
    if let Some(quote) = opening_quote(&text[start..]) {
        return quoted(text, start + quote);
    }
    let mut token = start;
    let mut end = start + bare_end(&text[start..]);
    // The token comes after the schemes, which some clients write twice (`Bearer Bearer ...`).
    for scheme in 0..MAX_SCHEMES {
        let word = &text[token..end];
        let is_unknown_scheme =
            is_header && scheme == 0 && word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
        let next = text[end..].trim_start();
        if next.is_empty() || next.starts_with(ELLIPSIS) || !(is_scheme(word) || is_unknown_scheme)
        {
            break;
        }
        token = text.len() - next.len();
        if let Some(quote) = opening_quote(next) {
            return start..quoted(text, token + quote).end;
        }
        end = token + bare_end(next);
    }
    // `Cookie: a=b; c=d`
    while is_header && text[token..end].ends_with(';') {
        let next = text[end..].trim_start();
        let piece = &next[..bare_end(next)];
        if !piece.contains('=') {
            break;
        }
        end = text.len() - next.len() + piece.len();
    }
    // `Token token="..."`
    if text[..end].ends_with('=') && text[end..].starts_with(['"', '`']) {
        return start..quoted(text, end).end;
    }
    start..start + trim_punctuation(&text[start..end]).len()
}

/// Words before a token in a header's value.
fn is_scheme(word: &str) -> bool {
    [
        "bearer",
        "basic",
        "token",
        "digest",
        "negotiate",
        "apikey",
        "api-key",
        "key",
        "bot",
    ]
    .iter()
    .any(|scheme| word.eq_ignore_ascii_case(scheme))
}

/// Where a value's opening quote is, if it has one: at its start, escaped, or behind what code
/// writes before a string (`Some("`, `["`, `b'`).
fn opening_quote(rest: &str) -> Option<usize> {
    let quote = look(rest).find(['"', '\'', '`'])?;
    let lead = rest[..quote].trim_end_matches('\\');
    let outer = lead.trim_end();
    let is_lead = match outer.bytes().next_back() {
        None => true,
        Some(b'(' | b'[' | b'{') => {
            !outer.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | ']'))
        }
        Some(_) => lead.len() <= 2 && lead.bytes().all(|b| b"bBrRuUfF".contains(&b)),
    };
    is_lead.then_some(quote)
}

/// What is inside the quotes that open here, or all of the text if they do not close.
fn quoted(text: &str, open: usize) -> Range<usize> {
    let before = &text[..open];
    let escapes = open - before.trim_end_matches('\\').len();
    let quote = text.as_bytes()[open];
    let start = open + 1;
    let mut backslashes = 0;
    for (offset, byte) in text.bytes().enumerate().skip(start) {
        // A quote with more backslashes than the opening one belongs to the value.
        let closes = backslashes <= escapes || escapes == 0 && backslashes % 2 == 0;
        if byte == quote && closes {
            return start..offset - backslashes.min(escapes);
        }
        backslashes = if byte == b'\\' { backslashes + 1 } else { 0 };
    }
    start..start + trim_punctuation(&text[start..]).len()
}

/// Where a value without quotes ends.
fn bare_end(rest: &str) -> usize {
    let ends = |&(at, c): &(usize, char)| match c {
        '\\' => rest[at + 1..].starts_with(['"', '\'', 'n', 'r', 't']),
        _ => c.is_whitespace() || matches!(c, '"' | '`' | '<' | '>'),
    };
    rest.char_indices()
        .find(ends)
        .map_or(rest.len(), |(at, _)| at)
}

/// A value without the punctuation of the text around it. `]` stays: it ends [`REDACTED`].
fn trim_punctuation(value: &str) -> &str {
    value.trim_end_matches([',', ';', ':', '.', '!', '\'', ')', '}', '…'])
}

/// Whether a word starts here, also after an escape such as `\n`, `%20` or `\u0026`.
fn starts_word(text: &str, at: usize) -> bool {
    let before = &text.as_bytes()[..at];
    let is_hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    match before {
        [] => true,
        [.., b] if !b.is_ascii_alphanumeric() => true,
        [.., b'\\', b'n' | b'r' | b't'] => true,
        [.., b'%', a, b] => is_hex(&[*a, *b]),
        [.., b'\\', b'u', a, b, c, d] => is_hex(&[*a, *b, *c, *d]),
        _ => false,
    }
}

/// Words that stand in a credential's place without being one.
const PLAIN_WORDS: [&str; 38] = [
    "a",
    "an",
    "and",
    "are",
    "as",
    "auth",
    "authentication",
    "authorization",
    "challenge",
    "credential",
    "credentials",
    "error",
    "expired",
    "false",
    "for",
    "from",
    "header",
    "headers",
    "in",
    "invalid",
    "is",
    "malformed",
    "missing",
    "nil",
    "none",
    "not",
    "null",
    "of",
    "or",
    "realm",
    "required",
    "scheme",
    "scope",
    "sensitive",
    "token",
    "tokens",
    "true",
    "was",
];

/// Whether a value is no secret: empty, masked, or plain words.
fn is_plain(content: &str) -> bool {
    let is_plain_word = |word: &str| {
        is_scheme(word)
            || PLAIN_WORDS
                .iter()
                .any(|plain| word.eq_ignore_ascii_case(plain))
    };
    !content.contains(char::is_alphanumeric) || content.split_whitespace().all(is_plain_word)
}

/// Whether a value looks random, or is masked in part.
fn is_opaque(content: &str, min_length: usize) -> bool {
    let look = look(content);
    let has = |is: fn(&u8) -> bool| look.bytes().any(|b| is(&b));
    content == REDACTED
        || content.len() >= MAX_LOOK
        || look.contains("**")
        || content.len() >= min_length && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
}

/// As much of a value as is looked at before it is known to be a secret.
fn look(value: &str) -> &str {
    &value[..value.floor_char_boundary(MAX_LOOK)]
}

fn starts_with_ignoring_case(text: &str, start: &str) -> bool {
    text.as_bytes()
        .get(..start.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    /// Texts with a secret in them, which has `CANARY` in it, and what must be left of them.
    const SECRETS: &[(&str, &str)] = &[
        // Schemes.
        ("got Bearer CANARY, sorry", "got Bearer [redacted], sorry"),
        ("bearer   CANARY1234", "bearer   [redacted]"),
        ("header `Bearer CANARY`", "header `Bearer [redacted]`"),
        ("Bearer Bearer CANARY", "Bearer [redacted]"),
        ("Bearer token CANARY1", "Bearer [redacted]"),
        ("Basic dXNlcjpwCANARY==", "Basic [redacted]"),
        ("basic QWxhZGRpbjpvcGVuCANARY", "basic [redacted]"),
        // Headers.
        ("Authorization: Bearer CANARY", "Authorization: [redacted]"),
        ("authorization:CANARY", "authorization:[redacted]"),
        (
            "Proxy-Authorization: Basic CANARY",
            "Proxy-Authorization: [redacted]",
        ),
        (
            "Authorization: Custom CANARY end",
            "Authorization: [redacted] end",
        ),
        (
            "Authorization: Bearer Bearer CANARY",
            "Authorization: [redacted]",
        ),
        (
            "Authorization: Token token=\"CANARY\", a=1",
            "Authorization: [redacted]\", a=1",
        ),
        (
            "Authorization: AWS4-HMAC-SHA256 Credential=CANARY/x, Signature=CANARY",
            "Authorization: [redacted] Credential=[redacted], Signature=[redacted]",
        ),
        ("authorization=Token CANARY", "authorization=[redacted]"),
        ("x-api-key: CANARY", "x-api-key: [redacted]"),
        ("X-Goog-Api-Key: CANARY; x", "X-Goog-Api-Key: [redacted]; x"),
        ("api-key: CANARY", "api-key: [redacted]"),
        (
            "Ocp-Apim-Subscription-Key: CANARY",
            "Ocp-Apim-Subscription-Key: [redacted]",
        ),
        ("X-Auth-Token: CANARY", "X-Auth-Token: [redacted]"),
        ("Cookie: a=CANARY; b=CANARY; c", "Cookie: [redacted]; c"),
        ("set-cookie: sid=CANARY", "set-cookie: [redacted]"),
        // Names.
        ("api_key=CANARY", "api_key=[redacted]"),
        ("API_KEY = CANARY.", "API_KEY = [redacted]."),
        ("apiKey:CANARY", "apiKey:[redacted]"),
        ("api_key:/CANARY", "api_key:[redacted]"),
        (
            "OPENAI_API_KEY=CANARY is wrong",
            "OPENAI_API_KEY=[redacted] is wrong",
        ),
        ("OPENAI_API_KEY_2=CANARY", "OPENAI_API_KEY_2=[redacted]"),
        ("(key=CANARY)", "(key=[redacted])"),
        ("token=CANARY", "token=[redacted]"),
        ("token: CANARY0123456789", "token: [redacted]"),
        ("password=CANARY", "password=[redacted]"),
        ("password: CANARY", "password: [redacted]"),
        (
            "password: 'CANARY with spaces', x",
            "password: '[redacted]', x",
        ),
        ("password=\"CANARY without end", "password=\"[redacted]"),
        ("password => CANARY", "password => [redacted]"),
        ("client_secret=CANARY&a=CANARY", "client_secret=[redacted]"),
        ("credential=Bearer CANARY", "credential=[redacted]"),
        ("PWD=CANARY", "PWD=[redacted]"),
        (
            "Incorrect API key provided: CANARY99",
            "Incorrect API key provided: [redacted]",
        ),
        (
            "Incorrect API key provided: CAN****NARY",
            "Incorrect API key provided: [redacted]",
        ),
        // JSON, and code that looks like it.
        (
            r#"{"api_key":"CANARY","a":1}"#,
            r#"{"api_key":"[redacted]","a":1}"#,
        ),
        (
            r#"{"api_key": "CAN\"CANARY", "a": 1}"#,
            r#"{"api_key": "[redacted]", "a": 1}"#,
        ),
        (
            r#"{\"api_key\": \"CANARY\", \"a\": 1}"#,
            r#"{\"api_key\": \"[redacted]\", \"a\": 1}"#,
        ),
        (r#"{"token":"CANARY"}"#, r#"{"token":"[redacted]"}"#),
        (r#"{'key': 'CANARY'}"#, r#"{'key': '[redacted]'}"#),
        (r#"{"password":123CANARY}"#, r#"{"password":[redacted]}"#),
        (
            r#"{"Authorization": "Bearer CANARY x"}"#,
            r#"{"Authorization": "[redacted]"}"#,
        ),
        (
            r#"{"authorization": ["Bearer CANARY"]}"#,
            r#"{"authorization": ["[redacted]"]}"#,
        ),
        (
            r#"("x-api-key", "CANARY")"#,
            r#"("x-api-key", "[redacted]")"#,
        ),
        (
            r#"Config { api_key: Some("CANARY"), n: 1 }"#,
            r#"Config { api_key: Some("[redacted]"), n: 1 }"#,
        ),
        (
            r#"api_key: Some(   "CANARY",   )"#,
            r#"api_key: Some(   "[redacted]",   )"#,
        ),
        (
            r#"Config { token: "CANARY12" }"#,
            r#"Config { token: "[redacted]" }"#,
        ),
        ("{'api_key': b'CANARY'}", "{'api_key': b'[redacted]'}"),
        // Keys that are known by their looks.
        ("key sk-CANARY0123456789ab is bad", "key [redacted] is bad"),
        ("sk-proj-CANARY_0123456789-abc.", "[redacted]."),
        ("(sk-ant-api03-CANARY0123456789)", "([redacted])"),
        ("sk-CANARY12", "[redacted]"),
        ("sk-abcdefghijklmnopCANARY", "[redacted]"),
        ("path/sk-CANARY0123456789ab/x", "path/[redacted]/x"),
        (r"line\nsk-CANARY0123456789ab", r"line\n[redacted]"),
        ("x%20sk-CANARY0123456789ab", "x%20[redacted]"),
        (r"x\u0026sk-CANARY0123456789ab", r"x\u0026[redacted]"),
        ("gsk_CANARY0123456789abcd", "[redacted]"),
        ("xai-CANARY0123456789abcd", "[redacted]"),
        ("AIzaCANARY0123456789abcdefghijk", "[redacted]"),
        ("hf_CANARYabcdefghijklmnop", "[redacted]"),
        ("ghp_CANARY0123456789abcd", "[redacted]"),
        ("github_pat_CANARY0123456789abcd", "[redacted]"),
        ("AKIAIOSFODNNCANARYXY", "[redacted]"),
        ("eyJhbGciOiJIUzI1NiJ9.CANARY.CANARY-_x", "[redacted]"),
        (
            "a -----BEGIN RSA PRIVATE KEY-----\nCANARY\nCANARY\n-----END RSA PRIVATE KEY----- b",
            "a [redacted] b",
        ),
        ("-----BEGIN PRIVATE KEY-----\nCANARY", "[redacted]"),
        // URLs.
        (
            "https://user:CANARY@host/path",
            "https://[redacted]@host/path",
        ),
        ("https://CANARY@host", "https://[redacted]@host"),
        (
            "postgres://user:CAN@CANARY@host:5432/db",
            "postgres://[redacted]@host:5432/db",
        ),
        (
            "postgres://user:CAN/CANARY@host:5432/db",
            "postgres://[redacted]@host:5432/db",
        ),
        ("https://user:CAN'CANARY@host", "https://[redacted]@host"),
        ("https://host/path?q=CANARY", "https://host/path?[redacted]"),
        (
            "(https://host/path?q=CANARY): refused",
            "(https://host/path?[redacted]): refused",
        ),
        ("https://host/path#CANARY", "https://host/path#[redacted]"),
        ("https://host?CANARY", "https://host?[redacted]"),
        (
            "https://u:CANARY@host/a?b=CANARY#CANARY, then",
            "https://[redacted]@host/a?[redacted], then",
        ),
        (
            r#"{"url":"https://host/?a=CANARY","b":1}"#,
            r#"{"url":"https://host/?[redacted]","b":1}"#,
        ),
        (
            r#"https://host/?a=b\u0026c=CANARY"#,
            "https://host/?[redacted]",
        ),
        (
            "https://proxy/https://u:CANARY@host/",
            "https://proxy/https://[redacted]@host/",
        ),
        (
            "https://host/sk-CANARY0123456789ab/x",
            "https://host/[redacted]/x",
        ),
        (
            "GET /v1/models?key=CANARY HTTP/1.1",
            "GET /v1/models?[redacted] HTTP/1.1",
        ),
        // Several, and in other scripts.
        (
            "token=CANARY password=CANARY",
            "token=[redacted] password=[redacted]",
        ),
        ("é sk-CANARY0123456789ab é", "é [redacted] é"),
        ("ésk-CANARY0123456789ab", "é[redacted]"),
        ("пароль password=CANARYпароль", "пароль password=[redacted]"),
        ("a\nx-api-key: CANARY\r\nb", "a x-api-key: [redacted]  b"),
        ("api_key=CANARY…", "api_key=[redacted]…"),
    ];

    /// Texts that speak of credentials without having one.
    const INNOCENT: &[&str] = &[
        "",
        "connection reset by peer (os error 104)",
        "status 503: Service Unavailable",
        "error sending request for url (https://api.example.com/v1/chat/completions)",
        "https://localhost:8080/path",
        "http://[::1]:8080/a@b",
        "https://medium.com/@user/post",
        "wait, is it true?",
        "sk-learn is not installed",
        "sk-learn-contrib, sk-image-0.19",
        "a risk-free task-20240101-1234567890 on disk-0",
        "locale sk-SK",
        "hf_hub_download failed in hf_transfer_module",
        "ASIAN market",
        "Basic authentication is required",
        "basic usage, Basic Auth, basic plan",
        "invalid bearer token",
        "bearer token is missing",
        "The bearer of bad news",
        "Bearer realm=x",
        "Authorization: missing",
        "authorization header is required",
        "authorization: bearer token missing",
        "missing API key",
        "invalid API key: rejected",
        "api_key: None",
        "password: required",
        "password: ***",
        "unexpected token: `}`",
        "expected `,` or `}` at line 1 column 17",
        "unexpected token: foo",
        "unknown key: temperature",
        "max_tokens: 4096, prompt_tokens=12",
        "monkey=banana, turkey: bird",
        "keys=3",
        "author=me, authority: none",
        "std::token::Error: bad",
        "model: gpt-4o-mini, request_id: req_011CQabcdefgh",
        "if a == b, c != d",
        r#"{"error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        r#"{"name":"x-api-key","value":1}"#,
        "eyJ is how they start",
        "-----BEGIN CERTIFICATE-----",
        "résumé naïve 日本語 🎉",
        "tokenizer: broken",
        "[redacted]",
    ];

    #[test]
    fn secrets_are_taken_out_wherever_they_stand() {
        for (raw, expected) in SECRETS {
            let clean = text(raw);
            assert_eq!(clean, *expected, "{raw:?}");
            assert!(!clean.contains("CANARY"), "{raw:?}");
            assert_eq!(text(&clean), clean, "{raw:?}");
        }
    }

    #[test]
    fn secrets_are_taken_out_between_other_words() {
        for (raw, _) in SECRETS {
            for around in [
                format!("the call failed: {raw}"),
                format!("{raw} and so on"),
                format!("({raw})"),
                format!("[{raw}]"),
                format!("\t{raw}\u{0}"),
                format!("Some error, {raw}, 日本語"),
                format!("{} {raw}", "x".repeat(400)),
                format!("{} {raw}", "word ".repeat(1600)),
            ] {
                assert!(!text(&around).contains("CANARY"), "{around:?}");
            }
        }
    }

    #[test]
    fn innocent_texts_are_left_as_they_are() {
        for raw in INNOCENT {
            assert_eq!(text(raw), *raw);
        }
    }

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(
            text("a\nb\r\nc\u{0}d\u{1b}[31me\u{85}f\u{2028}g\n"),
            "a b  c d [31me f g"
        );
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(text(&"x".repeat(512)), "x".repeat(512));
        assert_eq!(text(&"x".repeat(513)), format!("{}…", "x".repeat(509)));
        assert_eq!(text(&"é".repeat(300)), format!("{}…", "é".repeat(254)));
        assert_eq!(
            text(&"🎉".repeat(200_000)),
            format!("{}…", "🎉".repeat(127))
        );
    }

    #[test]
    fn a_cut_leaves_no_half_of_a_secret() {
        let secret = "CANARY0123456789abcdefCANARY0123456789abcdefCANARY0123456789abcdef";
        // Long words that are taken out themselves bring the end of the read text into sight.
        let filler = format!("password={} ", "y".repeat(1000));
        for shift in 0..secret.len() + 40 {
            for form in [
                format!("sk-{secret}"),
                format!("https://user:{secret}@host/"),
                format!("https://user:{secret}/{secret}@host/"),
                format!("api_key=\"{secret} {secret}\""),
                format!("Authorization: Bearer {secret}"),
            ] {
                let mut raw = filler.repeat(8);
                raw.truncate(8 * 1024 - shift - 1);
                raw.push(' ');
                raw.push_str(&form);
                raw.push_str(&form);
                assert!(!text(&raw).contains("CANARY"), "{shift} {form}");
                let near = format!("{} {form}", "z".repeat(MAX_MESSAGE - shift));
                assert!(!text(&near).contains("CANARY"), "{shift} {form}");
            }
        }
    }

    #[test]
    fn a_message_is_the_redacted_chain() {
        let inner = io::Error::other("https://u:p@host/?a=b");
        assert_eq!(message(&inner), "https://[redacted]@host/?[redacted]");

        #[derive(Debug, thiserror::Error)]
        #[error("the call with api_key={key} failed")]
        struct Call {
            key: &'static str,
            source: io::Error,
        }
        let error = Call {
            key: "abc",
            source: inner,
        };
        assert_eq!(
            message(&error),
            "the call with api_key=[redacted] failed: https://[redacted]@host/?[redacted]"
        );
    }

    #[test]
    fn hostile_texts_take_little_time() {
        let pieces = [
            "token:",
            "token: ",
            "key=",
            "key=\"",
            "key='",
            "bearer ",
            "basic '",
            "sk-",
            "://",
            "://:a",
            "://a@",
            "?a=",
            "?",
            "#",
            "eyJ",
            "-----BEGIN PRIVATE KEY",
            "\\",
            "\"",
            ",\"",
            "password:,",
            "cookie: a=b;",
            "=",
            " ",
            "\n",
            "🎉",
            "a",
            "/",
            "@",
            ":",
            "{",
            "Some(",
            "authorization: a ",
            "Bearer Bearer ",
            "key: \"\"",
            "api key: ",
        ];
        for a in pieces {
            for b in ["", " ", "a", ":", "\"", "key=", "://"] {
                let raw = format!("{a}{b}").repeat(8 * 1024 / (a.len() + b.len()));
                let start = Instant::now();
                assert!(text(&raw).len() <= MAX_MESSAGE);
                let took = start.elapsed();
                // Quadratic work takes seconds in a debug build.
                assert!(took < Duration::from_millis(500), "{a:?} {b:?} {took:?}");
            }
        }
    }

    /// Texts out of the pieces that the rules look for.
    fn tangle() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                "token",
                "key",
                "api_key",
                "password",
                "Authorization",
                "cookie",
                "bearer",
                "Bearer",
                "Basic",
                "basic",
                "sk-",
                "gsk_",
                "AKIA",
                "eyJ",
                "://",
                "https://",
                "user:pw@host",
                "?a=b",
                "?",
                "#",
                "/",
                "@",
                ":",
                "=",
                ",",
                ";",
                ".",
                " ",
                "  ",
                "\"",
                "'",
                "`",
                "\\",
                "\\\"",
                "\\n",
                "(",
                ")",
                "[",
                "]",
                "{",
                "}",
                "<",
                ">",
                "…",
                "[redacted]",
                "Some(",
                "-----BEGIN PRIVATE KEY-----",
                "-----END ",
                "-----",
                "%20",
                "é",
                "🎉",
                "\n",
                "\u{0}",
                "none",
                "realm",
                "abc",
                "0",
                "12",
                "Zz9",
            ])
            .prop_map(str::to_owned),
            "[a-zA-Z0-9]{1,40}",
            "[ -~]{1,20}",
            "\\PC{1,10}",
        ];
        prop::collection::vec(piece, 0..120).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_text_becomes_a_short_line(raw in prop_oneof![any::<String>(), tangle()]) {
            let clean = text(&raw);
            prop_assert!(clean.len() <= MAX_MESSAGE);
            prop_assert!(!clean.contains(char::is_control));
        }

        #[test]
        fn redacting_again_changes_nothing(raw in prop_oneof![any::<String>(), tangle()]) {
            let clean = text(&raw);
            prop_assert_eq!(text(&clean), clean);
        }

        #[test]
        fn a_key_between_words_never_survives(
            before in prop::collection::vec("\\PC{0,12}", 0..60),
            key in "[A-Za-z0-9]{30}",
            after in prop::collection::vec("\\PC{0,12}", 0..10),
        ) {
            let raw = format!("{} sk-{key} {}", before.join(" "), after.join(" "));
            prop_assert!(!text(&raw).contains(&key[..8]));
        }

        #[test]
        fn a_key_in_a_tangle_never_survives(
            before in tangle(),
            key in "[A-Za-z0-9]{30}",
            after in tangle(),
        ) {
            let raw = format!("{before} sk-{key} {after}");
            prop_assert!(!text(&raw).contains(&key[..8]));
        }
    }
}
