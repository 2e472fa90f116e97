//! Agents of the real client, run through L0, against a server with faults.
#![cfg(feature = "agent")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use l0_core::{
    Backoff, FinishReason, L0, Monitoring, NetworkErrorKind, Outcome, Retry, Source, Usage,
};
use l0_providers::testing::{Answer, ScriptedProvider};
use l0_rig::agent;
use rig_agent::AgentBuilder;
use rig_core::DynModel;
use rig_core::operation::Completion;
use rig_core::providers::openai::OpenAIConfig;

const KEY: &str = "sk-canary-0123456789abcdef";
const SECRET: &str = "the prompt was a secret";

fn openai(address: &str) -> DynModel<Completion> {
    let config = OpenAIConfig::new(KEY).with_base_url(format!("{address}/v1"));
    config.client().chat("m").erase()
}

fn l0(retries: u32) -> L0 {
    let retry = Retry::new().max_retries(retries).backoff(Backoff::none());
    let monitoring = Monitoring::new().include_network_details(true);
    L0::builder().monitoring(monitoring).retry(retry).build()
}

#[tokio::test]
async fn an_agents_answer_is_read_with_its_metadata() {
    let usage = Usage::new().input(9).output(2).total(11);
    let usage = usage.cached_input(4).reasoning(1);
    let answer = Answer::text(["Hel", "lo"]).usage(usage);
    let provider = ScriptedProvider::start([answer]).await.unwrap();
    let model = openai(&provider.base_url());
    let built = AgentBuilder::new(model.clone())
        .preamble("Be brief.")
        .build();
    let mut run = l0(0)
        .stream_from(agent(built.prompt(SECRET)).model(&model))
        .start();
    assert_eq!(run.text().await.unwrap(), "Hello");
    let telemetry = run.telemetry().unwrap();
    assert_eq!(telemetry.outcome, Some(Outcome::Completed));
    assert_eq!(telemetry.finish_reason, Some(FinishReason::Stop));
    assert_eq!(telemetry.usage, Some(usage));
    assert_eq!(telemetry.metrics.total_tokens, 2);
    let attempt = &telemetry.attempts[0];
    assert_eq!(attempt.operation.as_deref(), Some("invoke_agent"));
    assert_eq!(attempt.provider.as_deref(), Some("openai"));
    assert_eq!(attempt.model.as_deref(), Some("m"));
    assert_eq!(attempt.response_id.as_deref(), Some("scripted-1"));
    assert_eq!(attempt.response_model.as_deref(), Some("m"));
}

#[tokio::test]
async fn faults_are_retried_and_each_request_is_an_attempt() {
    use NetworkErrorKind as N;
    let whole = || Answer::text(["Hello"]);
    for (name, fault, kind) in [
        ("no end", whole().end(), Some(N::PartialChunks)),
        ("cut", whole().cut(), None),
        (
            "429",
            Answer::status(429).header("retry-after", "0"),
            Some(N::RateLimited),
        ),
        ("503", Answer::status(503), Some(N::ServerError)),
        (
            "error in mid-stream",
            whole().error(503, SECRET),
            Some(N::ServerError),
        ),
    ] {
        let answers = [fault.clone(), whole(), fault];
        let provider = ScriptedProvider::start(answers).await.unwrap();
        let built = AgentBuilder::new(openai(&provider.base_url())).build();
        let mut run = l0(1).stream_from(agent(built.prompt(SECRET))).start();
        assert_eq!(run.text().await.unwrap(), "Hello", "{name}");
        let telemetry = run.telemetry().unwrap();
        assert_eq!(telemetry.metrics.attempts, 2, "{name}");
        assert_eq!(provider.requests().len(), 2, "{name}");
        assert_eq!(telemetry.network.error_count, 1, "{name}");
        if let Some(kind) = kind {
            assert_eq!(telemetry.network.errors_by_type[&kind], 1, "{name}");
        }
        let printed = format!("{telemetry:?}");
        assert!(!printed.contains(SECRET), "{name}: {printed}");

        let mut run = l0(0).stream_from(agent(built.prompt(SECRET))).start();
        let error = run.text().await.unwrap_err();
        let outcome = match name {
            "no end" => Outcome::Truncated,
            _ => Outcome::Failed,
        };
        assert_eq!(run.outcome(), Some(outcome), "{name}");
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains(SECRET), "{name}: {printed}");
        if let Some(source) = error.into_source() {
            let printed = format!("{source} {source:?}");
            assert!(!printed.contains(SECRET), "{name}: {printed}");
        }
    }
}

#[tokio::test]
async fn permanent_faults_are_not_retried() {
    let answer = Answer::status(401).message(SECRET);
    let provider = ScriptedProvider::start([answer]).await.unwrap();
    let built = AgentBuilder::new(openai(&provider.base_url())).build();
    let mut run = l0(3).stream_from(agent(built.prompt(SECRET))).start();
    let error = run.text().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the source failed after 1 attempt (status 401)"
    );
    assert_eq!(provider.requests().len(), 1);
    let failure = error.into_source().unwrap().failure();
    assert_eq!(failure.status, Some(401));
}

#[tokio::test]
async fn the_prompt_is_not_printed() {
    let model = openai("http://127.0.0.1:81");
    let built = AgentBuilder::new(model).build();
    let source = agent(built.prompt(SECRET));
    assert!(!format!("{source:?}").contains(SECRET));
    assert_eq!(source.input(), None);
}
