//! Secrets: credentials and outputs never appear in messages, telemetry, `Debug` or `Display`. Other
//! words of errors appear only if that is switched on.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use l0_core::testing::{Captured, OwnedEvent, Script, ScriptedError};
use l0_core::{
    Backoff, Check, Event, Failure, Findings, Interceptor, Interest, L0, Monitor, Monitoring,
    NetworkErrorKind, NewRun, Observer, Observers, Refusal, Retry, RunInfo, Severity, Telemetry,
    Violation, redact,
};

/// A part of every secret.
const CANARY: &str = "c4n4ry";

/// Error texts that contain a secret, as libraries write them.
const TEXTS: &[&str] = &[
    "connection reset: Authorization: Bearer c4n4ryAbCdEf0123456789",
    r#"status 503, headers {"authorization": "Bearer c4n4ryAbCdEf0123456789"}"#,
    "timeout, x-api-key: c4n4ry-AbCdEf-0123456789",
    "status 401: Incorrect API key provided: sk-c4n4ryAbCdEf0123456789AbCdEf",
    "status 401: Incorrect API key provided: sk-proj-c4n4ry_AbCdEf-0123456789AbCdEf",
    "error sending request for url (https://api.example.com/v1/chat?key=c4n4ryAbCdEf0123): timeout",
    "connection refused: https://user:c4n4ryPassword@proxy.example.com:8080/v1",
    "connection refused (http://c4n4ryUser@proxy.example.com/)",
    "status 500, request: POST https://example.com/c?api_key=c4n4ryAbCdEf0123&user=c4n4ry#c4n4ry",
    "connection dropped\napi_key=c4n4ryAbCdEf0123456789",
    r#"broken pipe, body: {"api_key":"c4n4ryAbCdEf0123456789","model":"gpt-4"}"#,
    "SSL handshake failed; proxy-authorization: Basic dXNlcjpwYXNz-c4n4ryAbCdEf0123456789",
    "rate limited, Cookie: session=c4n4ryAbCdEf0123456789",
    "GET https://api.example.com/v1/models?api-version=1&sig=c4n4ryAbCdEf0123456789 failed",
    r#"config: Config { api_key: "c4n4ryAbCdEf0123456789", model: "m" }"#,
    "OPENAI_API_KEY=c4n4ryAbCdEf0123456789 is not valid",
    "token eyJhbGciOiJIUzI1NiJ9.c4n4ryAbCdEf0123456789.abc expired",
    "password=c4n4ryAbCdEf0123456789",
];

/// A part of every prompt.
const PROMPT: &str = "a birthday poem";

/// Error texts that repeat a prompt, without a pattern that redaction could recognize.
const PROMPTS: &[&str] = &[
    "a birthday poem",
    "failed to deserialize api response: error:missing field `id` content:a birthday poem",
    "status 400: a birthday poem is not allowed",
    r#"HTTP 429: {"error":{"message":"a birthday poem is too much"}}"#,
    "Connection refused (os error 111): a birthday poem",
    "a birthday poem: operation timed out",
    "getaddrinfo ENOTFOUND a birthday poem",
    r#"Os { code: 104, kind: ConnectionReset, message: "a birthday poem" }"#,
    r#"status: Unavailable, message: "a birthday poem""#,
    "503 Service Unavailable\na birthday poem",
];

/// An error with its secret in each link of its chain.
#[derive(Debug)]
struct Chained(&'static str, Option<Box<Chained>>);

impl fmt::Display for Chained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Chained {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.1.as_deref()?)
    }
}

fn errors(text: &'static str) -> [ScriptedError; 3] {
    let inner = Some(Box::new(Chained(text, None)));
    [
        text.into(),
        io::Error::other(Chained("request failed", inner)).into(),
        ScriptedError::new(Chained(
            text,
            Some(Box::new(Chained("connection reset by peer", None))),
        )),
    ]
}

/// Collects all output, to be searched for secrets.
#[derive(Debug, Clone, Default)]
struct Printed(Arc<Mutex<Vec<String>>>);

