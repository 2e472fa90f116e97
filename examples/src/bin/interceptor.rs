//! A custom interceptor: limits the number of live runs, refuses others, and adds metadata to the
//! accepted ones.
//!
//! ```console
//! $ cargo run -p l0-examples --bin interceptor
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use l0_core::{Interceptor, L0, Monitoring, NewRun, Observers, Refusal, RunInfo};
use l0_providers::openai::ChatRequest;

/// Shared by all runs.
#[derive(Debug, Clone)]
struct AtMost {
    limit: usize,
    live: Arc<AtomicUsize>,
}

impl Interceptor for AtMost {
    fn before(&self, run: &mut NewRun) -> Result<(), Refusal> {
        // Two runs that start at the same time can both be accepted.
        if self.live.load(Ordering::Relaxed) >= self.limit {
            return Err(Refusal::new("too many requests at a time"));
        }
        let tier = match run.metadata().get("user") {
            Some(user) if user == "ada" => "premium",
            _ => "free",
        };
        run.set_metadata("user_tier", tier);
        Ok(())
    }

    /// L0 also calls this for refused runs, which have a `Finished` too.
    fn observe(&self, _run: &RunInfo, observers: &mut Observers) {
        self.live.fetch_add(1, Ordering::Relaxed);
        let live = Arc::clone(&self.live);
        observers.on_finish(move |finished| {
            let before = live.fetch_sub(1, Ordering::Relaxed);
            println!(
                "a run ended: {}; live: {}",
                finished.end.outcome(),
                before - 1
            );
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, _server) = l0_examples::client(0).await?;
    let at_most = AtMost {
        limit: 2,
        live: Arc::default(),
    };
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .interceptor(at_most)
        .build();

    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");
    let start = |user| {
        l0.stream_from(client.chat(&request))
            .metadata("user", user)
            .start()
    };
    let (mut first, mut second, mut third) = (start("ada"), start("bob"), start("eve"));
    let (first_text, second_text, refused) =
        tokio::join!(first.text(), second.text(), third.text());
    first_text?;
    second_text?;
    if let Err(error) = refused {
        println!("the third: {error}");
    }
    for run in [&first, &second] {
        println!("{:?}", run.info().metadata());
    }
    Ok(())
}
