//! The transport sends the data: a run calls it when the run ends, and never for a token.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use common::{Sentry, l0, paused};
use futures_util::StreamExt;
use l0_core::testing::Script;
use l0_core::{End, Failure};
use l0_sentry::{SentryConfig, SentryIntegration, with_sentry_by};
use sentry::{ClientOptions, Envelope, Hub, Transport};

/// A transport that counts its envelopes and queues them for a thread unless the queue is full, like the transports
/// of the `sentry` crate.
struct Queue {
    given: Arc<AtomicUsize>,
    queue: SyncSender<Envelope>,
}

impl Transport for Queue {
    fn send_envelope(&self, envelope: Envelope) {
        self.given.fetch_add(1, Ordering::Relaxed);
        let _ = self.queue.try_send(envelope);
    }
}

/// Returns a client whose queue is not emptied until released.
fn stuck() -> (Arc<Hub>, Arc<AtomicUsize>, Sender<()>, Receiver<usize>) {
    const ROOM: usize = 2;
    let (queue, envelopes) = sync_channel(ROOM);
    let (go_on, released) = channel();
    let (done, count) = channel();
    std::thread::spawn(move || {
        // An ingest that does not answer.
        let _ = released.recv();
        let _ = done.send(envelopes.try_iter().count());
    });
    let given = Arc::new(AtomicUsize::new(0));
    let transport = Arc::new(Queue {
        given: Arc::clone(&given),
        queue,
    });
    let options = ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .traces_sample_rate(1.0)
        .transport(transport);
    let client = Arc::new(options.into());
    let hub = Arc::new(Hub::new(Some(client), Arc::default()));
    (hub, given, go_on, count)
}

#[test]
fn a_stuck_ingest_delays_no_stream() {
    const RUNS: usize = 50;
    const TOKENS: usize = 100;
    for breadcrumbs in [false, true] {
        let (hub, given, go_on, count) = stuck();
        let config = SentryConfig::new().hub(hub);
        let l0 = l0(config.breadcrumbs_for_tokens(breadcrumbs)).build();
        let script =
            Script::new().attempt(|a| a.tokens(vec!["token "; TOKENS]).fail("no such model"));
        paused().block_on(async {
            for runs in 0..RUNS {
                let mut run = l0.stream(script.source()).start();
                for _ in 0..TOKENS {
                    run.next().await.unwrap().unwrap();
                    // Nothing is sent while tokens arrive, so nothing can block.
                    assert_eq!(given.load(Ordering::Relaxed), 2 * runs);
                }
                run.next().await.unwrap().unwrap_err();
                // The error and the transaction.
                assert_eq!(given.load(Ordering::Relaxed), 2 * runs + 2);
            }
        });
        // All runs have ended, although none of their envelopes has been processed.
        go_on.send(()).unwrap();
        assert_eq!(count.recv().unwrap(), 2);
    }
}

/// If a callback panics, neither the future's output nor the other data is lost.
#[test]
fn a_panicking_callback_loses_only_its_own_event() {
    let sentry = Sentry::with(|options| {
        let options = options.before_send(|_| panic!("a bug of the application"));
        options.traces_sample_rate(1.0)
    });
    let spans = ["l0.execution internal_error"];

    let answer = async { Err::<(), _>("no such model") };
    let reported = with_sentry_by(sentry.config(), answer, |_| {
        End::failed(&Failure::status(404))
    });
    assert_eq!(paused().block_on(reported), Err("no such model"));
    assert_eq!(sentry.sent().spans(), spans);

    let execution = SentryIntegration::new(sentry.config()).start_execution("", [("a", 1)]);
    execution.fail(&std::io::Error::other("no such model"), None);
    assert_eq!(sentry.sent().spans(), spans);

    let l0 = sentry.l0().build();
    let script = Script::new().attempt(|a| a.connect_error("no such model"));
    let error = paused().block_on(async { l0.stream(script.source()).start().text().await });
    assert!(matches!(error, Err(l0_core::Error::Source { .. })));
    assert_eq!(l0.observer_panics(), 1);
    assert_eq!(sentry.sent().spans()[0], spans[0]);
}

#[test]
fn a_panicking_sampler_does_not_fail_a_future() {
    let sentry =
        Sentry::with(|options| options.traces_sampler(|_| panic!("a bug of the application")));
    let reported = with_sentry_by(sentry.config(), async { 1 }, |_| End::completed());
    assert_eq!(paused().block_on(reported), 1);
    let integration = SentryIntegration::new(sentry.config());
    integration.start_execution("", [("a", 1)]).complete(None);
}

/// A transport that panics.
#[derive(Default)]
struct Broken(AtomicUsize);

impl Transport for Broken {
    fn send_envelope(&self, _: Envelope) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("a bug of the transport");
    }
}

#[test]
fn a_panicking_transport_does_not_fail_a_run() {
    let transport = Arc::new(Broken::default());
    let options = ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .traces_sample_rate(1.0)
        .transport(Arc::clone(&transport));
    let client = Arc::new(options.into());
    let hub = Arc::new(Hub::new(Some(client), Arc::default()));
    let l0 = l0(SentryConfig::new().hub(hub)).build();
    let script = Script::new().attempt(|a| a.tokens(["Hello", "!"]));
    paused().block_on(async {
        let mut run = l0.stream(script.source()).start();
        assert_eq!(run.text().await.unwrap(), "Hello!");
        assert_eq!(run.outcome(), Some(l0_core::Outcome::Completed));
    });
    assert_eq!(transport.0.load(Ordering::Relaxed), 1);
}
