//! Wrapper: tells Sentry of a whole future.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use l0_core::{Outcome, redact};

use crate::config::SentryConfig;
use crate::data::Data;
use crate::execution::{Execution, contain};
use crate::integration::{outcome_of, text_of};
use crate::spans::{EXECUTION, End};

/// Tells Sentry of a future: that it started, how it ended, and its error.
///
/// The execution starts with this call, so in the hub that is current here, and ends with the
/// future. If the future is dropped before, it is cancelled. The future is polled and dropped in the
/// execution's hub: breadcrumbs and spans of what it does belong to the execution. The text of its
/// error is redacted; one with the text of [`Error::Aborted`](l0_core::Error::Aborted) is an abort,
/// and not captured.
///
/// What happens inside of a run, such as retries, only a
/// [`SentryInterceptor`](crate::SentryInterceptor) sees. With both, a failure is captured by each.
///
/// # Errors
///
/// The future's own.
///
/// ```
/// use l0_core::L0;
/// use l0_sentry::{SentryConfig, with_sentry};
/// # use l0_core::testing::Script;
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
///
/// let l0 = L0::default();
/// let text = with_sentry(SentryConfig::new(), async {
///     l0.stream(|_attempt| client.connect()).start().text().await
/// })
/// .await?;
/// # assert_eq!(text, "Hello, world");
/// # Ok(())
/// # }
/// ```
pub fn with_sentry<F, T, E>(config: SentryConfig, future: F) -> impl Future<Output = Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
    E: Display,
{
    let execution = contain(|| Execution::start(config, EXECUTION, None, Data::new)).flatten();
    Told {
        future: Some(Box::pin(future)),
        execution,
    }
}

struct Told<F> {
    /// There until this is dropped.
    future: Option<Pin<Box<F>>>,
    execution: Option<Execution>,
}

impl<F, T, E> Future for Told<F>
where
    F: Future<Output = Result<T, E>>,
    E: Display,
{
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(future) = &mut this.future else {
            return Poll::Pending;
        };
        let Some(execution) = &mut this.execution else {
            return future.as_mut().poll(context);
        };
        let poll = AssertUnwindSafe(|| execution.inside(|| future.as_mut().poll(context)));
        let polled = catch_unwind(poll).unwrap_or_else(|payload| {
            let _ = contain(|| execution.finish(&End::new(Outcome::Failed)));
            resume_unwind(payload)
        });
        // Whatever panics here, what the future gave is not lost.
        let _ = contain(|| match &polled {
            Poll::Pending => {}
            Poll::Ready(Ok(_)) => execution.finish(&End::new(Outcome::Completed)),
            Poll::Ready(Err(error)) => {
                let text = text_of(error);
                execution.finish(&End {
                    message: Some(&redact::text(&text)),
                    ..End::new(outcome_of(&text))
                });
            }
        });
        polled
    }
}

impl<F> Drop for Told<F> {
    /// What the future does when it is dropped belongs to the execution, too.
    fn drop(&mut self) {
        let future = self.future.take();
        match &self.execution {
            Some(execution) => execution.inside(|| drop(future)),
            None => drop(future),
        }
    }
}
