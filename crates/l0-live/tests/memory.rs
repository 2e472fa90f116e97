//! The memory that this crate adds to a live run.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::hint::black_box;

use allocation_counter::measure;
use l0_core::testing::Script;
use l0_core::{L0, L0Builder, Monitoring};
use l0_live::Live;

const RUNS: usize = 1_000;

/// Returns the size of a live run, in bytes.
fn bytes(builder: L0Builder) -> i64 {
    let l0 = builder.monitoring(Monitoring::new()).build();
    let script = Script::new().attempt(|a| a.hang());
    let start = || {
        l0.stream(|_| script.connect())
            .metadata("model", "gpt-4")
            .start()
    };
    let mut runs = Vec::with_capacity(RUNS);
    let used = measure(|| runs.extend((0..RUNS).map(|_| start())));
    black_box(&runs);
    used.bytes_current / RUNS as i64
}

#[test]
#[allow(clippy::print_stdout, reason = "output for people")]
fn a_live_run_takes_less_than_a_kibibyte_more() {
    let alone = bytes(L0::builder());
    let observed = bytes(L0::builder().interceptor(Live::new()));
    println!(
        "a live run takes {alone} bytes, and {} more if it is observed",
        observed - alone
    );
    assert!(
        (1..1_024).contains(&(observed - alone)),
        "{alone} {observed}"
    );
}

/// In-memory connections with small buffers, in place of sockets.
#[cfg(feature = "axum")]
mod viewers {
    use axum::Router;
    use axum::serve::Listener;
    use l0_live::routes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::mpsc;
    use tokio::time::{Duration, Instant};

    use super::*;

    /// The number of bytes that a connection accepts without a reader.
    const BUFFER: usize = 16 * 1_024;
    const VIEWERS: usize = 100;

    struct Incoming(mpsc::UnboundedReceiver<DuplexStream>);

    impl Listener for Incoming {
        type Io = DuplexStream;
        type Addr = ();

        async fn accept(&mut self) -> (DuplexStream, ()) {
            match self.0.recv().await {
                Some(connection) => (connection, ()),
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    struct Server(mpsc::UnboundedSender<DuplexStream>);

    impl Server {
        fn start(live: Live) -> Self {
            let (connect, incoming) = mpsc::unbounded_channel();
            let app = Router::new().nest_service("/l0", routes(live));
            tokio::spawn(async move { axum::serve(Incoming(incoming), app).await });
            Self(connect)
        }

        /// Requests updates, and waits for the start of the response.
        async fn view(&self) -> DuplexStream {
            let (mut ours, theirs) = duplex(BUFFER);
            self.0.send(theirs).unwrap();
            let request = b"GET /l0?format=events HTTP/1.1\r\nhost: here\r\n\r\n";
            ours.write_all(request).await.unwrap();
            let mut start = [0; 12];
            ours.read_exact(&mut start).await.unwrap();
            assert_eq!(&start, b"HTTP/1.1 200");
            ours
        }
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "output for people")]
    fn a_hundred_viewers_that_do_not_read_share_updates_and_delay_no_other() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let live = Live::new();
        let l0 = L0::builder().interceptor(live.clone()).build();
        let script = Script::new().attempt(|a| a.hang());
        let runs: Vec<_> = (0..RUNS)
            .map(|_| l0.stream(|_| script.connect()).start())
            .collect();
        let update = serde_json::to_vec(&live.snapshot()).unwrap().len();
        assert!(update > 10 * BUFFER, "{update}");

        let mut slow = Vec::with_capacity(VIEWERS);
        let server = runtime.block_on(async { Server::start(live) });
        let used = measure(|| {
            runtime.block_on(async {
                for _ in 0..VIEWERS {
                    slow.push(server.view().await);
                }
                let mut fast = server.view().await;
                let (start, mut updates, mut buffer) = (Instant::now(), 0, vec![0; 64 * 1_024]);
                // Long enough for each slow viewer to miss many times its buffer.
                while updates < 60 {
                    let read = fast.read(&mut buffer).await.unwrap();
                    let has = |words: &[u8]| {
                        let text = buffer[..read].windows(words.len());
                        text.filter(|bytes| *bytes == words).count()
                    };
                    updates += has(br#"data: {"#);
                    // The response has ended, and a page reconnects.
                    if has(b"event: again") > 0 {
                        fast = server.view().await;
                    }
                }
                assert!(
                    start.elapsed() <= Duration::from_secs(30),
                    "{:?}",
                    start.elapsed()
                );
            });
        });
        let each = used.bytes_current / VIEWERS as i64;
        println!("a viewer that does not read takes {each} bytes, of updates of {update} bytes");
        // A viewer has no copy of its own.
        assert!((1..update as i64).contains(&each), "{each} {update}");
        drop((runs, slow));
    }
}
