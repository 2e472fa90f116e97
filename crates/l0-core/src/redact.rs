//! What may be said of an error outside of the process.
//!
//! Events and telemetry carry a [`message`]: words of L0 and the texts of io errors and transports,
//! and nothing else that an error says, since a provider's words may repeat a prompt. With
//! [`Monitoring::error_text`](crate::Monitoring::error_text) they carry the [`error_text`]: the texts of the error and its source
//! chain, without credentials. The functions are for those who report errors manually.
//!
//! [`text`] knows the places where credentials stand, and the forms that they have:
//!
//! - private keys in PEM form;
//! - URLs: user and password, query and fragment, also percent-encoded in another URL; what follows the
//!   start of a webhook's path, which is its credential;
//! - the value of a name such as `api_key`, `OPENAI_API_KEY`, `MYKEY`, `accessKeyId`, `x-goog-api-key`,
//!   `Authorization`, `Cookie`, `access_token`, `client_secret`, `password`, after `=` or `:`, full-width
//!   ones too, as in a query, a header, JSON, or what `Debug` writes, or in quotes after a space;
//! - what looks random after `subscription key` and the like;
//! - the token after `Bearer` or `Basic`;
//! - keys of well-known services, by how they start, and JSON web tokens.
//!
//! It cannot see a credential without such a place or form: one alone in prose, one under another
//! name or deeper in the JSON under its name, one that is split or encoded, and what follows the
//! first space, or escaped line end, of a value without quotes. After `token: `, `key: `, `Bearer ` or
//! a scheme it does not know, prose may follow, so a value there must look random: a short one, or one
//! of lower-case letters only, may stay. A UUID or a hash that stands alone is no credential: requests and commits are
//! found by them. What follows a sure name goes whatever it is (`api_key: None`). Personal
//! data, and what a server quotes of a prompt, is not looked for.

use std::error::Error as StdError;
use std::sync::LazyLock;

use regex_lite::Regex;

use crate::failure::{self, Beginning, Failure, char_boundary};

/// The longest message that leaves, in bytes.
const MAX_MESSAGE: usize = 512;

/// What stands in the place of a cut end.
const ELLIPSIS: &str = "…";

/// How often a text is redacted at most until nothing changes any more.
const MAX_PASSES: usize = 4;

/// Compiles the patterns, which would otherwise happen inside a poll.
pub(crate) fn prepare() {
    LazyLock::force(&RULES);
}

