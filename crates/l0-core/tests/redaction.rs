//! Redaction of many texts: every canary is removed, and ordinary sentences stay unchanged.
//!
//! `L0_REDACTIONS` is the number of texts with canaries, 10,000 by default. The full gate uses a
//! million.

use std::collections::HashSet;
use std::{env, thread};

use fastrand::Rng;
use l0_core::redact;

/// The start of every secret. It looks random, as keys do.
const CANARY: &str = "c4n4ry7";

/// Formats of credentials. `#` stands for a letter or digit.
const FORMS: &[&str] = &[
    // Keys of services, which are recognized anywhere.
    "sk-#",
    "sk-proj-#",
    "sk-ant-api03-#",
    "csk-#",
    "xai-#",
    "pplx-#",
    "nvapi-#",
    "glpat-#",
    "xoxb-#",
    "gsk_#",
    "hf_#",
    "ghp_#",
    "r8_#",
    "fw_#",
    "tgp_#",
    "npm_#",
    "github_pat_#",
    "lsv2_pt_#",
    "esecret_#",
    "dapi#",
    "pa-#",
    "SG.#.#",
    "AIza#",
    "ya29.#",
    "eyJhbGciOiJIUzI1NiJ9.#.#",
    "sk-or-v1-#",
    "jina_#",
    "tvly-#",
    "tvly-dev-#",
    "pcsk_5abCD_#",
    "shpat_#",
    "shpss_#",
    "1234567890:AAE#",
    "https://api.telegram.org/bot1234567890:AAE#/sendMessage",
    "dop_v1_#",
    "lin_api_#",
    "figd_#",
    "rk_live_#",
    "whsec_#",
    "gldt-#",
    "hvs.#",
    "xapp-1-A0-#",
    // Headers.
    "Authorization: Bearer #",
    "authorization: #",
    "Proxy-Authorization: Basic #==",
    "x-api-key: #",
    "X-Goog-Api-Key: #",
    "Ocp-Apim-Subscription-Key: #",
    "Cookie: sid=#; theme=dark",
    "Bearer #",
    "Basic #==",
    "\"authorization\": \"Bearer #\"",
    // Names.
    "api_key=#",
    "OPENAI_API_KEY=#",
    "MYKEY=#",
    "accessKeyId: #",
    "aws_secret_access_key = #",
    "client_secret=#&grant=x",
    "password: #",
    "password\u{ff1a}#",
    "api_key\u{ff1d}#",
    "'token': '#'",
    "Config { api_key: Some(\"#\") }",
    "(\"x-api-key\", \"#\")",
    "invalid x-api-key '#'",
    "invalid subscription key #",
    "Incorrect API key provided: #",
    // URLs.
    "https://user:#@host.example/path",
    "postgres://user:a/#@host.example:5432/db",
    "https://host.example/path?q=#",
    "https://host.example/path#top-#",
    "GET /v1/models?key=# HTTP/1.1",
    "https%3A%2F%2Fhost.example%2F%3Fq%3D#%26a%3Db",
    "https%3A%2F%2Fuser%3A#%40host.example%2F",
    "https://hooks.slack.com/services/T0/B0/#",
    "https://discord.com/api/webhooks/12/#",
    "-----BEGIN PRIVATE KEY-----\n#\n-----END PRIVATE KEY-----",
];

/// Texts that can surround them.
const AROUND: &[&str] = &[
    "the call failed",
    "status 401",
    "status 503: Service Unavailable",
    "connection reset by peer (os error 104)",
    "model",
    "gpt-4o-mini",
    "token",
    "key",
    "api_key",
    "bearer",
    "Basic",
    "Authorization",
    "cookie",
    "https://api.example/v1",
    "{\"error\":{\"message\":\"no\"}}",
    "{",
    "}",
    "[",
    "]",
    "\u{65e5}\u{672c}\u{8a9e}",
    "\u{1f389}",
    "\u{e9}",
    "\\",
    "\\\"",
    "\\n",
    "\u{0}",
    "%20",
    "=",
    ":",
    ",",
    ";",
    "...",
    "12",
    "[redacted]",
    "none",
    "-----",
    "?",
    "#",
    "@",
];

fn pick<'a>(random: &mut Rng, from: &[&'a str]) -> &'a str {
    from[random.usize(..from.len())]
}

