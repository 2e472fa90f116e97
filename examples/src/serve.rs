//! Serves an application until the process receives a signal.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "terminal programs use it"
)]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The time that answers have to end after the signal.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until Ctrl-C or SIGTERM, then gives streaming answers a few seconds to end. Prints its address
/// as the first line.
///
/// # Errors
///
/// If it cannot listen on the address.
pub async fn serve(listen: SocketAddr, router: Router) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    // Other programs wait for this first line.
    println!("listening on http://{}", listener.local_addr()?);
    io::stdout().flush()?;

    let (stopping, stopped) = oneshot::channel();
    let serve = axum::serve(listener, router).with_graceful_shutdown(async {
        stop_signal().await;
        let _ = stopping.send(());
    });
    tokio::select! {
        served = serve => served?,
        () = async {
            let _ = stopped.await;
            tokio::time::sleep(GRACE).await;
        } => eprintln!("some answers did not end in time"),
    }
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
pub async fn stop_signal() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // The signal handler failed, so this signal is ignored.
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};

        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        () = interrupted => {}
        () = terminated => {}
    }
}
