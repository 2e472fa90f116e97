//! The wrapper that reports a whole future.

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

/// Reports the start, the outcome and the error of a future that returns the result of a run.
///
/// The execution starts with this call, in the hub that is current here, and ends with the future. If the
/// future is dropped before that, the execution is cancelled. The future is polled and dropped in the
/// execution's hub, so its breadcrumbs and spans belong to the execution. An abort of the run is not an error
/// and is not captured. [`SentryConfig::error_text`] determines the message of an error.
///
/// Only a [`SentryInterceptor`](crate::SentryInterceptor) sees what happens inside a run, such as retries. If you
/// use both, each of them captures a failure.
///
/// # Errors
///
/// Returns the error of the future.
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
    report(config, future, |result: &Result<T, Error<E>>, execution| {
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

/// Reports a future with any output, like [`with_sentry`]. `end` maps the output to an [`End`].
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
    report(config, future, |output: &F::Output, execution| {
        execution.finish(&Ending::of(&end(output)));
    })
}

fn report<F, D>(config: SentryConfig, future: F, done: D) -> Reported<F, D>
where
    F: Future,
    D: FnOnce(&F::Output, &mut Execution),
{
    let execution = contain(|| Execution::start(config, Start::default(), Data::new)).flatten();
    Reported {
        future: Some(Box::pin(future)),
        execution,
        done: Some(done),
    }
}

struct Reported<F, D> {
    /// Present until this is dropped.
    future: Option<Pin<Box<F>>>,
    execution: Option<Execution>,
    /// Ends the execution from the future's output. Present until then.
    done: Option<D>,
}

/// Only the content of the box is pinned.
impl<F, D> Unpin for Reported<F, D> {}

impl<F, D> Future for Reported<F, D>
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
            // A panic here must not lose the future's output.
            let _ = contain(|| done(output, execution));
        }
        polled
    }
}

impl<F, D> Drop for Reported<F, D> {
    /// Drops the future in the execution's hub, because the drop belongs to the execution too.
    fn drop(&mut self) {
        let future = self.future.take();
        match &self.execution {
            Some(execution) => execution.inside(|| drop(future)),
            None => drop(future),
        }
    }
}
