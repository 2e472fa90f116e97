//! The canaries, and their positions.

/// The kind of a private text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A credential of the client.
    Key,
    /// A credential of the client in another form, as servers repeat it.
    Form,
    /// A part of the request.
    Prompt,
    /// A part of the answer.
    Output,
    /// A text of the provider.
    Provider,
    /// An entry of the run's metadata, which records contain.
    Metadata,
    /// A part of the endpoint in the run's metadata.
    Endpoint,
}

/// A text that must not be exported.
#[derive(Debug)]
pub(crate) struct Canary {
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    /// The text that a server or an error echoes.
    pub(crate) text: &'static str,
    /// The part to search for.
    pub(crate) mark: &'static str,
}

const fn canary(
    name: &'static str,
    class: Class,
    text: &'static str,
    mark: &'static str,
) -> Canary {
    Canary {
        name,
        class,
        text,
        mark,
    }
}

const fn key(name: &'static str, text: &'static str) -> Canary {
    canary(name, Class::Key, text, text)
}

pub(crate) const API_KEY: &str = "sk-c4n4ryK01AbCdEf0123456789";
pub(crate) const OPAQUE: &str = "c4n4ry-k02-opaque";
pub(crate) const TENANT: &str = "c4n4ry k03 tenant";
pub(crate) const BASIC: &str = "YzRuNHJ5LWswNDpjNG40cnktazA1LXBhc3M=";
pub(crate) const COOKIE: &str = "c4n4ryk07cookie";
pub(crate) const URL_USER: &str = "c4n4ry-k08-user";
pub(crate) const URL_PASSWORD: &str = "c4n4ry-k09-pass";
pub(crate) const URL_QUERY: &str = "c4n4ry-k10-query";

pub(crate) const SYSTEM: &str = "You are c4n4ry-p15, be brief.";
pub(crate) const USER: &str = "Write a poem on c4n4ry-p16, please.";
pub(crate) const IMAGE: &str = "https://img.example/c4n4ry-p18?sig=c4n4ry-p18";
pub(crate) const TOOL: &str = "Looks up the weather of c4n4ry-p20";
pub(crate) const PERSON: &str = "c4n4ry-p21@person.example";

pub(crate) const ANSWER: &str = "Roses are c4n4ry-o23, violets are blue.";
pub(crate) const REASONING: &str = "The user wants c4n4ry-o24, so I think.";
pub(crate) const ARGUMENTS: &str = r#"{"city":"c4n4ry-o25"}"#;

pub(crate) const TAG: &str = "c4n4ry-m37-tag";
pub(crate) const NESTED: &str = "c4n4ry-m38-nested";
pub(crate) const ENDPOINT: &str = "https://c4n4ry-e39:x@h.example/chat?key=c4n4ry-e40";

#[rustfmt::skip] // one per line
pub(crate) static CANARIES: [Canary; 40] = [
    key("API key", API_KEY),
    key("API key of no known form, in a header", OPAQUE),
    key("header with spaces", TENANT),
    key("user of basic authentication", "c4n4ry-k04"),
    key("password of basic authentication", "c4n4ry-k05-pass"),
    key("basic authentication in base64", "YzRuNHJ5LWswNDpjNG40cnktazA1LXBhc3M"),
    key("cookie", COOKIE),
    key("user of the address", URL_USER),
    key("password of the address", URL_PASSWORD),
    key("query of the address", URL_QUERY),
    canary("key, percent-encoded", Class::Form, "c4n4ry%2Dk02%2dopaque", "c4n4ry%2Dk02%2dopaque"),
    canary("key in base64", Class::Form, "eyJrIjoiYzRuNHJ5LWswMi1vcGFxdWUifQ==", "NG40cnktazAyLW9wYXF1Z"),
    canary("key in upper case", Class::Form, "C4N4RY-K02-OPAQUE", "C4N4RY-K02"),
    canary("key over two lines", Class::Form, "c4n4ry-k02 -opaque", "k02 -opaque"),

    canary("system message", Class::Prompt, SYSTEM, "c4n4ry-p15"),
    canary("user message", Class::Prompt, USER, "c4n4ry-p16"),
    canary("part of a body", Class::Prompt, r#"{"role":"user","content":"c4n4ry-p17"}"#, "c4n4ry-p17"),
    canary("address of an image", Class::Prompt, IMAGE, "c4n4ry-p18"),
    canary("line of a transport before a prompt", Class::Prompt, "Connection refused (os error 111): c4n4ry-p19 it is", "c4n4ry-p19"),
    canary("description of a tool", Class::Prompt, TOOL, "c4n4ry-p20"),
    canary("person", Class::Prompt, PERSON, "c4n4ry-p21"),
    canary("status before a prompt", Class::Prompt, "status 400 Bad Request: c4n4ry-p22 is not allowed", "c4n4ry-p22"),

    canary("answer", Class::Output, ANSWER, "c4n4ry-o23"),
    canary("reasoning", Class::Output, REASONING, "c4n4ry-o24"),
    canary("arguments of a tool", Class::Output, ARGUMENTS, "c4n4ry-o25"),
    canary("refusal", Class::Output, "I cannot help with c4n4ry-o26, as an AI language model.", "c4n4ry-o26"),
    canary("payload", Class::Output, r#"content:{"choices":[{"delta":{"content":"c4n4ry-o27"}}]}"#, "c4n4ry-o27"),
    canary("block of code", Class::Output, "```c4n4ry-o28\nfn c4n4ry-o28() {", "c4n4ry-o28"),

    canary("provider's message", Class::Provider, "Your request about c4n4ry-v29 was flagged", "c4n4ry-v29"),
    canary("provider's words after a key's name", Class::Provider, "invalid parameter: c4n4ry-v30 of it", "c4n4ry-v30"),
    canary("web page", Class::Provider, "<html><title>c4n4ry-v31</title></html>", "c4n4ry-v31"),
    canary("stack trace", Class::Provider, "at handler (/srv/c4n4ry-v32.js:1:1)", "c4n4ry-v32"),
    canary("message with a wait", Class::Provider, "Rate limit reached for c4n4ry-v33. Please try again in 1ms.", "c4n4ry-v33"),
    canary("organisation", Class::Provider, "in organization c4n4ry-v34 on tokens per min", "c4n4ry-v34"),
    canary("deserializer's words", Class::Provider, "invalid type: string \"c4n4ry-v35\", expected u64", "c4n4ry-v35"),
    canary("words in another script", Class::Provider, "请求过于频繁：c4n4ry-v36", "c4n4ry-v36"),

    canary("metadata that is not listed", Class::Metadata, "c4n4ry-m37-tag it is", TAG),
    canary("metadata in an object", Class::Metadata, "c4n4ry-m38-nested it is", NESTED),
    canary("user of the endpoint", Class::Endpoint, "c4n4ry-e39 it is", "c4n4ry-e39"),
    canary("query of the endpoint", Class::Endpoint, "c4n4ry-e40 it is", "c4n4ry-e40"),
];