/// Returns a text with one or two canaries.
fn with_canaries(random: &mut Rng) -> String {
    let mut text = String::new();
    for _ in 0..random.usize(1..3) {
        for _ in 0..random.usize(..8) {
            text.push_str(pick(random, AROUND));
            text.push_str(pick(random, &[" ", " ", "\n", ", ", "\t"]));
        }
        text.push_str(pick(random, &[" ", "\n", " (", " `", " [", " - "]));
        let form = pick(random, FORMS);
        for (index, part) in form.split('#').enumerate() {
            // Fragments start with it too.
            if index > 0 && form.contains("/path#") && index == 1 {
                text.push('#');
            } else if index > 0 {
                text.push_str(CANARY);
                let more = random.usize(14..40);
                text.extend((0..more).map(|_| random.alphanumeric()));
            }
            text.push_str(part);
        }
        text.push_str(pick(random, &[" ", "\n", ") ", "` ", "] ", ". ", " "]));
    }
    match random.u32(..6) {
        // As written by `Debug`, and as a body quoted in a message.
        0 => format!("{text:?}"),
        1 => serde_json::json!({ "message": text }).to_string(),
        _ => text,
    }
}

#[test]
fn no_canary_remains_and_nothing_panics() {
    let texts: u64 =
        env::var("L0_REDACTIONS").map_or(10_000, |count| count.parse().expect("a number"));
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    thread::scope(|scope| {
        for part in 0..threads {
            scope.spawn(move || {
                for number in (part..texts).step_by(threads as usize) {
                    // One generator per text, so a failing text can be reproduced.
                    let mut random = Rng::with_seed(number);
                    let raw = with_canaries(&mut random);
                    assert!(raw.contains(CANARY));
                    let clean = redact::text(&raw);
                    assert!(!clean.contains(CANARY), "{number}: {raw:?}: {clean:?}");
                    assert!(clean.len() <= 512, "{number}");
                    assert!(!clean.contains(char::is_control), "{number}");
                    if number % 16 == 0 {
                        assert_eq!(redact::text(&clean), clean, "{number}: {raw:?}");
                    }
                }
            });
        }
    });
}

// ---- ordinary sentences

