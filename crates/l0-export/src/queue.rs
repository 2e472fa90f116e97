//! The export queue: hands final telemetry over to a task of the application, and never blocks.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::task::{Context, Poll};

use futures_core::Stream;
use l0_core::{Interceptor, Observers, RunInfo, Telemetry};
use tokio::sync::{Semaphore, mpsc};

/// Creates a queue of final telemetry for at most `capacity` runs, and the end that takes it out.
///
/// The [`Queue`] is an interceptor: every measured run that is
/// [kept](l0_core::Monitoring::keep) puts its final telemetry in when it ends, on every exit. Where the telemetry goes, a task of the application decides: a database, an
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
/// // At shutdown: the task gets everything that is in the queue, and ends.
/// queue.close();
/// export.await?;
/// # Ok(())
/// # }
/// ```
pub fn queue(capacity: usize) -> (Queue, QueueReceiver) {
    let (sender, receiver) = mpsc::channel(capacity.clamp(1, Semaphore::MAX_PERMITS));
    let entrance = Arc::new(Entrance {
        sender: RwLock::new(Some(sender)),
        dropped: AtomicU64::new(0),
    });
    // Not an `Arc`: once no queue is left, nothing can come any more.
    let receiver = QueueReceiver {
        receiver,
        entrance: Arc::downgrade(&entrance),
    };
    (Queue(entrance), receiver)
}

/// The end of the export queue that runs put their final telemetry into: an [`Interceptor`].
/// Clones share the queue.
#[derive(Clone)]
pub struct Queue(Arc<Entrance>);

/// What the clones of a queue share.
struct Entrance {
    /// Absent once the queue is closed. Whoever puts something in reads it until that is done, so that
    /// whoever closes the queue knows that nothing comes after.
    sender: RwLock<Option<mpsc::Sender<Telemetry>>>,
    dropped: AtomicU64,
}

impl Queue {
    /// Closes the queue, and all its clones, for more telemetry. The receiver still gets what was put in
    /// before, and then ends. What comes later is dropped and counted. For a shutdown: runs that are live
    /// then still hold the queue, and may for a while.
    pub fn close(&self) {
        self.0.close();
    }

    /// Returns how many telemetries were dropped so far: because the queue was full, closed or its
    /// receiver gone, or because they were still in the queue when the receiver was dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Entrance {
    fn put(&self, telemetry: &Telemetry) {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        // A place first: what is dropped is not worth a clone.
        match sender.as_ref().map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => place.send(telemetry.clone()),
            Some(Err(_)) | None => self.count_dropped(1),
        }
    }

    fn close(&self) {
        let mut sender = self.sender.write().unwrap_or_else(PoisonError::into_inner);
        let closed = sender.take();
        drop(sender);
        // Wakes the receiver, which is not done under the lock.
        drop(closed);
    }

    fn count_dropped(&self, telemetries: u64) {
        self.dropped.fetch_add(telemetries, Ordering::Relaxed);
    }
}

impl Interceptor for Queue {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        if run.measured() {
            let queue = self.clone();
            observers.on_finish(move |finished| {
                if let (Some(telemetry), Some(_)) = (finished.telemetry, finished.kept) {
                    queue.0.put(telemetry);
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
        let sender = self.0.sender.read().unwrap_or_else(PoisonError::into_inner);
        let sender = sender.as_ref();
        f.debug_struct("Queue")
            .field("capacity", &sender.map(mpsc::Sender::max_capacity))
            .field("free", &sender.map(mpsc::Sender::capacity))
            .field("dropped", &self.dropped())
            .finish()
    }
}

/// The end of the export queue that telemetry is taken out of: a [`Stream`] of [`Telemetry`], in
/// the order in which the runs ended.
#[must_use = "telemetry is dropped once the queue is full"]
pub struct QueueReceiver {
    receiver: mpsc::Receiver<Telemetry>,
    entrance: Weak<Entrance>,
}

impl QueueReceiver {
    /// Takes out the next telemetry. `None` once the queue is empty and closed: by [`Queue::close`],
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
        // Without an entrance nobody is left to be told how many were dropped.
        if let Some(entrance) = self.entrance.upgrade() {
            entrance.close();
            let waiting = std::iter::from_fn(|| self.receiver.try_recv().ok());
            entrance.count_dropped(waiting.map(drop).count() as u64);
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
