//! The export queue: passes final telemetry to a task of the application, without blocking.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::task::{Context, Poll};

use futures_core::Stream;
use l0_core::{Interceptor, Observers, RunInfo, Telemetry};
use tokio::sync::{Semaphore, mpsc};

/// Creates a queue of final telemetry for at most `capacity` runs, and its receiver.
///
/// The [`Queue`] is an interceptor. When a measured run that is
/// [kept](l0_core::Monitoring::keep) ends, in whatever way, its final telemetry enters the queue. A task of
/// the application sends it on, for example to a database or an analytics service. If the queue is full or
/// the receiver is gone, telemetry is dropped and counted. Runs never wait. A capacity of 0 counts as 1.
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
///         // Send the batch. Only this task waits for it.
///         batch.clear();
///     }
/// });
///
/// l0.stream(|_attempt| client.connect()).start().text().await?;
/// println!("not exported: {}", queue.dropped());
///
/// // At shutdown, the task receives the remaining telemetry, and ends.
/// queue.close();
/// export.await?;
/// # Ok(())
/// # }
/// ```
pub fn queue(capacity: usize) -> (Queue, QueueReceiver) {
    let (sender, receiver) = mpsc::channel(capacity.clamp(1, Semaphore::MAX_PERMITS));
    let shared = Arc::new(Shared {
        sender: RwLock::new(Some(sender)),
        dropped: AtomicU64::new(0),
    });
    // The receiver holds a weak reference, so that it ends when the last queue is gone.
    let receiver = QueueReceiver {
        receiver,
        shared: Arc::downgrade(&shared),
    };
    (Queue(shared), receiver)
}

/// The sending side of the export queue: an [`Interceptor`].
/// Clones share the queue.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

/// The state that the clones of a queue share.
struct Shared {
    /// Absent once the queue is closed. A sending run holds the read lock until it is done, so `close`
    /// knows that no telemetry follows.
    sender: RwLock<Option<mpsc::Sender<Telemetry>>>,
    dropped: AtomicU64,
}

impl Queue {
    /// Closes the queue and all its clones for new telemetry. The receiver still returns the telemetry that is
    /// in the queue, and then ends. Later telemetry is dropped and counted. Use it at shutdown, when live runs
    /// still hold the queue.
    pub fn close(&self) {
        self.0.close();
    }

    /// Returns the number of dropped telemetries so far. Telemetry is dropped if the queue is full or closed,
    /// if the receiver is gone, or if it is still in the queue when the receiver is dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn put(&self, telemetry: &Telemetry) {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        // Reserves a place first, so dropped telemetry is not cloned.
        match sender.as_ref().map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => place.send(telemetry.clone()),
            Some(Err(_)) | None => self.count_dropped(1),
        }
    }

    fn close(&self) {
        let mut sender = self.sender.write().unwrap_or_else(PoisonError::into_inner);
        let closed = sender.take();
        drop(sender);
        // Dropping the sender wakes the receiver, so it happens outside the lock.
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

/// The receiving side of the export queue: a [`Stream`] of [`Telemetry`], in
/// the order in which the runs ended.
#[must_use = "telemetry is dropped once the queue is full"]
pub struct QueueReceiver {
    receiver: mpsc::Receiver<Telemetry>,
    shared: Weak<Shared>,
}

impl QueueReceiver {
    /// Receives the next telemetry. Returns `None` once the queue is empty and closed: by [`Queue::close`],
    /// or because all clones of the [`Queue`] are gone, including those in [`L0`](l0_core::L0)s and live
    /// runs. This method is cancel safe.
    pub async fn recv(&mut self) -> Option<Telemetry> {
        self.receiver.recv().await
    }

    /// Waits for telemetry, then appends all available telemetry to `batch`, up to `limit`. Returns the number
    /// of appended values; 0 once the queue is empty and closed, or if `limit` is 0. This method is
    /// cancel safe.
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
        // Without a queue, nothing can read the count.
        if let Some(shared) = self.shared.upgrade() {
            shared.close();
            let waiting = std::iter::from_fn(|| self.receiver.try_recv().ok());
            shared.count_dropped(waiting.map(drop).count() as u64);
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
