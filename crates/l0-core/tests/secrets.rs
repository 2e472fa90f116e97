//! Canary secrets, put wherever a secret may be, appear in nothing that leaves by default.

use std::io;

use l0_core::testing::{Captured, OwnedEvent, Script};
use l0_core::{Backoff, Failure, Interceptor, L0, Monitoring, Refusal, Request, Retry};

const CANARY: &str = "CANARY0123456789abcdef";

/// Error texts with the canary where clients put secrets.
fn texts() -> Vec<String> {
    [
        "error sending request for url (https://user:{}@api.example.com/v1)",
        "error sending request for url (https://api.example.com/v1?key={}&alt=sse)",
        "GET https://api.example.com/v1/models?api-version=1&sig={} failed",
        "invalid header: Authorization: Bearer {}",
        "invalid header authorization: Basic {}==",
        "x-api-key: {}",
        "Incorrect API key provided: sk-{}. You can find your key at https://example.com.",
        "Incorrect API key provided: sk-proj-{}-x",
        r#"{"error": {"message": "bad", "api_key": "{}"}}"#,
        "config: Config { api_key: \"{}\", model: \"m\" }",
        "OPENAI_API_KEY={} is not valid",
        "token eyJhbGciOiJIUzI1NiJ9.{}.abc expired",
        "password={}",
    ]
    .map(|text| text.replace("{}", CANARY))
    .into()
}

#[tokio::test]
async fn secrets_in_error_texts_leave_through_no_event_and_no_telemetry() {
    for text in texts() {
        for retries in [0, 1] {
            let captured = Captured::new();
            let l0 = L0::builder()
                .monitoring(Monitoring::new())
                .retry(Retry::new().max_retries(retries).backoff(Backoff::none()))
                .interceptor(captured.clone())
                .build();
            let error = io::Error::other(format!("connection reset: {text}"));
            let script = Script::new().attempt(|a| a.token("answer").fail(error));
            let mut run = l0.stream(script.source()).start();
            run.text().await.expect_err("fails");

            let telemetry = run.telemetry().expect("measured");
            let json = serde_json::to_string(&telemetry).expect("serializes");
            let mut leaving = vec![
                json,
                telemetry.to_string(),
                format!("{telemetry:?}"),
                format!("{run:?}"),
            ];
            for event in captured.events() {
                match event {
                    OwnedEvent::NetworkError { message, .. } => leaving.push(message),
                    OwnedEvent::Finished {
                        message, telemetry, ..
                    } => {
                        leaving.push(message.expect("says what went wrong"));
                        leaving.push(format!("{telemetry:?}"));
                    }
                    _ => {}
                }
            }
            for text in leaving {
                assert!(!text.contains("CANARY"), "{text}");
            }
        }
    }
}

#[tokio::test]
async fn secrets_in_refusals_leave_through_no_event() {
    struct Refuses;

    impl Interceptor for Refuses {
        fn before(&self, _: &mut Request) -> Result<(), Refusal> {
            Err(Refusal::new(format!("quota of Bearer {CANARY} is used up")))
        }
    }

    let captured = Captured::new();
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .interceptor(Refuses)
        .interceptor(captured.clone())
        .build();
    let _run = l0.stream(Script::new().source()).start();
    let Some(OwnedEvent::Finished {
        message: Some(message),
        ..
    }) = captured.events().pop()
    else {
        panic!("a refused run finishes when it starts");
    };
    assert!(!message.contains("CANARY"), "{message}");
}

#[tokio::test]
async fn neither_prompt_nor_output_is_in_what_leaves() {
    let prompt = format!("prompt {CANARY}");
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
        .build();
    let script = Script::new().attempt(|a| {
        a.token(CANARY)
            .reasoning(CANARY)
            .tool_call(CANARY)
            .fail(Failure::status(500))
    });
    let mut run = l0
        .stream(|_| {
            assert!(!prompt.is_empty());
            script.connect()
        })
        .metadata("model", "gpt-4")
        .start();
    run.text().await.expect_err("fails");
    let telemetry = run.telemetry().expect("measured");
    for text in [
        serde_json::to_string(&telemetry).expect("serializes"),
        telemetry.to_string(),
        format!("{telemetry:?} {run:?} {l0:?} {:?}", run.info()),
    ] {
        assert!(!text.contains("CANARY"), "{text}");
    }
}
