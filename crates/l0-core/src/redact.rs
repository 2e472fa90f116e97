//! The parts of an error that messages can contain.
//!
//! Events and telemetry carry a [`message`]. It consists of words of L0 and of the texts of io
//! errors and transports. It contains no other text of the error, because a provider's words can
//! repeat a prompt. With [`Monitoring::error_text`](crate::Monitoring::error_text) they carry the
//! [`error_text`]: the texts of the error and its source chain, without credentials. Use these
//! functions if you report errors manually.
//!
//! [`text`] recognizes credentials by their place and by their form:
//!
//! - private keys in PEM form;
//! - URLs: user and password, query and fragment, also percent-encoded in another URL; the rest of
//!   a webhook's path after its known start, which is its credential;
//! - the value of a name such as `api_key`, `OPENAI_API_KEY`, `MYKEY`, `accessKeyId`,
//!   `x-goog-api-key`, `Authorization`, `Cookie`, `access_token`, `client_secret`, `password`,
//!   after `=` or `:` or their full-width forms, as in a query, a header, JSON or the output of
//!   `Debug`, or in quotes after a space;
//! - random-looking text after `subscription key` and similar;
//! - the value next to the name of a header in a pair, a list or an object of JSON, and the text of
//!   an XML element of such a name;
//! - the token after `Bearer` or `Basic`, random-looking text after an option such as `--token`, and
//!   the password of `--user`;
//! - keys of well-known services, by their prefix, and JSON web tokens.
//!
//! It does not recognize a credential without such a place or form: alone in prose, under another
//! name, deeper in the JSON under its name, split, encoded, or after the first space or escaped
//! line end of a value without quotes. Prose can follow `token: `, `key: `, `Bearer ` or an unknown
//! scheme, so a value there must look random: a short value, or one of lower-case letters only, can
//! remain.
//!
//! A UUID or a hash that stands alone is not treated as a credential, because it identifies
//! requests and commits. The value after an unambiguous name is always removed (`api_key: None`).
//! Personal data and quotes of a prompt are not detected.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::LazyLock;

use regex_lite::Regex;

use crate::failure::{self, Beginning, Failure, char_boundary};

/// The maximum length of a message, in bytes.
const MAX_MESSAGE: usize = 512;

/// The replacement of a cut end.
const ELLIPSIS: &str = "…";

/// The replacement of a secret.
pub(crate) const REDACTED: &str = "[redacted]";

/// The maximum number of passes over a text, until nothing changes any more.
const MAX_PASSES: usize = 4;

/// Compiles the patterns, which would otherwise happen inside a poll.
pub(crate) fn prepare() {
    LazyLock::force(&RULES);
}

/// Returns the default message of an error, in at most 512 bytes. It consists of the result of
/// [`Failure::read`](crate::Failure::read), in L0's own words, and of the texts of io errors and
/// transports in the error's source chain.
///
/// These texts are those of an [`io::Error`](std::io::Error) without a payload, and the exact texts
/// that `Failure::read` knows. No other text of the error is repeated.
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