const THINGS: &[&str] = &[
    "request",
    "answer",
    "stream",
    "model",
    "prompt",
    "server",
    "provider",
    "connection",
    "client",
    "proxy",
    "header",
    "body",
    "token",
    "key",
    "password",
    "secret",
    "cookie",
    "credential",
    "signature",
    "session",
    "gateway",
    "tokenizer",
    "monkey",
    "keyboard",
    "author",
    "passport",
    "turkey",
    "API key",
    "access token",
    "bearer token",
    "subscription key",
    "webhook",
    "password field",
];
const DID: &[&str] = &[
    "was refused",
    "is missing",
    "has expired",
    "cannot be read",
    "took too long",
    "was not found",
    "is not valid",
    "has been revoked",
    "was rotated yesterday",
    "ended early",
    "is empty",
    "must not be shared",
    "could not be verified",
    "is required",
    "changed twice",
    "is unknown",
];
const MODELS: &[&str] = &[
    "gpt-4o",
    "gpt-4o-mini-2024-07-18",
    "claude-3-5-sonnet-20241022",
    "gemini-1.5-pro-002",
    "llama-3.1-70b-instruct",
    "text-embedding-3-large",
    "o3-mini",
    "mistral-large-2411",
    "deepseek-r1-distill-qwen-32b",
    "jina-embeddings-v2-base-en",
    "llama-4-maverick-17b-128e-instruct-fp8",
    "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "ft:gpt-4o-mini:acme::9x8y7z",
];
const REASONS: &[&str] = &[
    "connection reset by peer (os error 104)",
    "status 503: Service Unavailable",
    "operation timed out after 30 s",
    "tls handshake eof",
    "unexpected end of file",
    "dns error: failed to lookup address information",
    "missing field `token` at line 1 column 5",
    "unexpected token: `}`",
    "invalid type: string, expected u64",
    "too many requests",
    "invalid x-api-key",
    "missing bearer or basic authentication in header",
];
/// Code without an assignment to `token` or `key`, because the value of one is redacted.
const CODE: &[&str] = &[
    "if a == b { return c != d; }",
    "let item = tokens.next().await?;",
    "for key in map.keys() {}",
    "fn token(&self) -> &str",
    "std::token::Error: bad",
    "max_tokens: 4096, prompt_tokens=12",
    "assert_eq!(keys, 3)",
    "SELECT key, value FROM settings WHERE id = 7",
    "cargo test -p l0-core --all-features",
    "x = {'temperature': 0.7, 'top_p': 1}",
    "sort -t: -k2 names.txt",
    "docker run -p 8080:80 jina_embeddings_v3_base",
    "let global_endpoint = lin_api_version.parse()?;",
    "pip install tvly-python-client glance-image-service",
    "match outcome { Some(_) => 1, None => 0 }",
    "self.tokens += 1;",
];
const PLACES: &[&str] = &[
    "https://api.example.com/v1/chat/completions",
    "https://docs.example.com/guides/api-keys/rotate",
    "http://localhost:8080/path",
    "http://[::1]:3000/metrics",
    "/var/log/l0/runs-2024-08-31.jsonl",
    "C:/Users/anna/notes.txt",
    "s3://bucket/folder/file-0001.parquet",
    "wss://realtime.example.com/v1",
    "https://example.com/@anna/posts/12345678",
    "https%3A%2F%2Fexample.com%2Fdocs",
];
const HASHES: &[&str] = &[
    "3f786850e387550fdab836ed7e6dc881de23001b",
    "123e4567-e89b-12d3-a456-426614174000",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "req_011CQabcdefgh",
    "d41d8cd98f00b204e9800998ecf8427e",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "v0.45.3-rc.1+build.20240831",
    "chatcmpl-9abcDEFghiJKLmno",
];
const OTHER: &[&str] = &[
    "the weather in Lisbon is fine",
    "please call me back at noon",
    "she bought three oranges",
    "a basic plan includes ten seats",
    "the bearer of bad news left",
    "Basic usage is described below",
    "keep a spare key under the mat",
    "we passed the old mill",
    "he signed with his initials",
    "r\u{e9}sum\u{e9} and na\u{ef}ve have accents",
    "\u{65e5}\u{672c}\u{8a9e}\u{306e}\u{6587}\u{7ae0}",
    "\u{51fa}\u{9519}\u{ff1a}\u{8bf7}\u{7a0d}\u{540e}\u{518d}\u{8bd5}",
    "wait, is it true?",
    "10 % of 250 is 25",
    "see chapter 3: tokens",
    "\u{1f389} it works",
];
/// Patterns of sentences. Each place is filled from its list.
const SENTENCES: &[&str] = &[
    "the {thing} {did}.",
    "The {thing} of {model} {did}: {reason}",
    "{reason}",
    "{model}: {reason}, and the {thing} {did}",
    "{other}, and the {thing} {did}.",
    "{other}; {other}.",
    "see {place} about the {thing}",
    "the {thing} at {place} {did}",
    "commit {hash} changed the {thing}",
    "run {hash} of {model} ended: {reason}",
    "request id {hash}: the {thing} {did}",
    "sha256 {hash}",
    "`{code}`",
    "error in `{code}`: {reason}",
    "{code} // {other}",
    "was the {thing} or the {thing} meant? {other}",
    "1. the {thing}; 2. the {thing}; 3. {other}",
    "{model} costs 0.15 per million tokens, {model} ten times that",
    "{\"error\":{\"type\":\"invalid_request_error\",\"message\":\"the {thing} {did}\"}}",
    "[2024-08-31T12:00:00Z INFO chat] {reason}",
];

/// The values for the places of a pattern, by name.
const LISTS: [(&str, &[&str]); 8] = [
    ("{thing}", THINGS),
    ("{did}", DID),
    ("{model}", MODELS),
    ("{reason}", REASONS),
    ("{code}", CODE),
    ("{place}", PLACES),
    ("{hash}", HASHES),
    ("{other}", OTHER),
];

fn sentence(random: &mut Rng) -> String {
    let mut sentence = pick(random, SENTENCES).to_owned();
    for (place, list) in LISTS {
        while sentence.contains(place) {
            sentence = sentence.replacen(place, pick(random, list), 1);
        }
    }
    sentence
}

#[test]
fn ten_thousand_ordinary_sentences_stay_unchanged() {
    let mut random = Rng::with_seed(17);
    let mut sentences = HashSet::new();
    while sentences.len() < 10_000 {
        sentences.insert(sentence(&mut random));
    }
    let wrong: Vec<_> = sentences
        .iter()
        .map(|raw| (raw, redact::text(raw)))
        .filter(|(raw, clean)| *raw != clean)
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of them: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)]
    );
}
