//! Measures the cost of retries in addition to the request itself: L0's own retries, and those of common
//! crates.
//!
//! Each row connects, fails as often as its name says without a wait, and reads a stream of one token. The
//! other crates retry only the connection, and measure nothing: a stream that breaks is lost. L0 with
//! monitoring off does the same work and can also retry a broken stream.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench retries
//! $ docs/performance.py --print retries
//! ```
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::future::{Future, Ready, ready};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use l0_bench::{ANSWER, Source, drain, source};
use l0_core::{Backoff, L0, Monitoring, Retry};
use tower::retry::Policy;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const MAX_RETRIES: u32 = 3;

/// Nothing here waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
    }
}

/// Fails this many times, and then returns a stream of one token.
fn connect(failures: &AtomicU32) -> io::Result<Source> {
    let left = failures.load(Ordering::Relaxed);
    if left > 0 {
        failures.store(left - 1, Ordering::Relaxed);
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(source(ANSWER, 1))
}

/// Retries without a wait.
#[derive(Clone)]
struct Again {
    left: u32,
}

impl Policy<(), Source, io::Error> for Again {
    type Future = Ready<()>;

    fn retry(&mut self, (): &mut (), result: &mut io::Result<Source>) -> Option<Ready<()>> {
        let error = result.as_ref().err()?;
        (error.kind() == io::ErrorKind::ConnectionReset).then_some(())?;
        self.left = self.left.checked_sub(1)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, (): &()) -> Option<()> {
        Some(())
    }
}

fn retries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("retries");
    let with = |monitoring| {
        let retry = Retry::new()
            .max_retries(MAX_RETRIES)
            .backoff(Backoff::none());
        L0::builder().monitoring(monitoring).retry(retry).build()
    };
    let (off, on) = (with(Monitoring::off()), with(Monitoring::new()));
    for count in [0, 1] {
        let mut row = |name: &str, run: &dyn Fn(&AtomicU32)| {
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| run(&AtomicU32::new(count)));
            });
        };
        row("loop", &|failures| {
            let stream = (0..=MAX_RETRIES).find_map(|_| connect(failures).ok());
            drain(stream.expect("a connection succeeds"));
        });
        row("backon", &|failures| {
            let backoff = ConstantBuilder::new()
                .with_delay(Duration::ZERO)
                .with_max_times(MAX_RETRIES as usize);
            let connected = (|| async { connect(failures) })
                .retry(backoff)
                .sleep(|_| ready(()))
                .when(|error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset);
            drain(now(connected).expect("a connection succeeds"));
        });
        row("tower", &|failures| {
            let mut service = ServiceBuilder::new()
                .retry(Again { left: MAX_RETRIES })
                .service(service_fn(|()| async { connect(failures) }));
            drain(
                now(async { service.ready().await?.call(()).await })
                    .expect("a connection succeeds"),
            );
        });
        row("L0, off", &|failures| {
            drain(off.stream(|_| async { connect(failures) }).start());
        });
        row("L0, on", &|failures| {
            drain(on.stream(|_| async { connect(failures) }).start());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots();
    targets = retries
}
criterion_main!(benches);
