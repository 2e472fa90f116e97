//! What the examples share: a client, and a server to talk to without a key.

use std::error::Error;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use l0_providers::{Client, ClientError, Provider, openai};
use sentry::ClientInitGuard;

use crate::server::Server;

pub mod chat_app;
pub mod chat_client;
pub mod serve;
pub mod server;

/// A client of `OpenAI` if `OPENAI_API_KEY` is set, of any compatible server if `OPENAI_BASE_URL`
/// is. Otherwise a client of a server inside the process, whose first `faults` connections break
/// in mid-stream; it stops when it is dropped.
///
/// # Errors
///
/// If the variables do not make a client, or no loopback port can be had.
pub async fn client(faults: usize) -> Result<(openai::Client, Option<Server>), Box<dyn Error>> {
    client_of(faults).await
}

/// A client of any provider, from its own variables or else as [`client`].
///
/// # Errors
///
/// As of [`client`].
pub async fn client_of<P: Provider>(
    faults: usize,
) -> Result<(Client<P>, Option<Server>), Box<dyn Error>> {
    match Client::from_env() {
        Err(ClientError::MissingKey { .. }) => {
            let server = Server::start(faults).await?;
            Ok((Client::new(&server.base_url())?, Some(server)))
        }
        client => Ok((client?, None)),
    }
}

/// Lets Sentry send what is left, and waits for it no longer than this. Returns whether all was sent.
///
/// The time limit of `close` does not hold for a request that is on its way: it joins the thread that sends.
#[must_use]
pub fn close_sentry(guard: ClientInitGuard, bound: Duration) -> bool {
    let (sender, closed) = mpsc::channel();
    thread::spawn(move || sender.send(guard.close(Some(bound))));
    closed.recv_timeout(bound).unwrap_or(false)
}

/// Reads a share of 1 from the command line.
///
/// # Errors
///
/// If it is not a number from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("it is not a number from 0 to 1".to_owned()),
    }
}

#[cfg(doctest)]
mod documents {
    //! The code blocks of the documents, compiled by the tests.

    #[doc = include_str!("../../README.md")]
    struct Readme;

    #[doc = include_str!("../../docs/architecture.md")]
    struct Architecture;

    #[doc = include_str!("../../docs/configuration.md")]
    struct Configuration;

    #[doc = include_str!("../../docs/exporters.md")]
    struct Exporters;

    #[doc = include_str!("../../docs/observers.md")]
    struct Observers;

    #[doc = include_str!("../../docs/otel.md")]
    struct Otel;

    #[doc = include_str!("../../docs/patterns.md")]
    struct Patterns;

    #[doc = include_str!("../../docs/privacy.md")]
    struct Privacy;

    #[doc = include_str!("../../docs/cost.md")]
    struct Cost;

    #[doc = include_str!("../../docs/prometheus.md")]
    struct Prometheus;

    #[doc = include_str!("../../docs/quality.md")]
    struct Quality;

    #[doc = include_str!("../../docs/quick-start.md")]
    struct QuickStart;

    #[doc = include_str!("../../docs/reliability.md")]
    struct Reliability;

    #[doc = include_str!("../../docs/scaling.md")]
    struct Scaling;

    #[doc = include_str!("../../docs/sentry.md")]
    struct Sentry;

    #[doc = include_str!("../../docs/shutdown.md")]
    struct Shutdown;

    #[doc = include_str!("../../docs/sources.md")]
    struct Sources;

    #[doc = include_str!("../../docs/telemetry.md")]
    struct Telemetry;

    #[doc = include_str!("../../docs/testing.md")]
    struct Testing;

    #[doc = include_str!("../../docs/tool-calls.md")]
    struct ToolCalls;

    #[doc = include_str!("../../docs/tracing.md")]
    struct Tracing;

    #[doc = include_str!("../../docs/with-what-you-have.md")]
    struct WithWhatYouHave;
}
