//! Custom sources: your own item type, an item type of another crate, and a stream that cannot be
//! recreated.
//!
//! ```console
//! $ cargo run -p l0-examples --bin own_source
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::io;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use l0_core::{FinishReason, L0, Monitoring, Token, TokenView, Usage};
use tokio::time::sleep;

/// A custom item type.
struct Delta {
    content: &'static str,
    last: bool,
}

impl Token for Delta {
    const SENDS_FINISH: bool = true;

    fn view(&self) -> TokenView<'_> {
        let view = TokenView::text(self.content);
        match self.last {
            true => view
                .finish(FinishReason::Stop)
                .usage(Usage::new().output(3)),
            false => view,
        }
    }
}

async fn own() -> io::Result<impl Stream<Item = io::Result<Delta>>> {
    sleep(Duration::from_millis(20)).await; // connecting takes time
    let deltas = [("Words", false), (" of my", false), (" own", true)];
    Ok(stream::iter(deltas).map(|(content, last)| Ok(Delta { content, last })))
}

/// A stream of items whose type belongs to another crate.
async fn foreign() -> io::Result<impl Stream<Item = io::Result<(u32, &'static str)>>> {
    sleep(Duration::from_millis(20)).await;
    Ok(stream::iter([Ok((1, "Words of")), Ok((2, " others"))]))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let l0 = L0::builder().monitoring(Monitoring::new()).build();

    let mut run = l0.stream(|_attempt| own()).start();
    println!("{}", run.text().await?);
    let telemetry = run.telemetry().ok_or("monitoring is on")?;
    println!("{:?}, {:?}", telemetry.finish_reason, telemetry.usage);

    let mut run = l0
        .stream(|_attempt| foreign())
        .view_with(|(_number, text)| TokenView::text(text))
        .start();
    println!("{}", run.text().await?);

    // The stream exists already, so it is only measured.
    let mut watched = l0.watch(own().await?).start();
    while let Some(delta) = watched.next().await {
        print!("{}", delta?.content);
    }
    println!(" again: {:?}", watched.outcome());
    Ok(())
}
