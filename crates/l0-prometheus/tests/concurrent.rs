//! Scrapes during recording: every histogram is consistent, and nothing is lost.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use l0_core::Telemetry;
use l0_prometheus::{Buckets, Collector, Labels};

#[test]
fn in_every_scrape_buckets_ascend_to_the_count() {
    const SCRAPES: usize = 10_000;
    let few = [0.005, 0.25, 2.0];
    let buckets = Buckets::new()
        .request_duration(few)
        .time_to_first_token(few)
        .inter_token(few)
        .max_gap(few)
        .output_tokens_per_second([100.0]);
    let collector = Collector::builder().buckets(buckets).build().unwrap();
    let done = AtomicBool::new(false);
    let recorded: u64 = thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (collector, done) = (&collector, &done);
                scope.spawn(move || {
                    let labels = Labels::new([("writer", writer.to_string())]).unwrap();
                    let handle = collector.with_labels(&labels);
                    let mut telemetry = Telemetry::example();
                    let mut recorded = 0;
                    while !done.load(Ordering::Relaxed) {
                        telemetry.metrics.time_to_first_token = telemetry
                            .duration
                            .map(|duration| duration / (1 + recorded as u32 % 9));
                        handle.record(&telemetry);
                        collector.record(&telemetry, &Labels::none());
                        recorded += 1;
                    }
                    recorded
                })
            })
            .collect();
        let mut counts = 0.0;
        for _ in 0..SCRAPES {
            // Panics if a histogram is inconsistent.
            let read = support::read(&collector.expose());
            let now = read.sum("l0_inter_token_seconds_count");
            assert!(now >= counts, "{now} after {counts}");
            counts = now;
        }
        done.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum()
    });
    let read = support::read(&collector.expose());
    assert_eq!(read.sum("l0_requests_total"), 2.0 * recorded as f64);
    assert_eq!(
        read.sum("l0_inter_token_seconds_count"),
        2.0 * 148.0 * recorded as f64
    );
    assert_eq!(read.get("l0_requests_total", []), Some(recorded as f64));
}
