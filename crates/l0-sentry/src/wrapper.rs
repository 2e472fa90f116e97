//! Wrapper: reports a whole future.

use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use l0_core::{Cause, End, Error};

use crate::config::SentryConfig;
use crate::data::Data;
use crate::ending::Ending;
use crate::execution::{Execution, Start, contain};
use crate::integration::error_text;

/// Reports a future that gives the result of a run: that it started, how it ended, and its error.
///
/// The execution starts with this call, so in the hub that is current here, and ends with the
/// future. If the future is dropped before, it is cancelled. The future is polled and dropped in the
/// execution's hub: breadcrumbs and spans of what it does belong to the execution. That a run was
/// aborted is no error, and not captured. What the message of an error says,
/// [`SentryConfig::error_text`] decides.
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
pub fn with_sentry<F, T, E>(
    config: SentryConfig,
    future: F,
) -> impl Future<Output = Result<T, Error<E>>>
where
    F: Future<Output = Result<T, Error<E>>>,
    E: StdError + 'static,
{
    told(config, future, |result: &Result<T, Error<E>>, execution| {
        let end = result
            .as_ref()
            .map_or_else(Error::end, |_| End::completed());
        let mut ending = Ending::of(&end);
        if let Err(Error::Source { source, .. }) = result {
            let text = error_text(execution, source);
            text.into_iter().for_each(|text| ending.set_message(text));
        }
        execution.finish(&ending);
    })
}

/// Reports a future, as [`with_sentry`] does, whatever it gives: `end` says how it ended.
///
/// ```
/// use std::io;
/// use l0_core::End;
/// use l0_sentry::{SentryConfig, with_sentry_by};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> io::Result<()> {
///
/// let answer = async { io::Result::Ok("Hello") };
/// let answer = with_sentry_by(SentryConfig::new(), answer, |result| match result {
///     Ok(_) => End::completed(),
///     Err(error) => End::failed(error),
/// })
/// .await?;
/// # assert_eq!(answer, "Hello");
/// # Ok(())
/// # }
/// ```
pub fn with_sentry_by<F: Future>(
    config: SentryConfig,
    future: F,
    end: impl FnOnce(&F::Output) -> End,
) -> impl Future<Output = F::Output> {
    told(config, future, |output: &F::Output, execution| {
        execution.finish(&Ending::of(&end(output)));
    })
}

fn told<F, D>(config: SentryConfig, future: F, done: D) -> Told<F, D>
where
    F: Future,
    D: FnOnce(&F::Output, &mut Execution),
{
    let execution = contain(|| Execution::start(config, Start::default(), Data::new)).flatten();
    Told {
        future: Some(Box::pin(future)),
        execution,
        done: Some(done),
    }
}

struct Told<F, D> {
    /// There until this is dropped.
    future: Option<Pin<Box<F>>>,
    execution: Option<Execution>,
    /// Ends the execution as the future's output says; there until then.
    done: Option<D>,
}

/// Only what is in the box is pinned.
impl<F, D> Unpin for Told<F, D> {}

impl<F, D> Future for Told<F, D>
where
    F: Future,
    D: FnOnce(&F::Output, &mut Execution),
{
    type Output = F::Output;

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
            let _ = contain(|| execution.finish(&Ending::of(&End::of(Cause::Panic))));
            resume_unwind(payload)
        });
        if let Poll::Ready(output) = &polled
            && let Some(done) = this.done.take()
        {
            // Whatever panics here, what the future gave is not lost.
            let _ = contain(|| done(output, execution));
        }
        polled
    }
}

impl<F, D> Drop for Told<F, D> {
    /// What the future does when it is dropped belongs to the execution, too.
    fn drop(&mut self) {
        let future = self.future.take();
        match &self.execution {
            Some(execution) => execution.inside(|| drop(future)),
            None => drop(future),
        }
    }
}