/// Returns the [`message`] of an error that is already classified.
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
/// The texts can repeat prompts and outputs, because providers quote rejected input. They are taken
/// in the alternate form (`{:#}`), which can contain more than the normal display of an error.
#[must_use]
pub fn error_text(error: &(dyn StdError + 'static)) -> String {
    redact(&failure::texts_in_full(error))
}

/// Returns a text without credentials and control characters, cut to 512 bytes. About 1 KiB of it
/// is read. Redacting a text again changes nothing.
///
/// ```
/// let text = l0_core::redact::text("401 from https://user:hunter2@api.example/v1");
/// assert_eq!(text, "401 from https://[redacted]@api.example/v1");
/// ```
#[must_use]
pub fn text(raw: &str) -> String {
    redact(&Beginning::of(raw))
}

/// Returns a text of any length without credentials. The rest of the text and its line ends stay
/// unchanged. Use it for prompts and answers that you choose to send. It takes time proportional to
/// the length of the text.
///
/// ```
/// let text = l0_core::redact::content("Call it with\nAuthorization: Bearer abcdef0123456789\nplease.");
/// assert_eq!(text, "Call it with\nAuthorization: [redacted]\nplease.");
/// ```
#[must_use]
pub fn content(raw: &str) -> String {
    // The rules treat the end of a line as space too.
    let line = raw.chars().map(|c| match c {
        '\n' => '\r',
        '\r' | '\t' | '\u{b}' | '\u{c}' => ' ',
        c => c,
    });
    let mut text = line.collect::<String>();
    for _ in 0..MAX_PASSES {
        let again = replace(text.clone());
        if again == text {
            break;
        }
        text = again;
    }
    text.replace('\r', "\n")
}

fn redact(raw: &Beginning) -> String {
    let mut text = raw.as_str().to_owned();
    if raw.cut {
        text.push_str(ELLIPSIS);
    }
    // The text next to a secret or before a cut can itself look like a secret. The first pass
    // usually finds nothing.
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
    let mut text = replace(line.trim().to_owned());
    cut(&mut text);
    text
}

/// Replaces secrets.
fn replace(mut text: String) -> String {
    // The rules treat an escaped line end as space.
    for (escape, space) in ESCAPES {
        text = text.replace(escape, space);
    }
    let mut lower = text.to_ascii_lowercase();
    for (rule, pattern) in RULES.iter() {
        if !rule.may_match(&lower) {
            continue;
        }
        if let Cow::Owned(replaced) = pattern.replace_all(&text, rule.replacement) {
            lower = replaced.to_ascii_lowercase();
            text = replaced;
        }
    }
    for (escape, space) in ESCAPES {
        text = text.replace(space, escape);
    }
    text
}

/// The escapes that end a line or a word in code and JSON, and the space characters that replace
/// them. No text contains these characters at this point.
const ESCAPES: [(&str, &str); 3] = [("\\n", "\u{b}"), ("\\r", "\u{c}"), ("\\t", "\t")];

fn cut(text: &mut String) {
    if text.len() > MAX_MESSAGE {
        text.truncate(char_boundary(text, MAX_MESSAGE - ELLIPSIS.len()));
        text.truncate(text.trim_end().len());
        text.push_str(ELLIPSIS);
    }
}

/// Parts that the rules share.
const PARTS: [(&str, &str); 16] = [
    // A quote that ends at one with fewer escapes was not an opening quote. The text after it can
    // be the value of a name that was mistaken for part of this one.
    (
        "{quoted}",
        r#"(\[\s*b?"){string}(?:"\s*,\s*b?"{string})*|({lead}\\\\+")[^"\\]+(?:\\?"[^"\\]+)*|({lead}\\")[^"\\]+(?:"[^"]+)*|({lead}"){string}|({lead}')[^']+|({lead}`){schemes}{plain}|(<){schemes}{plain}"#,
    ),
    // The prefix of a string in code: `Some("`, `["`, `b'`.
    ("{lead}", r"(?:\w+\(\s*|\[\s*)*b?"),
    // Within backticks or angle brackets: without quotes and brackets, which can contain a name.
    ("{plain}", r#"[^\s"'`<>()\[\]{}]+"#),
    ("{string}", r#"(?:[^"\\]|\\.)+"#),
    // Up to a space or quote, without the punctuation that belongs to the surrounding text. `]` is
    // not excluded, because it ends the replacement of a secret.
    ("{run}", r#"[^\s"`<>]*[^\s"'`<>\\,;:.!(){}…]"#),
    (
        "{schemes}",
        r#"(?:[("'`\[\\]*(?i:bearer|basic|token|key|bot)\s+)*"#,
    ),
    ("{is}", r"(?:\s*(?:{sign}=?>?|->)|%(?:25)*3[adAD])\s*"),
    // Also escaped as in JSON, in HTML and in a URL.
    (
        "{quote}",
        r#"(?:\\*["']|\\u002[27]|&(?:quot|apos|\#34|\#39);|%(?:25)*2[27])"#,
    ),
    ("{space}", r"(?:\s|\+|%(?:25)*20)"),
    ("{slash}", r"(?:\\?/|%(?:25)*2[fF])"),
    // Also the forms of East Asian keyboards.
    ("{sign}", "[:=\u{ff1a}\u{ff1d}]"),
    // Random-looking text: eight characters or more with a digit near an end, or very many
    // characters.
    (
        "{random}",
        r"(?:{char}*[0-9]{char}{7,}|{char}{7,}[0-9]{char}*|{char}{32,})",
    ),
    ("{char}", r"[\w.~+/=-]"),
    // The start of a word, also after an escape.
    ("{start}", r"(?:\b|_|%\w\w|\\u\w{4})"),
    ("{pair}", r"[\w-]*(?:key|token|secret|authorization|cookie)"),
    (
        "{header}",
        r"(?:[\w-]+[_-](?:key|token|secret)|[\w-]*authorization|(?:set-)?cookie|apikey)",
    ),
];

/// A pattern whose matches are replaced.
struct Rule {
    /// Each match contains one of these texts, in ASCII lowercase. Searching for them takes a hundredth
    /// of the time that the pattern takes, and most texts contain none.
    needs: &'static [&'static str],
    pattern: &'static str,
    replacement: &'static str,
}

impl Rule {
    /// Returns `false` if a text, in ASCII lowercase, contains no match.
    fn may_match(&self, lower: &str) -> bool {
        self.needs.iter().any(|needed| lower.contains(needed))
    }
}

/// The rules, in the order of their use. A rule must not match what it has replaced.
static TABLE: [Rule; 19] = [
    Rule {
        needs: &["private"],
        pattern: "-{4,5} ?BEGIN{space}(?:[A-Z0-9]+{space})*PRIVATE{space}KEY.*?(?:-{4,5} ?END{space}(?:[A-Z0-9]+{space}?)*-{4,5}|$)",
        replacement: "[redacted]",
    },
    // URLs, also in JSON (`:\/\/`). The second form is a password that contains a `/`: the text
    // after the colon is not a port.
    Rule {
        needs: &["@"],
        pattern: r#"(:{slash}{slash})(?:[^\s/?#"<>`]+|[^\s/?#@:\["]*:[0-9]*[^\s0-9/?#\["<>`][^\s"<>`]*)@"#,
        replacement: "$1[redacted]@",
    },
    Rule {
        needs: &[":/", ":\\", ":%", "="],
        pattern: r#"(:{slash}{slash}[^\s?#"<>`]*[?#]|\?[\w.%\[\]-]+=){run}"#,
        replacement: "$1[redacted]",
    },
    // The same, percent-encoded in another URL.
    Rule {
        needs: &["%"],
        pattern: r#"(%(?:25)*3[aA](?:%(?:25)*2[fF]){2})[^\s"<>`@?&]*?%(?:25)*40"#,
        replacement: "$1[redacted]%40",
    },
    Rule {
        needs: &["%"],
        pattern: r"(%(?:25)*3[fF][\w.\[\]-]+%(?:25)*3[dD]){run}",
        replacement: "$1[redacted]",
    },
    // The path after these prefixes is sufficient to post there.
    Rule {
        needs: &["hooks.slack", "discord"],
        pattern: r"(?i)(hooks\.slack(?:-gov)?\.com{slash}[a-z]+{slash}|discord(?:app)?\.com{slash}api{slash}webhooks{slash})[\w/\\%-]*\w",
        replacement: "$1[redacted]",
    },
    // A bot's token, before another rule matches the number at its start.
    Rule {
        needs: &[":aa", "3aaa"],
        pattern: r"({start})(?:bot)?[0-9]{6,}(?::|%(?:25)*3[aA])AA[\w-]{20,}",
        replacement: "$1[redacted]",
    },
    // Names in pairs that are lists or objects, before another rule takes `"key"` for the name of a
    // secret. Fewer names than in other pairs, because any list has words like `key`.
    Rule {
        needs: &["auth", "cookie", "key", "secret", "token"],
        pattern: r#"(?i)(\[\s*"{header}",\s*b?"){string}|([(\[]\s*'{header}',\s*b?')[^']+|("(?:name|key)"\s*:\s*"{header}",\s*"value"\s*:\s*"){string}|(\\+"(?:name|key)\\+"\s*:\s*\\+"{header}\\+",\s*\\+"value\\+"\s*:\s*\\+")[^"\\]+"#,
        replacement: "$1$2$3$4[redacted]",
    },
    // Names that only credentials have, and ambiguous names in places where no prose can follow.
    // Several in a row if a value is missing, so the next name is not mistaken for the value.
    Rule {
        needs: &[
            "auth",
            "cookie",
            "credential",
            "key",
            "pass",
            "pwd",
            "secret",
            "sig",
            "token",
        ],
        pattern: r#"(?ix)(
            (?: {schemes} [^\w\s]* [\w-]* (?:
                (?: authorization | cookie | secrets? | pass(?:w(?:or)?d|phrase)s? | \bpwd
                    | [_-](?:keys?|token|pass|pwd) | (?:api|access|auth)[_-]?(?:key|token)s?
                    | access[_-]?key[_-]?id | (?-i:[a-z](?:Keys?|Token|Signature)) | bearer_token_bedrock
                ) (?:_?[0-9]+)? {quote}? {is}
                | (?: {start}(?:key|token|auth|credentials?|sig|signature) | (?-i:[A-Z](?:KEY|TOKEN)) )
                    (?: {quote}{is} | \s*[=\u{ff1d}]>?\s* | %(?:25)*3[dD] )
            ))+
        ) (?: {quoted} | {schemes} {run} (?:;\s*[^\s=;"]+={run})* )"#,
        replacement: "$1$2$3$4$5$6$7$8[redacted]",
    },
    // The same in pairs, and in places where prose can follow (`unexpected token: foo`, unknown
    // schemes).
    Rule {
        needs: &["(\"", "(\\"],
        pattern: r#"(?i)(\("{pair}",\s*b?"){string}|(\(\\+"{pair}\\+",\s*b?\\+")[^"\\]+"#,
        replacement: "$1$2[redacted]",
    },
    // Elements of XML.
    Rule {
        needs: &["</"],
        pattern: r"(?i)(<(?:\w+:)?[\w.-]*(?:password|passwd|secret|token|(?:api|auth|access|account|private|secret)[_-]?key|signature)>)[^<]+(</)",
        replacement: "$1[redacted]$2",
    },
    Rule {
        needs: &["auth", "credential", "key", "token"],
        pattern: r#"(?ix)(
            {start}(?:key|token|auth|credentials?) (?:\ provided)? [:\u{ff1a}]\s* (?:\w+\()? ["'`]?
            | authorization{is}\[redacted]\s+
        ) {random}"#,
        replacement: "$1[redacted]",
    },
    Rule {
        needs: &["bearer"],
        pattern: r"({start}(?i:bearer){space}+{schemes})(?:\w+[A-Z0-9._~+/=-]{char}{3,}|{char}{20,})",
        replacement: "$1[redacted]",
    },
    Rule {
        needs: &["basic"],
        pattern: r"({start}(?i:basic)\s+)(?:{char}+[A-Z0-9]{char}{3,}|{char}+=)",
        replacement: "$1[redacted]",
    },
    // Keys with a known prefix, and JSON web tokens.
    Rule {
        needs: &PREFIXES,
        pattern: r"(?x)({start})(?:
            sk-(?:[\w-]*[0-9][\w-]{7,}|[\w-]{7,}[0-9][\w-]*|\w{16,}|(?:admin|ant|or|proj|svcacct)-[\w-]{16,})
            | (?:csk|xai|pplx|nvapi|xox[a-z])-[\w-]{12,} | AIza[\w-]{16,} | ya29\.[\w-]{16,} | AQ\.A[\w-]{16,}
            | gl(?:agent|cbt|dt|ffct|ft|imt|oas|pat|ptt|rtr?|soat)-[\w-]{12,}(?:\.[\w-]+)*
            | (?:[prs]k_(?:live_|test_)?|gsk_|hf_|gh[oprsu]_|npm_|r8_|fw_|tgp_|jina_|shp(?:at|ca|pa|ss)_|do[opr]_v1_
                |lin_(?:api|oauth)_|ntn_|sbp_|sb_secret_|dckr_[op]at_|glsa_|rpa_|e2b_|phx_|vck_|flp_|ls__
                |apify_api_|AGE-SECRET-KEY-)[A-Za-z0-9]{16,}
            | (?:secret_|sess-)[A-Za-z0-9]{32,} | cpk_[\w.]{16,} | (?:tgp_v1_|bedrock-api-key-|sq0(?:atp|csp)-)[\w+/=-]{16,}
            | (?:whsec_|sntry[su]_|glc_|ABSK)[A-Za-z0-9+/]{16,}=*(?:_[\w+/]+)? | (?:fc|pul)-[A-Za-z0-9]{32,}
            | (?:github_pat|lsv2|esecret)_\w{12,} | dapi[A-Za-z0-9]{16,}(?:-[0-9])?
            | (?:pa-|figd_|tvly-|pcsk_|hv[bs]\.|xapp-|GOCSPX-|pypi-AgE|ATATT3|NRAK-|PMAK-)
                (?:[\w-]*[0-9][\w-]{15,}|[\w-]{15,}[0-9][\w-]*|[\w-]{40,})
            | SG\.[\w-]{12,}(?:\.[\w-]+)* | A[KS]IA[A-Z0-9]{12,} | eyJ[\w-]{8,}(?:\.+[\w=-]+)*
        )",
        replacement: "$1[redacted]",
    },
    // In quotes after a header's name, and in prose after a word for a key, where it must look
    // random.
    Rule {
        needs: &["x-"],
        pattern: r#"(?i)({start}x-(?:[\w-]+-)?(?:key|token)\s+(?:\\*["'`\u{2018}\u{201c}])+)[^\s"'`\\\u{2019}\u{201d}]+"#,
        replacement: "$1[redacted]",
    },
    Rule {
        needs: &["key", "token"],
        pattern: r#"(?ix)(
            {start}(?:api|access|subscription|secret|account|licen[cs]e|service)[\ _-]?(?:key|token) \s+
            (?: (?:is|was|provided) \s+ )? [("'`\\]*
        ) (?:[a-z_-]*[0-9][\w-]{7,}|[a-z_-]{7,}[0-9][\w-]*|\w{32,})"#,
        replacement: "$1[redacted]",
    },
    // Options of commands.
    Rule {
        needs: &["key", "passw", "secret", "token"],
        pattern: r#"(?i)((?:^|[\s"'`])--?[\w-]*(?:key|token|secret|passw(?:or)?d)\s+["'`]?){random}"#,
        replacement: "$1[redacted]",
    },
    Rule {
        needs: &["-u"],
        pattern: r#"((?:^|[\s"'`])(?:-u|--user)\s+["'`]?[^\s:"'`]+:)[^\s"'`]*[^\s"'`0-9][^\s"'`]*"#,
        replacement: "$1[redacted]",
    },
];

/// The beginnings of keys with a known prefix.
#[rustfmt::skip]
const PREFIXES: [&str; 81] = [
    "sk-", "xai-", "pplx-", "nvapi-", "xox", "aiza", "ya29.", "aq.a", "glagent-", "glcbt-", "gldt-",
    "glffct-", "glft-", "glimt-", "gloas-", "glpat-", "glptt-", "glrt", "glsoat-", "pk_", "rk_",
    "sk_", "hf_", "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "npm_", "r8_", "fw_", "tgp_", "jina_",
    "shpat_", "shpca_", "shppa_", "shpss_", "_v1_", "lin_", "ntn_", "sbp_", "sb_secret_", "dckr_",
    "glsa_", "rpa_", "e2b_", "phx_", "vck_", "flp_", "ls__", "apify_api_", "age-secret-key-",
    "secret_", "sess-", "cpk_", "bedrock-api-key-", "sq0", "whsec_", "sntry", "glc_", "absk", "fc-",
    "pul-", "github_pat", "lsv2", "dapi", "pa-", "figd_", "tvly-", "hvb.", "hvs.", "xapp-",
    "gocspx-", "pypi-age", "atatt3", "nrak-", "pmak-", "sg.", "akia", "asia", "eyj",
];

/// [`TABLE`], with its patterns compiled.
static RULES: LazyLock<Vec<(&Rule, Regex)>> = LazyLock::new(|| {
    let compiled = |rule: &'static Rule| {
        let whole = |pattern: String, (name, part)| pattern.replace(name, part);
        let pattern = PARTS.into_iter().fold(rule.pattern.to_owned(), whole);
        let regex = Regex::new(&pattern).expect("the patterns are constant");
        (rule, regex)
    };
    TABLE.iter().map(compiled).collect()
});

#[cfg(test)]
mod tests;
