//! Serves an application until the process is told to stop.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is for terminal programs"
)]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// How long answers may take to end once the server is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until Ctrl-C or SIGTERM, then gives answers that are being streamed a few seconds to end.
/// Prints where it listens as its first line.
///
/// # Errors
///
/// If the address cannot be listened on.
pub async fn serve(listen: SocketAddr, router: Router) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    // The first line, for programs that wait for it.
    println!("listening on http://{}", listener.local_addr()?);
    io::stdout().flush()?;

    let (told, out_of_time) = oneshot::channel();
    let serve = axum::serve(listener, router).with_graceful_shutdown(async {
        told_to_stop().await;
        let _ = told.send(());
    });
    tokio::select! {
        served = serve => served?,
        () = async {
            let _ = out_of_time.await;
            tokio::time::sleep(GRACE).await;
        } => eprintln!("some answers have not ended"),
    }
    Ok(())
}

/// Waits for Ctrl-C, or for SIGTERM, which tells a service to stop.
pub async fn told_to_stop() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // It cannot be waited for, and did not come.
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
