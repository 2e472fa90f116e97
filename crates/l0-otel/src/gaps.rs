//! Gaps: the durations of a distribution one by one, for instruments that take nothing else.

use l0_core::Distribution;

/// Calls `record` once for each duration, in seconds. Their number, their sum and the longest one are
/// exact. Each other one lies in the bucket of the distribution that it was counted in: all of them at
/// the same share of the way through it, which is the share that makes the sum exact.
pub(crate) fn replay(gaps: &Distribution, mut record: impl FnMut(f64)) {
    let max = gaps.max().as_secs_f64();
    let buckets = || {
        let last = gaps.buckets().count().saturating_sub(1);
        gaps.buckets().enumerate().map(move |(index, bucket)| {
            let lower = bucket.lower.as_secs_f64();
            let upper = bucket.upper.as_secs_f64().min(max);
            // The longest is recorded by itself.
            let count = bucket.count - u64::from(index == last);
            (lower, upper - lower, count)
        })
    };
    let (mut lowest, mut span) = (0.0, 0.0);
    for (lower, width, count) in buckets() {
        lowest += lower * count as f64;
        span += width * count as f64;
    }
    let above = gaps.sum().as_secs_f64() - max - lowest;
    let share = if span > 0.0 {
        (above / span).clamp(0.0, 1.0)
    } else {
        0.0
    };
    for (lower, width, count) in buckets() {
        for _ in 0..count {
            record(lower + width * share);
        }
    }
    if gaps.count() > 0 {
        record(max);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn replayed(gaps: &Distribution) -> Vec<f64> {
        let mut values = Vec::new();
        replay(gaps, |value| values.push(value));
        values
    }

    fn distribution(durations: &[Duration]) -> Distribution {
        let mut gaps = Distribution::new();
        durations.iter().for_each(|gap| gaps.record(*gap));
        gaps
    }

    #[test]
    fn none_give_none_and_one_gives_itself() {
        assert_eq!(replayed(&Distribution::new()), [0.0; 0]);
        for gap in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_millis(17),
            Duration::from_secs(7_200),
        ] {
            assert_eq!(replayed(&distribution(&[gap])), [gap.as_secs_f64()]);
        }
    }

    proptest! {
        #[test]
        fn number_sum_and_longest_are_exact_and_the_rest_is_close(
            nanos in prop::collection::vec(prop_oneof![0..300_u64, 0..50_000_000_u64, 0..8_000_000_000_000_u64], 1..200)
        ) {
            let mut durations: Vec<_> = nanos.into_iter().map(Duration::from_nanos).collect();
            let values = replayed(&distribution(&durations));
            durations.sort_unstable();

            prop_assert_eq!(values.len(), durations.len());
            let sum: f64 = values.iter().sum();
            let expected = durations.iter().sum::<Duration>().as_secs_f64();
            prop_assert!((sum - expected).abs() <= expected * 1e-9, "{} {}", sum, expected);
            let longest = durations[durations.len() - 1];
            prop_assert_eq!(values[values.len() - 1], longest.as_secs_f64());
            for (value, duration) in values.iter().zip(&durations) {
                let (expected, open) = (duration.as_secs_f64(), 4_260.0);
                let width = (expected * 0.041).max(16e-9);
                let close = (value - expected).abs() <= width;
                prop_assert!(close || expected >= open && *value >= open, "{} {}", value, expected);
            }
        }
    }
}
