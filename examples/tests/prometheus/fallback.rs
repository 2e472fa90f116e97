//! Runs with a fallback to another model, scraped by a real Prometheus: the errors and tokens of the failing
//! model count for it, and the answers for the other.

use std::net::Ipv4Addr;

use axum::Router;
use l0_core::{Backoff, L0, Retry, Source, source};
use l0_examples::server::{Fault, Server};
use l0_prometheus::{Collector, metrics_route};
use l0_providers::openai::{ChatRequest, Client};
use tokio::net::TcpListener;

use crate::common::{ANSWER, Samples, read, switched_on};
use crate::documents::check_queries;
use crate::guide::{Window, assert_close};
use crate::programs::{Prometheus, with_one_spelling};

/// The number of tokens of a truncated answer.
const MIDDLE: usize = 12;

/// The models, one on each server.
const MODELS: [&str; 2] = ["a", "b"];

/// The faults of the next requests to the failing server, and the number of runs they take.
const ROUND: [&[Fault]; 3] = [
    // Both attempts fail: one in mid-stream, and one at once.
    &[Fault::Break, Fault::Unavailable],
    &[Fault::Unavailable, Fault::Break],
    // The server answers.
    &[],
];

struct Upstream {
    server: Server,
    client: Client,
}

impl Upstream {
    async fn start() -> Self {
        let server = Server::start(0).await.unwrap();
        let client = Client::new(&server.base_url()).unwrap();
        Self { server, client }
    }
}

async fn round(l0: &L0, failing: &Upstream, answering: &Upstream) {
    for faults in ROUND {
        failing.server.fail_next(faults.iter().copied());
        let [asked, other] = MODELS.map(|model| ChatRequest::new(model).user("Hello?"));
        let run = l0
            .stream(|_attempt| failing.client.chat_stream(&asked))
            .metadata("model", MODELS[0])
            .fallback(
                source(|_attempt| answering.client.chat_stream(&other))
                    .metadata("model", MODELS[1]),
            );
        run.start().text().await.unwrap();
    }
}

/// Returns the result of a query for each model, `a` first, or 0 if there is none.
async fn by_model(prometheus: &Prometheus, query: &str) -> [f64; 2] {
    let samples = prometheus.query(query, None).await;
    MODELS.map(|model| {
        let of_model = samples.0.iter();
        let of_model =
            of_model.filter(|(labels, _)| labels.get("model").is_some_and(|m| m == model));
        of_model.map(|(_, value)| value).sum()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_failing_model_has_the_errors_and_the_answering_one_the_answers() {
    let Some(binary) = switched_on("L0_PROMETHEUS") else {
        return;
    };
    let collector = Collector::builder().build().unwrap();
    let l0 = L0::builder()
        .retry(Retry::new().max_retries(1).backoff(Backoff::none()))
        .interceptor(collector.label_keys(["model"]).unwrap())
        .build();
    let (failing, answering) = (Upstream::start().await, Upstream::start().await);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/metrics", metrics_route(collector.clone()));
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let prometheus = Prometheus::start(&binary, &[address], &[]).await;

    let exposed = || -> Samples { with_one_spelling(read(&collector.expose())) };
    let ours = "{__name__=~\"l0_.+\"}";
    round(&l0, &failing, &answering).await;
    let before = exposed();
    prometheus.wait_for(ours, &before).await;
    let start = prometheus.scraped().await;
    round(&l0, &failing, &answering).await;
    let after = exposed();
    prometheus.wait_for(ours, &after).await;

    // Two rounds of three runs each, two of which fall back.
    let (answer, middle) = (ANSWER as f64, MIDDLE as f64);
    for (query, a, b) in [
        // The failing model.
        ("sum by (model) (l0_network_errors_total)", 8.0, 0.0),
        (
            "sum by (model) (l0_network_errors_by_type_total{error_type=\"server_error\"})",
            4.0,
            0.0,
        ),
        (
            "sum by (model) (l0_attempts_total{result=\"failed\"})",
            8.0,
            0.0,
        ),
        ("sum by (model) (l0_retries_total)", 4.0, 0.0),
        // The model of the tokens, and the model of the answers.
        (
            "sum by (model) (l0_tokens_total)",
            4.0 * middle + 2.0 * answer,
            4.0 * answer,
        ),
        ("sum by (model) (l0_wasted_tokens_total)", 4.0 * middle, 0.0),
        (
            "sum by (model) (l0_attempts_total{result=\"completed\"})",
            2.0,
            4.0,
        ),
        ("sum by (model) (l0_requests_total)", 2.0, 4.0),
        (
            "sum by (model) (l0_request_duration_seconds_count)",
            2.0,
            4.0,
        ),
        (
            "sum by (model) (l0_time_to_first_token_seconds_count)",
            2.0,
            4.0,
        ),
        (
            "sum by (model) (l0_attempt_time_to_first_token_seconds_count)",
            6.0,
            4.0,
        ),
        // The models of the attempts.
        ("sum by (model) (l0_streams_started_total)", 6.0, 0.0),
        (
            "sum by (model) (l0_streams_finished_total{outcome=\"completed\"})",
            6.0,
            0.0,
        ),
        (
            "sum by (model) (l0_fallbacks_total{from=\"a\",to=\"b\"})",
            4.0,
            0.0,
        ),
        ("sum by (model) (l0_failures_total)", 0.0, 0.0),
    ] {
        let values = by_model(&prometheus, query).await;
        assert_eq!(values, [a, b], "{query}");
    }
    let failed = "sum by (model) (l0_attempts_total{result=~\"failed|timed_out|truncated|limited\"}) \
        / sum by (model) (l0_attempts_total)";
    let values = by_model(&prometheus, failed).await;
    assert_close(values[0], 0.8, failed);
    assert_eq!(values[1], 0.0, "{failed}");
    // The times of the run and of the attempt, for the model that answers.
    let mean = |histogram: &str| {
        format!("sum by (model) ({histogram}_sum) / sum by (model) ({histogram}_count)")
    };
    let [_, of_runs] = by_model(&prometheus, &mean("l0_time_to_first_token_seconds")).await;
    let [_, of_attempts] =
        by_model(&prometheus, &mean("l0_attempt_time_to_first_token_seconds")).await;
    assert!(0.0 < of_attempts, "{of_attempts}");
    assert!(0.0 < of_runs, "{of_runs}");

    // The queries of the documents about fallbacks.
    let end = prometheus.scraped().await;
    let window = Window {
        before,
        after,
        start,
        end,
    };
    let checked = check_queries(&prometheus, &window, "l0_fallbacks").await;
    assert!(checked > 3, "{checked}");
    serving.abort();
}
