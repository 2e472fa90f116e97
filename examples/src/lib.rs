//! Shared code of the examples: a client, and a server inside the process for use without a key.

use std::error::Error;

use l0_providers::{Client, ClientError, Provider, openai};

use crate::server::Server;

#[cfg(feature = "service")]
pub mod chat_app;
#[cfg(feature = "load")]
pub mod chat_client;
#[cfg(feature = "service")]
pub mod serve;
pub mod server;

/// The models of the services and of `load`.
pub const MODELS: [&str; 3] = ["gpt-4o-mini", "gpt-4.1-mini", "gpt-4o"];

/// Creates a client for `OpenAI` if `OPENAI_API_KEY` is set, or for a compatible server if
/// `OPENAI_BASE_URL` is set. Otherwise, creates a client for a server inside the process. The first `faults`
/// connections of that server break mid-stream. Dropping the server stops it.
///
/// # Errors
///
/// If the variables are not valid, or no loopback port is available.
pub async fn client(faults: usize) -> Result<(openai::Client, Option<Server>), Box<dyn Error>> {
    client_of(faults).await
}

/// Creates a client for any provider from its variables, or like [`client`].
///
/// # Errors
///
/// The same as for [`client`].
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

/// Lets Sentry send the rest, and waits up to `bound`. Returns `true` if everything was sent.
///
/// The timeout of `close` does not apply to a request in flight, because it joins the sending thread.
#[cfg(any(feature = "sentry", feature = "sentry_by_hand"))]
#[must_use]
pub fn close_sentry(guard: sentry::ClientInitGuard, bound: std::time::Duration) -> bool {
    let (sender, closed) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(guard.close(Some(bound))));
    closed.recv_timeout(bound).unwrap_or(false)
}

/// Parses a share from 0 to 1 from the command line.
///
/// # Errors
///
/// If the text is not a number from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("not a number from 0 to 1".to_owned()),
    }
}

#[cfg(doctest)]
mod documents {
    //! Compiles the code blocks of the documents in the tests.

    #[doc = include_str!("../../README.md")]
    struct Readme;

    #[doc = include_str!("../../docs/architecture.md")]
    struct Architecture;

    #[doc = include_str!("../../docs/configuration.md")]
    struct Configuration;

    #[doc = include_str!("../../docs/errors.md")]
    struct Errors;

    #[doc = include_str!("../../docs/exporters.md")]
    struct Exporters;

    #[doc = include_str!("../../docs/live.md")]
    struct Live;

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

    #[doc = include_str!("../../docs/report.md")]
    struct Report;

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

    #[doc = include_str!("../../docs/web-service.md")]
    struct WebService;

    #[doc = include_str!("../../docs/with-what-you-have.md")]
    struct WithWhatYouHave;
}