impl Printed {
    fn push(&self, what: impl Into<String>) {
        self.0.lock().expect("no panic").push(what.into());
    }

    fn debug(&self, what: &impl fmt::Debug) {
        self.push(format!("{what:?}"));
        self.push(format!("{what:#?}"));
    }

    fn telemetry(&self, telemetry: &Telemetry) {
        self.push(serde_json::to_string(telemetry).expect("serializes"));
        self.push(telemetry.to_string());
        self.debug(telemetry);
        self.debug(&telemetry.summary());
    }

    fn check(&self, what: &str) {
        let printed = self.0.lock().expect("no panic");
        assert!(!printed.is_empty());
        for text in &*printed {
            // A `Debug` form of a `Debug` form would be escaped, but not hidden.
            assert!(!text.contains(CANARY), "{what}: {text}");
        }
    }

    fn has(&self, word: &str) -> bool {
        let printed = self.0.lock().expect("no panic");
        printed.iter().any(|text| text.contains(word))
    }
}

impl Interceptor for Printed {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        self.debug(run);
        self.debug(observers);
        observers.push(self.clone());
    }

    fn before(&self, run: &mut NewRun) -> Result<(), Refusal> {
        self.debug(run);
        Ok(())
    }
}

impl Observer for Printed {
    fn interest(&self) -> Interest {
        Interest::TOKENS
    }

    fn on_event(&mut self, event: &Event<'_>) {
        self.debug(event);
        match *event {
            Event::NetworkError { message, .. } => self.push(message),
            Event::Finished { end, telemetry, .. } => {
                self.debug(end);
                end.message()
                    .into_iter()
                    .for_each(|message| self.push(message));
                telemetry
                    .into_iter()
                    .for_each(|telemetry| self.telemetry(telemetry));
            }
            _ => {}
        }
    }
}

fn l0(printed: &Printed, error_text: bool) -> L0 {
    let monitoring = Monitoring::new().error_text(error_text);
    let retries = printed.clone();
    let retry = Retry::new().max_retries(1).decide(move |retry| {
        retries.debug(retry);
        Some(retry.delay)
    });
    L0::builder()
        .monitoring(monitoring.metadata("model", "gpt-4"))
        .retry(retry.backoff(Backoff::none()))
        .interceptor(printed.clone())
        .build()
}

/// A source that yields its output and then fails with the error.
fn script(error: &ScriptedError) -> Script {
    let output = format!("the answer is {CANARY}");
    Script::new().attempt(|a| {
        a.reasoning(&output)
            .tool_call(&output)
            .token(&output)
            .token(&output)
            .fail(error.clone())
    })
}

/// Runs a source that fails with the error, and collects everything it prints.
async fn run(printed: &Printed, error: &ScriptedError, error_text: bool, network: bool) {
    let captured = Captured::new();
    let l0 = l0(printed, error_text).to_builder();
    let l0 = l0.interceptor(captured.clone()).build();
    let script = script(error);
    let prompt = format!("say {CANARY}");
    let builder = l0
        .stream(|_| {
            assert!(!prompt.is_empty());
            script.connect()
        })
        .classify(move |_| network.then_some(Failure::network(NetworkErrorKind::Unknown)));
    printed.debug(&builder);
    let mut run = builder.start();
    printed.debug(&run);
    let mut failed = false;
    while let Some(item) = run.next().await {
        printed.debug(&run);
        printed.telemetry(&run.telemetry().expect("measured"));
        if let Err(error) = item {
            // The error's own text only: the text of its source is the caller's to print.
            printed.push(error.to_string());
            printed.debug(&error);
            failed = true;
        }
    }
    assert!(failed);
    printed.debug(&run);
    printed.debug(&run.end());
    printed.debug(&captured);
    printed.debug(run.info());
    printed.debug(&run.handle());
    printed.debug(&l0);
    printed.debug(&l0.to_builder());
    printed.telemetry(&run.telemetry().expect("measured"));
}

