//! The export queue: hands final telemetry over to a task of the application, and never blocks.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_core::Stream;
use l0_core::{Interceptor, Observers, RunInfo, Telemetry};
use tokio::sync::{Semaphore, mpsc};

/// Creates a queue of final telemetry for at most `capacity` runs, and the end that takes it out.
///
/// The [`Queue`] is an interceptor: every measured run puts its final telemetry in when it ends,
/// on every exit. Where the telemetry goes, a task of the application decides: a database, an
/// analytics service. When the queue is full or its receiver is gone, telemetry is dropped and
/// counted; no run ever waits. A capacity of 0 counts as 1.
///
/// ```
/// use l0_core::L0;
/// # use l0_core::testing::Script;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = Script::new().attempt(|a| a.tokens(["Hello"]));
/// let (queue, mut receiver) = l0_export::queue(1_024);
/// let l0 = L0::builder().interceptor(queue.clone()).build();
///
/// let export = tokio::spawn(async move {
///     let mut batch = Vec::new();
///     while receiver.recv_many(&mut batch, 100).await > 0 {
///         // Send the batch, and wait for it: only this task does.
///         batch.clear();
///     }
/// });
///
/// l0.stream(|_attempt| client.connect()).start().text().await?;
/// println!("not exported: {}", queue.dropped());
///
/// // Once nothing is left that could put in more, the task has got everything and ends.
/// drop((l0, queue));
/// export.await?;
/// # Ok(())
/// # }
/// ```
pub fn queue(capacity: usize) -> (Queue, QueueReceiver) {
    let (sender, receiver) = mpsc::channel(capacity.clamp(1, Semaphore::MAX_PERMITS));
    let queue = Queue {
        sender,
        dropped: Arc::default(),
    };
    let dropped = Arc::clone(&queue.dropped);
    (queue, QueueReceiver { receiver, dropped })
}

/// The end of the export queue that runs put their final telemetry into: an [`Interceptor`].
/// Clones share the queue.
#[derive(Clone)]
pub struct Queue {
    sender: mpsc::Sender<Telemetry>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    /// Returns how many telemetries were dropped so far: because the queue was full or its receiver
    /// gone, or because they were still in the queue when the receiver was dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn put(&self, telemetry: &Telemetry) {
        // A place first: what is dropped is not worth a clone.
        match self.sender.try_reserve() {
            Ok(place) => place.send(telemetry.clone()),
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Interceptor for Queue {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        if run.measured() {
            let queue = self.clone();
            observers.on_finish(move |finished| {
                if let Some(telemetry) = finished.telemetry {
                    queue.put(telemetry);
                }
            });
        }
    }

    fn needs_telemetry(&self) -> bool {
        true
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("capacity", &self.sender.max_capacity())
            .field("free", &self.sender.capacity())
            .field("dropped", &self.dropped())
            .finish()
    }
}

/// The end of the export queue that telemetry is taken out of: a [`Stream`] of [`Telemetry`], in
/// the order in which the runs ended.
#[must_use = "telemetry is dropped once the queue is full"]
pub struct QueueReceiver {
    receiver: mpsc::Receiver<Telemetry>,
    dropped: Arc<AtomicU64>,
}

impl QueueReceiver {
    /// Takes out the next telemetry. `None` once the queue is empty and closed: by [`close`](Self::close),
    /// or because all clones of the [`Queue`], and the [`L0`](l0_core::L0)s and live runs that
    /// hold one, are gone. Nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<Telemetry> {
        self.receiver.recv().await
    }

    /// Waits for telemetry, and then appends all that is there, but not more than `limit`, to
    /// `batch`. Returns how many; 0 once the queue is empty and closed, or if `limit` is 0. Nothing
    /// is lost when the future is dropped.
    pub async fn recv_many(&mut self, batch: &mut Vec<Telemetry>, limit: usize) -> usize {
        self.receiver.recv_many(batch, limit).await
    }

    /// Closes the queue for more telemetry; what is in the queue can still be taken out. For a shutdown
    /// that does not wait for the runs that are still live.
    pub fn close(&mut self) {
        self.receiver.close();
    }
}

impl Stream for QueueReceiver {
    type Item = Telemetry;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Telemetry>> {
        self.receiver.poll_recv(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.receiver.len(), None)
    }
}

impl Drop for QueueReceiver {
    fn drop(&mut self) {
        self.receiver.close();
        while self.receiver.try_recv().is_ok() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for QueueReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueReceiver")
            .field("waiting", &self.receiver.len())
            .finish_non_exhaustive()
    }
}