/// Returns what may be said of an error by default, in at most 512 bytes: what
/// [`Failure::read`](crate::Failure::read) knows of it, in L0's own words, and the texts of io errors
/// and transports in its source chain.
///
/// Such a text is one of an [`io::Error`](std::io::Error) without a payload, or one of the exact
/// texts that `Failure::read` knows. Nothing else of what the error says is repeated.
///
/// ```
/// use std::io;
/// use l0_core::redact;
///
/// let error = io::Error::other("status 401: Incorrect API key provided: sk-...");
/// assert_eq!(redact::message(&error), "status 401 Unauthorized");
///
/// let error = io::Error::other("tcp connect error: Connection refused (os error 111)");
/// assert_eq!(redact::message(&error), "tcp connect error: Connection refused");
/// ```
#[must_use]
pub fn message(error: &(dyn StdError + 'static)) -> String {
    message_of(error, &failure::read(error))
}

/// [`message`] of an error that was read already.
pub(crate) fn message_of(error: &(dyn StdError + 'static), failure: &Failure) -> String {
    let mut message = failure.describe_in_full();
    let texts = failure::transport_texts(error);
    if texts.to_ascii_lowercase().contains(&message) {
        message.clear();
    }
    if !message.is_empty() && !texts.is_empty() {
        message.push_str(": ");
    }
    message.push_str(&texts);
    if message.is_empty() {
        message.push_str("unknown error");
    }
    cut(&mut message);
    message
}

/// Returns the texts of an error and of its source chain, joined by `": "`, without credentials and
/// cut to 512 bytes. About 1 KiB of them is read.
///
/// They may repeat prompts and outputs: providers quote what they refuse. Each is what the alternate
/// form (`{:#}`) says, in which an error type may say what it does not display otherwise.
#[must_use]
pub fn error_text(error: &(dyn StdError + 'static)) -> String {
    redact(&failure::texts_in_full(error))
}

/// Returns a text without credentials and control characters, cut to 512 bytes. About 1 KiB of it is
/// read. Redacting a text again changes nothing.
///
/// ```
/// let text = l0_core::redact::text("401 from https://user:hunter2@api.example/v1");
/// assert_eq!(text, "401 from https://[redacted]@api.example/v1");
/// ```
#[must_use]
pub fn text(raw: &str) -> String {
    redact(&Beginning::of(raw))
}

fn redact(raw: &Beginning) -> String {
    let mut text = raw.as_str().to_owned();
    if raw.cut {
        text.push_str(ELLIPSIS);
    }
    // What is left beside a secret or before a cut may look like a secret itself. Nearly always
    // the first time round finds nothing.
    for _ in 0..MAX_PASSES {
        let again = redact_and_cut(&text);
        if again == text {
            break;
        }
        text = again;
    }
    text
}

fn redact_and_cut(raw: &str) -> String {
    let line = raw.replace(|c: char| c.is_control() || c.is_whitespace(), " ");
    let mut text = line.trim().to_owned();
    // To the rules, an escaped line end is space.
    for (escape, space) in ESCAPES {
        text = text.replace(escape, space);
    }
    for (pattern, replacement) in RULES.iter() {
        text = pattern.replace_all(&text, *replacement).into_owned();
    }
    for (escape, space) in ESCAPES {
        text = text.replace(space, escape);
    }
    cut(&mut text);
    text
}

/// What ends a line or a word in code and JSON, and space that no text has at that point.
const ESCAPES: [(&str, &str); 3] = [("\\n", "\u{b}"), ("\\r", "\u{c}"), ("\\t", "\t")];

fn cut(text: &mut String) {
    if text.len() > MAX_MESSAGE {
        text.truncate(char_boundary(text, MAX_MESSAGE - ELLIPSIS.len()));
        text.truncate(text.trim_end().len());
        text.push_str(ELLIPSIS);
    }
}

/// Parts that the rules share.
const PARTS: [(&str, &str); 11] = [
    // A quote that one with fewer escapes ends was no beginning: what comes then may be the value of a
    // name that was taken for part of this one.
    (
        "{quoted}",
        r#"({lead}\\\\+")[^"\\]+(?:\\?"[^"\\]+)*|({lead}\\")[^"\\]+(?:"[^"]+)*|({lead}")(?:[^"\\]|\\.)+|({lead}')[^']+"#,
    ),
    // What code writes before a string: `Some("`, `["`, `b'`.
    ("{lead}", r"(?:\w+\(\s*|\[)*b?"),
    // Up to a space or quote, without the punctuation that belongs to the text around it. `]` does
    // not: it ends what is put in a secret's place.
    ("{run}", r#"[^\s"`<>]*[^\s"'`<>\\,;:.!(){}…]"#),
    (
        "{schemes}",
        r#"(?:[("'`\[\\]*(?i:bearer|basic|token|key|bot)\s+)*"#,
    ),
    ("{is}", r"(?:\s*{sign}=?>?|%(?:25)*3[adAD])\s*"),
    ("{slash}", r"(?:\\?/|%(?:25)*2[fF])"),
    // Also as East Asian keyboards have them.
    ("{sign}", "[:=\u{ff1a}\u{ff1d}]"),
    // What looks random: eight characters or more with a digit near an end, or very many.
    (
        "{random}",
        r"(?:{char}*[0-9]{char}{7,}|{char}{7,}[0-9]{char}*|{char}{32,})",
    ),
    ("{char}", r"[\w.~+/=-]"),
    // Where a word begins, also behind an escape.
    ("{start}", r"(?:\b|_|%\w\w|\\u\w{4})"),
    ("{pair}", r"[\w-]*(?:key|token|secret|authorization|cookie)"),
];

/// What is looked for, in this order, and what is put in its place. A rule must find nothing new in
/// what it has replaced.
const TABLE: [(&str, &str); 15] = [
    (
        "-----BEGIN [A-Z0-9 ]*PRIVATE KEY.*?(?:-----END [A-Z0-9 ]*-----|$)",
        "[redacted]",
    ),
    // URLs, also in JSON (`:\/\/`). The second form is a password with a `/` in it: what follows
    // the colon is no port.
    (
        r#"(:\\?/\\?/)(?:[^\s/?#"<>`]+|[^\s/?#@:\["]*:[0-9]*[^\s0-9/?#\["<>`][^\s"<>`]*)@"#,
        "$1[redacted]@",
    ),
    (
        r#"(:\\?/\\?/[^\s?#"<>`]*[?#]|\?[\w.%\[\]-]+=){run}"#,
        "$1[redacted]",
    ),
    // The same inside of another URL.
    (
        r#"(%(?:25)*3[aA](?:%(?:25)*2[fF]){2})[^\s"<>`@?&]*?%(?:25)*40"#,
        "$1[redacted]%40",
    ),
    (
        r"(%(?:25)*3[fF][\w.\[\]-]+%(?:25)*3[dD]){run}",
        "$1[redacted]",
    ),
    // What comes after these is all that a stranger needs to post there.
    (
        r"(?i)(hooks\.slack(?:-gov)?\.com{slash}[a-z]+{slash}|discord(?:app)?\.com{slash}api{slash}webhooks{slash})[\w/\\%-]*\w",
        "$1[redacted]",
    ),
    // A bot's token, before anything takes the number that it begins with.
    (
        r"({start})(?:bot)?[0-9]{6,}(?::|%(?:25)*3[aA])AA[\w-]{20,}",
        "$1[redacted]",
    ),
    // Names that only credentials have, and words that do so where no prose can follow. More than
    // one if a value is missing, lest the next name is taken for it.
    (
        r#"(?ix)(
            (?: {schemes} [^\w\s]* [\w-]* (?:
                (?: authorization | cookie | secret | pass(?:w(?:or)?d|phrase) | \bpwd
                    | [_-](?:key|token|pass|pwd) | (?:api|access|auth)(?:key|token)
                    | access[_-]?key[_-]?id | (?-i:[a-z](?:Key|Token))
                ) (?:_?[0-9]+)? (?:\\*["'])? {is}
                | (?: {start}(?:key|token|auth|credentials?|sig|signature) | (?-i:[A-Z](?:KEY|TOKEN)) )
                    (?: \\*["']{is} | \s*[=\u{ff1d}]>?\s* | %(?:25)*3[dD] )
            ))+
        ) (?: {quoted} | {schemes} {run} (?:;\s*[^\s=;"]+={run})* )"#,
        "$1$2$3$4$5[redacted]",
    ),
    // The same in pairs, and where prose may follow (`unexpected token: foo`, unknown schemes).
    (
        r#"(?i)(\("{pair}",\s*b?")(?:[^"\\]|\\.)+|(\(\\+"{pair}\\+",\s*b?\\+")[^"\\]+"#,
        "$1$2[redacted]",
    ),
    (
        r#"(?ix)(
            {start}(?:key|token|auth|credentials?) (?:\ provided)? [:\u{ff1a}]\s* (?:\w+\()? ["'`]?
            | authorization{is}\[redacted]\s+
        ) {random}"#,
        "$1[redacted]",
    ),
    (
        r"({start}(?i:bearer)\s+{schemes})(?:\w+[A-Z0-9._~+/=-]{char}{3,}|{char}{20,})",
        "$1[redacted]",
    ),
    (
        r"({start}(?i:basic)\s+)(?:{char}+[A-Z0-9]{char}{3,}|{char}+=)",
        "$1[redacted]",
    ),
    // Keys that are known by how they start, and JSON web tokens.
    (
        r"(?x)({start})(?:
            sk-(?:[\w-]*[0-9][\w-]{7,}|[\w-]{7,}[0-9][\w-]*|\w{16,}|(?:admin|ant|or|proj|svcacct)-[\w-]{16,})
            | (?:csk|xai|pplx|nvapi|xox[a-z])-[\w-]{12,} | AIza[\w-]{16,} | ya29\.[\w-]{16,} | AQ\.A[\w-]{16,}
            | gl(?:agent|cbt|dt|ffct|ft|imt|oas|pat|ptt|rtr?|soat)-[\w-]{12,}(?:\.[\w-]+)*
            | (?:[prs]k_(?:live_|test_)?|gsk_|hf_|gh[oprsu]_|npm_|r8_|fw_|tgp_|jina_|shp(?:at|ca|pa|ss)_|do[opr]_v1_
                |lin_(?:api|oauth)_|ntn_|sbp_|sb_secret_|dckr_[op]at_|glsa_|rpa_|e2b_|phx_)[A-Za-z0-9]{16,}
            | (?:whsec_|sntry[su]_|glc_|ABSK)[A-Za-z0-9+/]{16,}=*(?:_[\w+/]+)? | (?:fc|pul)-[A-Za-z0-9]{32,}
            | (?:github_pat|lsv2|esecret)_\w{12,} | dapi[A-Za-z0-9]{16,}(?:-[0-9])?
            | (?:pa-|figd_|tvly-|pcsk_|hv[bs]\.|xapp-|GOCSPX-|pypi-AgE|ATATT3|NRAK-|PMAK-)
                (?:[\w-]*[0-9][\w-]{15,}|[\w-]{15,}[0-9][\w-]*|[\w-]{40,})
            | SG\.[\w-]{12,}(?:\.[\w-]+)* | A[KS]IA[A-Z0-9]{12,} | eyJ[\w-]{8,}(?:\.[\w=-]+)*
        )",
        "$1[redacted]",
    ),
    // In quotes after a header's name, and in prose after a word for a key, where it must look random.
    (
        r#"(?i)({start}x-(?:[\w-]+-)?(?:key|token)\s+(?:\\*["'`\u{2018}\u{201c}])+)[^\s"'`\\\u{2019}\u{201d}]+"#,
        "$1[redacted]",
    ),
    (
        r#"(?ix)(
            {start}(?:api|access|subscription|secret|account|licen[cs]e|service)[\ _-]?(?:key|token) \s+
            (?: (?:is|was|provided) \s+ )? [("'`\\]*
        ) (?:[a-z_-]*[0-9][\w-]{7,}|[a-z_-]{7,}[0-9][\w-]*|\w{32,})"#,
        "$1[redacted]",
    ),
];

/// [`TABLE`], compiled.
static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let rule = |(pattern, replacement): (&str, &'static str)| {
        let whole = |pattern: String, (name, part)| pattern.replace(name, part);
        let pattern = PARTS.into_iter().fold(pattern.to_owned(), whole);
        let regex = Regex::new(&pattern).expect("the patterns are constant");
        (regex, replacement)
    };
    TABLE.into_iter().map(rule).collect()
});

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;

    use super::*;
    use crate::failure::MAX_TEXT;

    /// Texts with a secret in them, which has `CANARY` in it, and what must be left of them.
    const SECRETS: &[(&str, &str)] = &[
        // Schemes.
        ("got Bearer CANARY, sorry", "got Bearer [redacted], sorry"),
        ("bearer   CANARY1234", "bearer   [redacted]"),
        ("header `Bearer CANARY`", "header `Bearer [redacted]`"),
        ("Bearer Bearer CANARY", "Bearer Bearer [redacted]"),
        ("Bearer token CANARY1", "Bearer token [redacted]"),
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
            "Authorization: Custom CANARY12 end",
            "Authorization: [redacted] [redacted] end",
        ),
        (
            "Authorization: Bearer Bearer CANARY",
            "Authorization: [redacted]",
        ),
        (
            "Authorization: Token token=\"CANARY\", a=1",
            "Authorization: Token token=\"[redacted]\", a=1",
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
        (
            "token= Authorization: CANARY",
            "token= Authorization: [redacted]",
        ),
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
        ("DB_PASS=CANARY", "DB_PASS=[redacted]"),
        (
            "AWS_SECRET_ACCESS_KEY=CAN/CANARY",
            "AWS_SECRET_ACCESS_KEY=[redacted]",
        ),
        ("PWD=CANARY", "PWD=[redacted]"),
        (
            "Incorrect API key provided: CANARY99",
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
        (
            r#"Authorization = \", x api_key: Some("CANARY") end"#,
            r#"Authorization = \"[redacted]"#,
        ),
        (
            r#"api_key: \", ("x-api-key", "CANARY")"#,
            r#"api_key: \"[redacted]"#,
        ),
        // More than the secret goes where a sure name stands.
        ("api_key: None", "api_key: [redacted]"),
        ("Authorization: missing", "Authorization: [redacted]"),
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
        ("csk-CANARY0123456789abcd", "[redacted]"),
        ("pplx-CANARY0123456789abcd", "[redacted]"),
        ("nvapi-CANARY0123456789abcd", "[redacted]"),
        ("r8_CANARY0123456789abcd", "[redacted]"),
        ("glpat-CANARY0123456789abcd", "[redacted]"),
        ("gho_CANARY0123456789abcd", "[redacted]"),
        ("xoxb-CANARY0123456789abcd", "[redacted]"),
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
        ("dapiCANARY0123456789abcdef01234567", "[redacted]"),
        ("dapiCANARY0123456789abcdef01234567-2", "[redacted]"),
        ("lsv2_pt_CANARY0123456789_abcdef", "[redacted]"),
        ("lsv2_sk_CANARY0123456789", "[redacted]"),
        ("esecret_CANARY0123456789", "[redacted]"),
        ("pa-CANARY0123456789abcdefghij", "[redacted]"),
        (
            "pa-CANARYabcdef-hijklmnopq_stuvwxyzabcdefghijklm",
            "[redacted]",
        ),
        ("npm_CANARYabcdefghijklmnopqrstuvwx", "[redacted]"),
        ("SG.CANARY0123456789.CANARYabc-def_0123", "[redacted]"),
        ("sk-proj-CANARYabcdefghijklm", "[redacted]"),
        ("sk-ant-api-CANARY_abcdefghijkl-m", "[redacted]"),
        (
            "sk-or-v1-CANARY0123456789abcdef0123456789abcdef",
            "[redacted]",
        ),
        ("jina_CANARY0123456789abcdefghij", "[redacted]"),
        ("tvly-CANARY0123456789abcdefghij", "[redacted]"),
        ("tvly-dev-CANARY0123456789-abcdefghij", "[redacted]"),
        ("pcsk_5abCD_CANARY0123456789abcdefghij", "[redacted]"),
        ("shpat_CANARY0123456789abcdef", "[redacted]"),
        ("shpca_CANARY0123456789abcdef", "[redacted]"),
        ("shppa_CANARY0123456789abcdef", "[redacted]"),
        ("shpss_CANARY0123456789abcdef", "[redacted]"),
        (
            "as 1234567890:AAECANARY0123456789-abc_def, then",
            "as [redacted], then",
        ),
        (
            "https://api.telegram.org/bot1234567890:AAECANARY0123456789-abc_def/sendMessage",
            "https://api.telegram.org/[redacted]/sendMessage",
        ),
        (
            "at%2Fbot1234567890%3AAAECANARY0123456789-abc_def",
            "at%2F[redacted]",
        ),
        ("glpat-CANARY0123456789.01.0w1abcCANARY", "[redacted]"),
        ("gldt-CANARY0123456789abcd", "[redacted]"),
        ("glrt-CANARY0123456789abcd", "[redacted]"),
        ("dop_v1_CANARY0123456789abcdef", "[redacted]"),
        ("lin_api_CANARY0123456789abcdef", "[redacted]"),
        ("lin_oauth_CANARY0123456789abcdef", "[redacted]"),
        ("figd_aBc_-D1CANARY_0123456789abcdef", "[redacted]"),
        ("rk_live_CANARY0123456789abcdef", "[redacted]"),
        ("whsec_CANARY+0123456789/abcdefg=", "[redacted]"),
        ("whsec_CANARY0123456789abcdefg.", "[redacted]."),
        ("ya29.a0CANARY0123456789-abc_", "[redacted]"),
        ("AQ.Ab8CANARY0123456789-abc_", "[redacted]"),
        ("ASIAIOSFODNNCANARYXY", "[redacted]"),
        ("ghu_CANARY0123456789abcd", "[redacted]"),
        ("ntn_CANARY0123456789abcdef", "[redacted]"),
        ("dckr_pat_CANARY0123456789abcdef", "[redacted]"),
        (
            "sntrys_CANARY0123456789abcdef=_CANARY+abc/012",
            "[redacted]",
        ),
        ("hvs.CANARY0123456789abcdef", "[redacted]"),
        ("sbp_CANARY0123456789abcdef", "[redacted]"),
        ("sb_secret_CANARY0123456789abcdef", "[redacted]"),
        ("xapp-1-A0CANARY-0123456789-abcdef", "[redacted]"),
        ("glsa_CANARY0123456789abcdef", "[redacted]"),
        ("glc_CANARY0123456789abcdef", "[redacted]"),
        ("NRAK-CANARY0123456789ABCDEF", "[redacted]"),
        ("PMAK-CANARY0123456789abcdef-0123CANARY", "[redacted]"),
        ("GOCSPX-CANARY-0123456789_abcdef", "[redacted]"),
        ("pypi-AgEIcHlwaS5vcmcCANARY-0123_abc", "[redacted]"),
        ("ATATT3xFfGF0CANARY-0123_abcdefgh", "[redacted]"),
        ("ABSKCANARYabcdefghijklmnop0123=", "[redacted]"),
        ("rpa_CANARY0123456789abcdef", "[redacted]"),
        ("e2b_CANARY0123456789abcdef", "[redacted]"),
        ("phx_CANARY0123456789abcdef", "[redacted]"),
        ("fc-CANARY0123456789abcdef0123456789ab", "[redacted]"),
        ("pul-CANARY0123456789abcdef0123456789ab", "[redacted]"),
        // Webhooks.
        (
            "POST https://hooks.slack.com/services/T0CANARY/B0CANARY/CANARYabc failed",
            "POST https://hooks.slack.com/services/[redacted] failed",
        ),
        (
            r"https:\/\/hooks.slack.com\/services\/T0CANARY\/B0\/CANARY.",
            r"https:\/\/hooks.slack.com\/services\/[redacted].",
        ),
        (
            "hooks.slack.com/workflows/T0CANARY/A0/1/CANARY",
            "hooks.slack.com/workflows/[redacted]",
        ),
        (
            "https://discord.com/api/webhooks/123/CANARY-a_b, then",
            "https://discord.com/api/webhooks/[redacted], then",
        ),
        (
            "to=https%3A%2F%2Fhooks.slack.com%2Fservices%2FT0CANARY%2FB0CANARY%2FCANARY",
            "to=https%3A%2F%2Fhooks.slack.com%2Fservices%2F[redacted]",
        ),
        (
            "https%253a%252f%252fdiscord.com%252fapi%252fwebhooks%252f1%252fCANARY",
            "https%253a%252f%252fdiscord.com%252fapi%252fwebhooks%252f[redacted]",
        ),
        // Names in other spellings.
        ("MYKEY=CANARY", "MYKEY=[redacted]"),
        ("export OPENAIKEY=CANARY;", "export OPENAIKEY=[redacted];"),
        ("GHTOKEN = 'CANARY'", "GHTOKEN = '[redacted]'"),
        ("accessKeyId: CANARY", "accessKeyId: [redacted]"),
        (
            r#"{"accessKeyId":"CANARY","secretAccessKey":"CANARY"}"#,
            r#"{"accessKeyId":"[redacted]","secretAccessKey":"[redacted]"}"#,
        ),
        (
            "aws_access_key_id = CANARY",
            "aws_access_key_id = [redacted]",
        ),
        (
            "invalid x-api-key 'CANARY'",
            "invalid x-api-key '[redacted]'",
        ),
        (
            r#"bad x-goog-api-key "CANARY", try again"#,
            r#"bad x-goog-api-key "[redacted]", try again"#,
        ),
        (
            "invalid x-api-key \u{2018}CANARY\u{2019}",
            "invalid x-api-key \u{2018}[redacted]\u{2019}",
        ),
        (
            r#"{"message":"invalid x-api-key \"CANARY\""}"#,
            r#"{"message":"invalid x-api-key \"[redacted]\""}"#,
        ),
        (
            "invalid subscription key 0CANARY123456789abcdef0123456789",
            "invalid subscription key [redacted]",
        ),
        (
            "the access key is 'CANARY123456789', which",
            "the access key is '[redacted]', which",
        ),
        (
            "Invalid API key CANARY0123456789abcdef.",
            "Invalid API key [redacted].",
        ),
        ("api_key\u{ff1a}CANARY", "api_key\u{ff1a}[redacted]"),
        ("password \u{ff1d} CANARY", "password \u{ff1d} [redacted]"),
        (
            "Authorization\u{ff1a}Bearer CANARY",
            "Authorization\u{ff1a}[redacted]",
        ),
        ("token\u{ff1a} CANARY0123456789", "token\u{ff1a} [redacted]"),
        // URLs.
        (
            "redirect=https%3A%2F%2Fhost%2Fpath%3Fq%3DCANARY%26a%3DCANARY",
            "redirect=https%3A%2F%2Fhost%2Fpath%3Fq%3D[redacted]",
        ),
        (
            "at https%3a%2f%2fuser%3aCANARY%40host%2fpath, then",
            "at https%3a%2f%2f[redacted]%40host%2fpath, then",
        ),
        (
            "https%253A%252F%252Fhost%253Fq%253DCANARY",
            "https%253A%252F%252Fhost%253Fq%253D[redacted]",
        ),
        ("x api_key%3DCANARY", "x api_key%3D[redacted]"),
        ("q%3D1%26key%3DCANARY", "q%3D1%26key%3D[redacted]"),
        ("a%26token%253dCANARY", "a%26token%253d[redacted]"),
        ("models?key%3DCANARY", "models?key%3D[redacted]"),
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
            "GET /v1/models?key=[redacted] HTTP/1.1",
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
        "Basic HTTP authentication",
        "Missing bearer or basic authentication in header",
        "invalid x-api-key",
        "invalid api key",
        "the key is missing",
        "missing field `token` at line 1 column 5",
        "unknown field `key`, expected one of `model`, `messages`",
        "invalid bearer token",
        "bearer token is missing",
        "The bearer of bad news",
        "Bearer realm=x",
        "authorization header is required",
        "missing API key",
        "invalid API key: rejected",
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
        "the API key 'production' was renamed",
        "an access key is needed: see docs",
        "https://hooks.slack.com/ cannot be reached",
        "pa-system is off, the spa-resort-2024-08-31-booking is not",
        "npm_config_registry and npm_lifecycle_event are set",
        "dapi and dapivision",
        "SG.dll, version SG.1",
        "jina_embeddings_v3_base, jina-embeddings-v2-base-en, jina-reranker-v2-base-multilingual",
        "tvly-python and tvly-search-client are not installed",
        "pcsk_ is how they start, as shpat_, whsec_, figd_ and tvly-",
        "whsec_signing_secret_is_missing, figd_access_is_needed, lin_api_version_mismatch_found",
        "dop_v1_endpoint_is_gone, glc_config_file_is_missing, sb_secret_key_is_not_valid_here",
        "global-endpoint-2024-08-31, glance-image-service-0.19, gloo-mesh-gateway-v2",
        "fc-cache-regenerated-all-fonts-in-20-directories, pul-sar",
        "at 12:30:45, ports 8080:80, 127.0.0.1:54321, item 1234567:AA",
        "bot1234567 said: 1234567890: AA batteries",
        "sk-or, sk-ant and sk-proj begin keys",
        "FAQ.Answers, hvs.example, xapp-launcher-started-without-a-window",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "run 123e4567-e89b-12d3-a456-426614174000 ended",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "https%3A%2F%2Fapi.example.com%2Fv1%2Fmodels",
        "\u{932f}\u{8aa4}\u{ff1a}\u{8acb}\u{7a0d}\u{5f8c}\u{518d}\u{8a66}",
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
        let filler = format!("password={} ", "y".repeat(200));
        for shift in (0..secret.len() + 40).step_by(7) {
            for form in [
                format!("sk-{secret}"),
                format!("https://user:{secret}@host/"),
                format!("https://user:{secret}/{secret}@host/"),
                format!("api_key=\"{secret} {secret}\""),
                format!("Authorization: Bearer {secret}"),
            ] {
                let mut raw = filler.repeat(8);
                raw.truncate(MAX_TEXT - shift - 1);
                raw.push(' ');
                raw.push_str(&form);
                raw.push_str(&form);
                assert!(!text(&raw).contains("CANARY"), "{shift} {form}");
                let near = format!("{} {form}", "z".repeat(MAX_MESSAGE - shift));
                assert!(!text(&near).contains("CANARY"), "{shift} {form}");
            }
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Say(String, #[source] Option<io::Error>);

    fn say(text: &str) -> Say {
        Say(text.to_owned(), None)
    }

    #[test]
    fn an_error_text_is_the_redacted_chain() {
        let inner = io::Error::other("https://u:p@host/?a=b");
        assert_eq!(error_text(&inner), "https://[redacted]@host/?[redacted]");
        let error = Say("the call with api_key=abc failed".to_owned(), Some(inner));
        assert_eq!(
            error_text(&error),
            "the call with api_key=[redacted] failed: https://[redacted]@host/?[redacted]"
        );
        assert_eq!(message(&error), "unknown error");
    }

    #[test]
    fn a_message_says_what_is_known_and_repeats_texts_of_transports_only() {
        for (text, expected) in [
            ("", "unknown error"),
            ("my secret prompt", "unknown error"),
            (
                "failed to deserialize api response: error:missing field `id` content:my secret prompt",
                "unknown error",
            ),
            (
                "status 401: Incorrect API key provided: sk-1234",
                "status 401 Unauthorized",
            ),
            ("status 499: my secret prompt", "status 499"),
            ("429 Too Many Requests", "status 429 Too Many Requests"),
            (
                "HTTP status server error (503 my secret prompt) for url (https://u:p@host/?a=b)",
                "status 503 Service Unavailable",
            ),
            (
                "error sending request for url (https://u:p@host/?a=b): client error (Connect): tcp connect error: Connection refused (os error 111)",
                "error sending request: client error (Connect): tcp connect error: Connection refused",
            ),
            (
                "error decoding response body: error reading a body from connection: end of file before message length reached",
                "answer cut short: error reading a body from connection: end of file before message length reached",
            ),
            (
                "my secret prompt: invalid peer certificate: UnknownIssuer",
                "no secure connection: invalid peer certificate",
            ),
            (
                r#"Os { code: 111, kind: ConnectionRefused, message: "my secret prompt" }"#,
                "connection refused",
            ),
            (
                "status: Unavailable, message: \"my secret prompt\"",
                "server error",
            ),
        ] {
            assert_eq!(message(&say(text)), expected, "{text:?}");
            let inner = io::Error::other(say(text));
            assert_eq!(message(&inner), expected, "{text:?}");
        }
    }

    #[test]
    fn a_message_has_the_texts_of_io_errors_without_a_payload() {
        let of = |io: io::Error| message(&Say("my secret prompt".to_owned(), Some(io)));
        let kind = io::ErrorKind::TimedOut;
        assert_eq!(of(kind.into()), "timed out");
        assert_eq!(of(io::Error::new(kind, "my secret prompt")), "timed out");
        assert_eq!(
            of(io::ErrorKind::NotConnected.into()),
            "connection dropped: not connected"
        );
        assert_eq!(of(io::Error::other("my secret prompt")), "unknown error");
        if cfg!(target_os = "linux") {
            let message = of(io::Error::from_raw_os_error(111));
            assert_eq!(message, "Connection refused (os error 111)");
            let message = of(io::Error::from_raw_os_error(24));
            assert_eq!(message, "Too many open files (os error 24)");
        }
    }

    #[test]
    fn a_message_has_the_failure_that_a_hook_or_the_source_gave() {
        let no_credit = Failure::status(402).detail("no credit left");
        for (failure, expected) in [
            (no_credit, "status 402 Payment Required, no credit left"),
            (Failure::fatal().detail("no credit left"), "no credit left"),
            (Failure::fatal(), "unknown error"),
            (Failure::model(), "faulty answer"),
            (Failure::rate_limited(), "rate limited"),
            (
                Failure::server().retry_after(std::time::Duration::MAX),
                "server error",
            ),
        ] {
            assert_eq!(message_of(&say("my secret prompt"), &failure), expected);
            let source = io::Error::other(failure);
            let error = Say("status 401: my secret prompt".to_owned(), Some(source));
            assert_eq!(message(&error), expected);
        }
        let error = say("status 401: my secret prompt: Connection refused");
        let message = message_of(&error, &Failure::status(503));
        assert_eq!(
            message,
            "status 503 Service Unavailable: Connection refused"
        );
    }

    #[test]
    fn a_message_is_short() {
        let rows = [
            "Connection refused",
            "Broken pipe",
            "dns error",
            "tcp connect error",
        ];
        let other = "error reading a body from connection: end of file before message length reached: \
            peer closed connection without sending complete message body (incomplete chunked read): \
            A connection attempt failed because the connected party did not properly respond after a \
            period of time, or established connection failed because connected host has failed to \
            respond.: ('Connection aborted.', RemoteDisconnected('Remote end closed connection \
            without response')): peer closed connection without sending TLS close_notify";
        let message = message(&say(&format!("{}: {other}", rows.join(": "))));
        assert_eq!(message.len(), MAX_MESSAGE);
        assert!(message.ends_with('…'));
    }

    /// Each way to write a secret that a canary is put through.
    const FORMS: [&str; 14] = [
        "MYKEY=CANARY",
        "api_key\u{ff1a}CANARY",
        "https%3A%2F%2Fhost%3Fq%3DCANARY",
        "invalid x-api-key 'CANARY'",
        "sk-CANARY",
        "ghp_CANARY",
        "Bearer CANARY",
        "Authorization: CANARY",
        "x-api-key: CANARY",
        "access_token=CANARY",
        "OPENAI_API_KEY=CANARY",
        "\"password\": \"CANARY\"",
        "https://user:CANARY@host/path",
        "https://host/path?q=CANARY",
    ];

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
        fn a_message_of_any_text_is_a_short_line(raw in prop_oneof![any::<String>(), tangle()]) {
            let message = message(&say(&raw));
            prop_assert!(!message.is_empty() && message.len() <= MAX_MESSAGE);
            prop_assert!(!message.contains(char::is_control));
        }

        #[test]
        fn a_canary_never_survives(
            before in prop_oneof!["(\\PC{0,12} ){0,60}", tangle()],
            form in prop::sample::select(&FORMS[..]),
            key in "[A-Za-z0-9]{30}",
            after in tangle(),
        ) {
            let raw = format!("{before} {} {after}", form.replace("CANARY", &key));
            prop_assert!(!text(&raw).contains(&key[..8]));
            prop_assert!(!message(&say(&raw)).contains(&key[..8]));
        }
    }
}