async fn watch(printed: &Printed, error: &ScriptedError, error_text: bool) {
    let builder = l0(printed, error_text).watch(script(error).stream());
    printed.debug(&builder);
    let mut watched = builder.start();
    printed.debug(&watched);
    while watched.next().await.is_some() {
        printed.debug(&watched);
        printed.telemetry(&watched.telemetry().expect("measured"));
    }
    printed.debug(&watched);
    printed.debug(&watched.handle());
}

fn monitor(printed: &Printed, error: &ScriptedError, error_text: bool) {
    let mut monitor = Monitor::new(Monitoring::new().error_text(error_text));
    monitor.record_network_error(error, false, None, None);
    printed.debug(&monitor);
    let telemetry = monitor.telemetry().expect("measured");
    let errors = telemetry.network.errors.as_ref().expect("details");
    assert!(!errors[0].message.is_empty());
    printed.telemetry(&telemetry);
}

#[tokio::test(start_paused = true)]
async fn a_run_exposes_no_secrets_of_errors_and_no_prompts_or_outputs() {
    for text in TEXTS {
        for error in errors(text) {
            for (error_text, network) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let printed = Printed::default();
                run(&printed, &error, error_text, network).await;
                printed.check(text);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_watched_stream_exposes_no_secrets_of_errors_and_no_outputs() {
    for text in TEXTS {
        for error in errors(text) {
            for error_text in [false, true] {
                let printed = Printed::default();
                watch(&printed, &error, error_text).await;
                printed.check(text);
            }
        }
    }
}

#[test]
fn a_monitor_keeps_no_secret_of_an_error() {
    for text in TEXTS {
        for error in errors(text) {
            for error_text in [false, true] {
                let printed = Printed::default();
                monitor(&printed, &error, error_text);
                printed.check(text);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_part_of_an_error_that_repeats_a_prompt_is_sent_only_if_switched_on() {
    for text in PROMPTS {
        for error in errors(text) {
            for error_text in [false, true] {
                let of_run = Printed::default();
                run(&of_run, &error, error_text, false).await;
                let of_watched = Printed::default();
                watch(&of_watched, &error, error_text).await;
                let of_monitor = Printed::default();
                monitor(&of_monitor, &error, error_text);
                for printed in [of_run, of_watched, of_monitor] {
                    assert_eq!(printed.has(PROMPT), error_text, "{text}: {printed:?}");
                }
            }
        }
    }
}

#[test]
fn a_message_contains_nothing_that_can_be_a_prompt() {
    for text in PROMPTS.iter().chain(TEXTS) {
        for error in errors(text) {
            let message = redact::message(&error);
            assert!(!message.is_empty(), "{text}");
            for word in [
                PROMPT,
                CANARY,
                "https:",
                "example",
                "field",
                "request failed",
            ] {
                assert!(!message.contains(word), "{text}: {message}");
            }
        }
    }
}

#[tokio::test]
async fn observers_receive_a_refusal_without_its_secret() {
    struct Refuses(&'static str);
    impl Interceptor for Refuses {
        fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
            Err(Refusal::new(self.0))
        }
    }
    for text in TEXTS {
        let printed = Printed::default();
        let mut run = l0(&printed, false)
            .stream(Script::new().source())
            .interceptor(Refuses(text))
            .start();
        printed.debug(&run);
        let error = run.text().await.expect_err("refused");
        printed.debug(&error);
        printed.push(error.to_string());
        printed.debug(&run);
        printed.check(text);
    }
}

#[tokio::test]
async fn a_rule_that_quotes_a_secret_does_not_print_it() {
    for text in TEXTS {
        let violation = Violation::new("own", Severity::Fatal, *text);
        let printed = Printed::default();
        printed.debug(&violation);
        printed.push(violation.to_string());
        let l0 = l0(&printed, false).to_builder();
        let l0 = l0.guardrails(move || Reports(violation.clone())).build();
        let script = Script::new().attempt(|a| a.token("an answer"));
        let error = l0.stream(script.source()).start().text().await;
        let error = error.expect_err("a fatal violation");
        printed.debug(&error);
        printed.push(error.to_string());
        printed.check(text);
    }
}

struct Reports(Violation);

impl Check for Reports {
    fn name(&self) -> &'static str {
        "own"
    }

    fn text(&mut self, _: &str, findings: &mut Findings) {
        findings.report(self.0.clone());
    }
}

#[tokio::test]
async fn an_endpoint_that_is_a_url_exposes_no_secret() {
    const URL: &str = "https://c4n4ry:c4n4ry@h.example/chat?key=c4n4ry";
    const CLEAN: &str = "https://[redacted]@h.example/chat?[redacted]";

    for of_run in [true, false] {
        let printed = Printed::default();
        let monitoring = Monitoring::new();
        let monitoring = if of_run {
            monitoring
        } else {
            monitoring.metadata("endpoint", URL)
        };
        let l0 = L0::builder().monitoring(monitoring.clone());
        let l0 = l0.interceptor(printed.clone()).build();
        let script = Script::new();
        let mut builder = l0.stream(script.source());
        if of_run {
            builder = builder.metadata("endpoint", URL);
        }
        let run = builder.start();
        printed.telemetry(&run.telemetry().expect("measured"));
        assert_eq!(run.info().metadata()["endpoint"], CLEAN);
        if !of_run {
            let monitor = Monitor::new(monitoring);
            printed.telemetry(&monitor.telemetry().expect("measured"));
        }
        assert!(printed.has(CLEAN));
        // `before` sees the unredacted value, because it can also set it.
        let printed = printed.0.lock().expect("no panic");
        let leaks = printed.iter().filter(|text| text.contains(CANARY));
        let leaks = leaks.filter(|text| !text.starts_with("NewRun"));
        assert_eq!(leaks.count(), 0, "{printed:?}");
    }
}

/// Runs a source that fails with the text. Returns the message in telemetry and the messages in events.
async fn messages(text: &str, error_text: bool) -> (String, Vec<String>) {
    let captured = Captured::new();
    let l0 = L0::builder()
        .monitoring(Monitoring::new().error_text(error_text))
        .retry(Retry::none())
        .interceptor(captured.clone())
        .build();
    let script = Script::new().attempt(|a| a.fail(text));
    l0.stream(script.source()).start().count().await;
    let telemetry = captured.telemetry().expect("measured");
    let kept = telemetry.network.errors.expect("details").remove(0);
    let told = captured.events().into_iter();
    let told = told.filter_map(|event| match event {
        OwnedEvent::NetworkError { message, .. } => Some(message),
        OwnedEvent::Finished { end, .. } => end.message().map(str::to_owned),
        _ => None,
    });
    (kept.message, told.collect())
}

#[tokio::test(start_paused = true)]
async fn events_and_telemetry_have_the_same_messages_which_still_describe_the_failure() {
    let text = "Connection reset by peer: https://api.example.com/v1?key=c4n4ryAbCdEf0123456789";
    for (error_text, expected) in [
        (false, "Connection reset by peer"),
        (
            true,
            "Connection reset by peer: https://api.example.com/v1?[redacted]",
        ),
    ] {
        let (kept, told) = messages(text, error_text).await;
        assert!(kept.contains(expected), "{kept}");
        assert_eq!(told, [kept.clone(), kept]);
    }
}

#[test]
fn an_error_without_a_text_is_described_by_its_classification() {
    for error_text in [false, true] {
        for text in ["", " \n\u{7}"] {
            let mut monitor = Monitor::new(Monitoring::new().error_text(error_text));
            monitor.fail(&io::Error::new(io::ErrorKind::ConnectionReset, text));
            let telemetry = monitor.telemetry().expect("measured");
            let message = telemetry.error.expect("failed").message;
            assert_eq!(message, "connection reset", "{text:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn long_messages_are_truncated_and_counted_as_usual() {
    let long = format!("Connection reset by peer: {}", "é ".repeat(100_000));
    for (error_text, expected) in [(false, ""), (true, ": é é")] {
        let (kept, told) = messages(&long, error_text).await;
        assert!(kept.len() <= 512, "{}", kept.len());
        assert!(
            kept.contains(&format!("Connection reset by peer{expected}")),
            "{kept}"
        );
        assert_eq!(told.len(), 2);
    }
}
