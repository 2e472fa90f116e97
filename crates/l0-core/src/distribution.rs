//! Distribution: many durations in constant memory, with quantiles within 2 %.
//!
//! All distributions have the same bucket bounds, so two of them merge by adding counts. Below 256 ns a
//! bucket is 16 ns wide. From there each octave (a doubling) is divided into 128 equal cells.
//! Neighboring cells are joined as long as the bucket stays within the error bound. This takes 19
//! buckets per octave. Finding a bucket takes integer arithmetic and one table look-up.

use std::fmt;
use std::time::Duration;

use serde::de::value::Error as ValueError;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::millis::{self, Millis};

/// The number of buckets below the first octave, and the width of each in nanoseconds.
const LINEAR: usize = 16;
const LINEAR_WIDTH: u64 = 16;
/// The first octave starts at 2^8 ns = 256 ns, where the linear buckets end.
const FIRST_OCTAVE: usize = 8;
/// The last octave ends at 2^42 ns, 73 minutes.
const OCTAVES: usize = 34;
const PER_OCTAVE: usize = 19;
const CELLS: usize = 128;

/// The number of buckets. The last bucket also holds all durations above it.
const BUCKETS: usize = LINEAR + OCTAVES * PER_OCTAVE;
const LAST: usize = BUCKETS - 1;

/// The bucket bounds of an octave, in cells from zero: an octave runs from 128 to 256.
static EDGES: [u16; PER_OCTAVE + 1] = edges();
/// The bucket of each cell of an octave.
static CELL_TO_BUCKET: [u8; CELLS] = cell_to_bucket();

const fn edges() -> [u16; PER_OCTAVE + 1] {
    let mut edges = [CELLS as u16; PER_OCTAVE + 1];
    let mut bucket = 0;
    while bucket < PER_OCTAVE {
        let low = edges[bucket];
        let mut high = low + 1;
        // Half the width divided by the middle is the relative error of the harmonic middle, at both
        // ends.
        while high < 2 * CELLS as u16 && (high + 1 - low) * 100 <= (high + 1 + low) * 2 {
            high += 1;
        }
        bucket += 1;
        edges[bucket] = high;
    }
    assert!(
        edges[PER_OCTAVE] == 2 * CELLS as u16,
        "the buckets must fill the octave"
    );
    edges
}

const fn cell_to_bucket() -> [u8; CELLS] {
    let edges = edges();
    let mut table = [0; CELLS];
    let mut cell = 0;
    let mut bucket = 0;
    while cell < CELLS {
        if (CELLS + cell) as u16 == edges[bucket + 1] {
            bucket += 1;
        }
        table[cell] = bucket as u8;
        cell += 1;
    }
    table
}

/// Returns the bucket of a duration in nanoseconds.
fn index(nanos: u64) -> usize {
    unclamped_index(nanos).min(LAST)
}

/// Returns the bucket as [`index`] does, but does not clamp durations above the last bucket.
#[inline]
fn unclamped_index(nanos: u64) -> usize {
    if nanos < LINEAR as u64 * LINEAR_WIDTH {
        (nanos / LINEAR_WIDTH) as usize
    } else {
        let octave = nanos.ilog2() as usize;
        let cell = (nanos >> (octave - 7)) as usize % CELLS;
        LINEAR + (octave - FIRST_OCTAVE) * PER_OCTAVE + usize::from(CELL_TO_BUCKET[cell])
    }
}

fn index_of(duration: Duration) -> usize {
    index(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// Returns the lower bound of a bucket in nanoseconds, which is the upper bound of the bucket before
/// it.
#[inline]
fn bound(index: usize) -> u64 {
    match index.checked_sub(LINEAR) {
        None => index as u64 * LINEAR_WIDTH,
        Some(rest) => u64::from(EDGES[rest % PER_OCTAVE]) << (rest / PER_OCTAVE + 1),
    }
}

/// Returns the upper bound of a bucket, or `None` for the last bucket, which is open.
#[inline]
fn upper_bound(index: usize) -> Option<Duration> {
    (index < LAST).then(|| Duration::from_nanos(bound(index + 1)))
}

/// Returns the value that represents all durations in a bucket, or `None` for the last bucket, which is
/// open.
fn middle(index: usize) -> Option<Duration> {
    if index >= LAST {
        return None;
    }
    let (low, high) = (bound(index), bound(index + 1));
    Some(Duration::from_nanos(if index < LINEAR {
        u64::midpoint(low, high)
    } else {
        // The harmonic middle has the same relative error at both ends. The arithmetic one has a larger
        // error at the lower end. Below 2^42, the product needs up to 85 bits.
        (2 * u128::from(low) * u128::from(high) / u128::from(low + high)) as u64
    }))
}

/// A collection of durations, kept as counts in buckets. Its memory does not grow with their number.
///
/// [`count`](Self::count), [`sum`](Self::sum) and [`max`](Self::max) are exact. Quantiles are within 2
/// % of the duration at that rank (below 256 ns: within 8 ns) up to 71 minutes. Longer durations share
/// one bucket, so only the three exact numbers distinguish them. Distributions merge without loss.
/// Values that do not fit saturate.
///
/// In JSON, durations are milliseconds. `buckets` lists `[upper bound, count]` of the non-empty buckets
/// in ascending order, with `null` as the bound of the open bucket. `p50`, `p90` and `p99` are written
/// for other readers and ignored when read back. Written distributions read back equal, except a `sum`
/// or `max` of more than 99 days, which a JSON number cannot hold to the nanosecond. A `count` that
/// differs from the sum of the buckets is an error.
///
/// ```
/// use std::time::Duration;
/// use l0_core::Distribution;
///
/// let mut gaps = Distribution::new();
/// for millis in 1..=100 {
///     gaps.record(Duration::from_millis(millis));
/// }
/// let p90 = gaps.p90().expect("not empty");
/// assert!(p90.abs_diff(Duration::from_millis(90)) <= Duration::from_micros(1_800));
/// assert_eq!(gaps.max(), Duration::from_millis(100));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Json")]
#[non_exhaustive]
pub struct Distribution {
    count: u64,
    sum: Duration,
    max: Duration,
    /// Index and count of the non-empty buckets, by index: at most [`BUCKETS`].
    buckets: Vec<(u16, u64)>,
}

impl Distribution {
    /// Creates an empty distribution. Does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            count: 0,
            sum: Duration::ZERO,
            max: Duration::ZERO,
            buckets: Vec::new(),
        }
    }

    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(duration);
        self.max = self.max.max(duration);
        self.add(index_of(duration) as u16, 1);
    }

    /// Adds all durations of `other`. The result is the same as if they had been recorded here, and
    /// does not depend on the order of merges.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
        for &(index, count) in &other.buckets {
            self.add(index, count);
        }
    }

    fn add(&mut self, index: u16, count: u64) {
        if self.buckets.last().is_none_or(|last| last.0 < index) {
            return self.buckets.push((index, count));
        }
        match self.buckets.binary_search_by_key(&index, |bucket| bucket.0) {
            Ok(found) => {
                let total = &mut self.buckets[found].1;
                *total = total.saturating_add(count);
            }
            Err(position) => self.buckets.insert(position, (index, count)),
        }
    }

    /// Returns the number of durations recorded.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns the exact sum of the durations.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns the longest duration, which is exact, or zero if empty.
    #[must_use]
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// Returns `true` if no duration was recorded.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the duration that a share `q` of all durations does not exceed, by nearest rank. Returns
    /// `None` if empty or if `q` is NaN.
    ///
    /// It is an estimate of the `ceil(q * count)`-th shortest duration. It is never above
    /// [`max`](Self::max), and exactly `max` at the highest rank. `q` is clamped to the range from 0 to
    /// 1.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        if self.is_empty() || q.is_nan() {
            return None;
        }
        // Most decimal shares have no exact `f64`: 0.07 * 100.0 is slightly above 7 but means 7. One
        // rounding step down corrects this, and is far from the rank below.
        let rank = q.clamp(0.0, 1.0) * self.count as f64 * (1.0 - f64::EPSILON);
        let rank = (rank.ceil() as u64).max(1);
        if rank >= self.count {
            return Some(self.max);
        }
        let mut seen = 0_u64;
        let at_rank = self.buckets.iter().find(|(_, count)| {
            seen = seen.saturating_add(*count);
            seen >= rank
        });
        let estimate = at_rank.and_then(|(index, _)| middle(usize::from(*index)));
        Some(estimate.map_or(self.max, |estimate| estimate.min(self.max)))
    }

    /// Returns the median, as estimated by [`quantile`](Self::quantile), or `None` if empty.
    #[must_use]
    pub fn p50(&self) -> Option<Duration> {
        self.quantile(0.5)
    }

    /// Returns the 90th percentile, as estimated by [`quantile`](Self::quantile), or `None` if empty.
    #[must_use]
    pub fn p90(&self) -> Option<Duration> {
        self.quantile(0.9)
    }

    /// Returns the 99th percentile, as estimated by [`quantile`](Self::quantile), or `None` if empty.
    #[must_use]
    pub fn p99(&self) -> Option<Duration> {
        self.quantile(0.99)
    }

    /// Returns the mean, rounded down to the nanosecond, or `None` if empty.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let nanos = self.sum.as_nanos().checked_div(u128::from(self.count))?;
        let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
        Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
    }

    /// Iterates over the non-empty buckets, shortest durations first.
    ///
    /// To fold them into a histogram with other bounds, add each bucket to the first bound that is not
    /// below its `upper`:
    ///
    /// ```
    /// use std::time::Duration;
    /// use l0_core::Distribution;
    ///
    /// let mut gaps = Distribution::new();
    /// gaps.record(Duration::from_millis(3));
    /// gaps.record(Duration::from_millis(70));
    /// gaps.record(Duration::from_secs(7_200));
    ///
    /// let bounds = [5, 50, 500].map(Duration::from_millis);
    /// let mut counts = [0; 4]; // the last one is `+Inf`
    /// for bucket in gaps.buckets() {
    ///     counts[bounds.partition_point(|bound| *bound < bucket.upper)] += bucket.count;
    /// }
    /// assert_eq!(counts, [1, 0, 1, 1]);
    /// ```
    #[inline]
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> {
        self.buckets.iter().map(|&(index, count)| {
            let index = usize::from(index);
            Bucket {
                lower: Duration::from_nanos(bound(index)),
                upper: upper_bound(index).unwrap_or(Duration::MAX),
                count,
            }
        })
    }
}

/// One bucket of a [`Distribution`]: the number of durations of at least `lower` and below `upper`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bucket {
    /// The inclusive lower bound.
    pub lower: Duration,
    /// The exclusive upper bound. [`Duration::MAX`] for the bucket above 71 minutes, which holds all
    /// longer durations.
    pub upper: Duration,
    /// The number of durations; never 0.
    pub count: u64,
}

/// Counts of durations in fixed buckets, recorded by a live run. Allocates when it is
/// [reserved](Self::reserve), and not again for the next 65,000 durations, unless dozens of them take long.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    count: u64,
    sum: u64,
    max: u64,
    counts: Option<Box<Counts>>,
}

impl Histogram {
    /// Makes room, so that [`record`](Self::record) does not allocate.
    #[cold]
    #[inline(never)]
    pub(crate) fn reserve(&mut self) {
        self.counts.get_or_insert_default();
    }

    /// Adds one duration, in nanoseconds.
    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        if self.counts.is_none() {
            self.reserve();
        }
        if let Some(counts) = &mut self.counts {
            counts.add(unclamped_index(nanos));
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(nanos);
        self.max = self.max.max(nanos);
    }

    /// Returns the number of durations recorded.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Returns the durations recorded so far, as plain data.
    pub(crate) fn distribution(&self) -> Distribution {
        let mut distribution = Distribution {
            count: self.count,
            sum: Duration::from_nanos(self.sum),
            max: Duration::from_nanos(self.max),
            buckets: Vec::new(),
        };
        if let Some(counts) = &self.counts {
            counts.for_each(|bucket, count| distribution.add(bucket, count));
        }
        distribution
    }
}

/// The number of durations in each bucket, in few bits, because each live run has one of these.
///
/// The count of a usual bucket, below two seconds, has 12 bits, and continues in a slot if it outgrows
/// them. The other counts are in slots.
#[derive(Debug, Clone)]
struct Counts {
    /// Bits 0 to 7 of each usual count.
    low: [u8; USUAL],
    /// Bits 8 to 11 of two usual counts each.
    high: [u8; USUAL.div_ceil(2)],
    /// Buckets, and their further counts; 0 in slots that are free.
    slots: [(u16, u16); SLOTS],
    /// The slots after these. 65,000 durations below two seconds cannot outgrow the bits of so many
    /// counts.
    more: Vec<(u16, u16)>,
}

/// The number of buckets below 2^31 ns, two seconds.
const USUAL: usize = LINEAR + 23 * PER_OCTAVE;
const SLOTS: usize = 16;

const _: () = assert!((SLOTS + 1) << 12 > 65_000);

impl Default for Counts {
    fn default() -> Self {
        Self {
            low: [0; USUAL],
            high: [0; USUAL.div_ceil(2)],
            slots: [(0, 0); SLOTS],
            more: Vec::new(),
        }
    }
}

impl Counts {
    #[inline]
    fn add(&mut self, bucket: usize) {
        let mut is_usual = false;
        if let Some(low) = self.low.get_mut(bucket) {
            *low = low.wrapping_add(1);
            is_usual = *low > 0;
        }
        if !is_usual {
            self.carry(bucket);
        }
    }

    /// Counts what the low bits cannot: 256 durations in a usual bucket, or one in another bucket.
    #[cold]
    #[inline(never)]
    fn carry(&mut self, bucket: usize) {
        if bucket < USUAL {
            let pair = &mut self.high[bucket / 2];
            let one = 1 << (bucket % 2 * 4);
            let high = *pair & (15 * one);
            if high < 15 * one {
                *pair += one;
                return;
            }
            *pair -= high;
        }
        let bucket = bucket.min(LAST) as u16;
        let known = self.slots.iter_mut().chain(&mut self.more);
        let mut fit = known.filter(|(of, times)| *times == 0 || *of == bucket && *times < u16::MAX);
        match fit.next() {
            Some(slot) => *slot = (bucket, slot.1 + 1),
            None => self.more.push((bucket, 1)),
        }
    }

    /// Calls `each` with the index and the count of the buckets that are not empty. A bucket can come
    /// more than once.
    fn for_each(&self, mut each: impl FnMut(u16, u64)) {
        let high = self.high.iter().flat_map(|pair| [pair & 15, pair >> 4]);
        let counts = self.low.iter().zip(high);
        (0..).zip(counts).for_each(|(bucket, (low, high))| {
            if *low > 0 || high > 0 {
                each(bucket, u64::from(high) << 8 | u64::from(*low));
            }
        });
        for &(bucket, times) in self.slots.iter().chain(&self.more) {
            let bits = if usize::from(bucket) < USUAL { 12 } else { 0 };
            if times > 0 {
                each(bucket, u64::from(times) << bits);
            }
        }
    }
}

fn total(buckets: &[(u16, u64)]) -> u64 {
    buckets
        .iter()
        .fold(0, |sum, (_, count)| sum.saturating_add(*count))
}

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Json {
            count: u64,
            #[serde(with = "millis")]
            sum: Duration,
            #[serde(with = "millis")]
            max: Duration,
            #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
            p50: Option<Duration>,
            #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
            p90: Option<Duration>,
            #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
            p99: Option<Duration>,
            buckets: Vec<JsonBucket>,
        }

        Json {
            count: self.count,
            sum: self.sum,
            max: self.max,
            p50: self.p50(),
            p90: self.p90(),
            p99: self.p99(),
            buckets: self
                .buckets
                .iter()
                .map(|(index, count)| {
                    JsonBucket(upper_bound(usize::from(*index)).map(Millis), *count)
                })
                .collect(),
        }
        .serialize(serializer)
    }
}

/// The part of the JSON form that is read. The quantiles are ignored.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Json {
    count: u64,
    #[serde(with = "millis")]
    sum: Duration,
    #[serde(with = "millis")]
    max: Duration,
    buckets: JsonBuckets,
}

#[derive(Serialize, Deserialize)]
struct JsonBucket(Option<Millis>, u64);

#[derive(Default)]
struct JsonBuckets(Vec<(u16, u64)>);

impl TryFrom<Json> for Distribution {
    type Error = ValueError;

    fn try_from(json: Json) -> Result<Self, ValueError> {
        let buckets = json.buckets.0;
        if json.count != total(&buckets) {
            return Err(de::Error::custom("`count` is not the sum of the buckets"));
        }
        Ok(Self {
            count: json.count,
            sum: json.sum,
            max: json.max,
            buckets,
        })
    }
}

/// Reads buckets one by one and requires ascending bounds, so a long list cannot fill memory.
impl<'de> Deserialize<'de> for JsonBuckets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ascending;

        impl<'de> Visitor<'de> for Ascending {
            type Value = JsonBuckets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of [upper bound in milliseconds or null, count]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<JsonBuckets, A::Error> {
                let mut buckets = Vec::new();
                let mut lowest = 0;
                while let Some(JsonBucket(upper, count)) = seq.next_element()? {
                    let upper = upper.map(|Millis(upper)| upper);
                    let index = match upper {
                        Some(upper) => index_of(upper.saturating_sub(Duration::from_nanos(1))),
                        None => LAST,
                    };
                    if upper_bound(index) != upper {
                        return Err(de::Error::custom("unknown bucket bound"));
                    }
                    if index < lowest {
                        return Err(de::Error::custom("bucket bounds do not ascend"));
                    }
                    lowest = index + 1;
                    if count > 0 {
                        buckets.push((index as u16, count));
                    }
                }
                Ok(JsonBuckets(buckets))
            }
        }

        deserializer.deserialize_seq(Ascending)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const TOP: u64 = 1 << 42;

    fn distribution(nanos: &[u64]) -> Distribution {
        let mut all = Distribution::new();
        for nanos in nanos {
            all.record(Duration::from_nanos(*nanos));
        }
        all
    }

    fn histogram(nanos: &[u64]) -> Histogram {
        let mut all = Histogram::default();
        for nanos in nanos {
            all.record(*nanos);
        }
        all
    }

    fn round_trip(written: &Distribution) -> Distribution {
        serde_json::from_str(&serde_json::to_string(written).unwrap()).unwrap()
    }

    /// The share that the error bound allows, plus the nanosecond lost to rounding.
    fn is_near(estimate: u64, exact: u64) -> bool {
        let error = estimate.abs_diff(exact);
        error * 100 <= exact * 2 || (exact < 256 && error <= 8)
    }

    fn nanos(duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos()).unwrap()
    }

    #[test]
    fn buckets_tile_zero_to_2_pow_42_without_gap_or_overlap() {
        assert_eq!(bound(0), 0);
        assert_eq!(bound(LINEAR), 256);
        assert_eq!(bound(BUCKETS), TOP);
        for i in 0..BUCKETS {
            let (low, high) = (bound(i), bound(i + 1));
            assert!(low < high, "bucket {i}: {low}..{high}");
            assert_eq!(index(low), i, "lower bound of bucket {i}");
            assert_eq!(index(high - 1), i, "last value of bucket {i}");
            assert_eq!(index(high), (i + 1).min(LAST), "upper bound of bucket {i}");
        }
    }

    #[test]
    fn every_bucket_but_the_open_one_keeps_the_error_bound_at_both_ends() {
        for i in 0..LAST {
            let (low, high) = (bound(i), bound(i + 1));
            if i >= LINEAR {
                assert!((high - low) * 100 <= (high + low) * 2, "bucket {i}");
            }
            let middle = nanos(middle(i).unwrap());
            assert!(is_near(middle, low), "bucket {i}: {middle} for {low}");
            assert!(is_near(middle, high - 1), "bucket {i}: {middle} for {high}");
        }
        assert_eq!(middle(LAST), None);
    }

    #[test]
    fn the_open_bucket_starts_beyond_71_minutes() {
        assert!(Duration::from_nanos(bound(LAST)) > Duration::from_secs(71 * 60));
    }

    fn normal(rng: &mut fastrand::Rng) -> f64 {
        // Box-Muller; 1 - f64() is never 0, so the logarithm is finite.
        let (radius, angle) = (1.0 - rng.f64(), rng.f64());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    #[test]
    fn quantiles_are_within_two_percent_of_nearest_rank() {
        type Draw = fn(&mut fastrand::Rng) -> f64;
        let shapes: [(&str, Draw); 7] = [
            ("constant", |_| 20e6),
            ("constant, short", |_| 130.0),
            ("normal", |rng| 30e6 + 5e6 * normal(rng)),
            ("lognormal", |rng| (16.0 + normal(rng)).exp()),
            ("lognormal, short", |rng| (5.0 + normal(rng)).exp()),
            ("bimodal", |rng| {
                let middle = if rng.f64() < 0.7 { 200e3 } else { 80e6 };
                middle * (1.0 + 0.05 * normal(rng))
            }),
            ("Pareto", |rng| 1e6 / (1.0 - rng.f64()).powf(1.0 / 1.1)),
        ];
        for (name, draw) in shapes {
            for seed in [1, 7, 42] {
                let mut rng = fastrand::Rng::with_seed(seed);
                let mut sample: Vec<u64> = (0..10_000)
                    .map(|_| draw(&mut rng).max(0.0) as u64)
                    .collect();
                let all = distribution(&sample);
                sample.sort_unstable();
                for (q, rank) in [
                    (0.0, 1),
                    (0.5, 5_000),
                    (0.9, 9_000),
                    (0.99, 9_900),
                    (0.999, 9_990),
                    (1.0, 10_000),
                ] {
                    let exact = sample[rank - 1];
                    let estimate = nanos(all.quantile(q).unwrap());
                    assert!(
                        is_near(estimate, exact),
                        "{name}, seed {seed}, q {q}: {estimate} for {exact}"
                    );
                }
            }
        }
    }

    #[test]
    fn quantile_takes_the_nearest_rank() {
        // Bucket bounds are far enough apart here for each value to have a bucket to itself.
        let all: Vec<u64> = (0..100).map(|i| 16 * i + 8).take(16).collect();
        let all = distribution(&all);
        for (q, rank) in [
            (f64::NEG_INFINITY, 1),
            (-1.0, 1),
            (0.0, 1),
            (0.0625, 1),
            (0.0626, 2),
            (0.5, 8),
            (0.51, 9),
            (0.9375, 15),
            (0.938, 16),
            (1.0, 16),
            (7.0, 16),
            (f64::INFINITY, 16),
        ] {
            let expected = Duration::from_nanos(16 * (rank - 1) + 8);
            assert_eq!(all.quantile(q), Some(expected), "q {q}");
        }
        assert_eq!(all.quantile(f64::NAN), None);
    }

    #[test]
    fn quantile_reads_decimal_shares_as_written() {
        for count in [10, 100, 1_000, 10_000] {
            for percent in 1..100 {
                let (share, exact) = (percent as f64 / 100.0, percent * count);
                // The values below the rank are in one bucket, those from the rank on in another.
                let rank = exact / 100 + u64::from(exact % 100 > 0);
                let mut all = Distribution::new();
                for i in 1..=count {
                    all.record(Duration::from_nanos(if i <= rank { 8 } else { 1_000 }));
                }
                assert_eq!(
                    all.quantile(share),
                    Some(Duration::from_nanos(8)),
                    "{share} of {count}"
                );
            }
        }
    }

    #[test]
    fn an_empty_distribution_has_no_quantile_and_no_mean() {
        let empty = Distribution::new();
        assert!(empty.is_empty());
        assert_eq!(empty, Distribution::default());
        assert_eq!(empty, Histogram::default().distribution());
        assert_eq!((empty.count, empty.buckets().count()), (0, 0));
        for absent in [empty.p50(), empty.p90(), empty.p99(), empty.mean()] {
            assert_eq!(absent, None);
        }
    }

    #[test]
    fn one_duration_is_every_quantile_exactly() {
        for duration in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_millis(23),
            Duration::from_nanos(u64::MAX),
            Duration::MAX,
        ] {
            let mut one = Distribution::new();
            one.record(duration);
            for q in [0.0, 0.5, 1.0] {
                assert_eq!(one.quantile(q), Some(duration));
            }
            assert_eq!(one.mean(), Some(duration));
            assert_eq!((one.count, one.sum, one.max), (1, duration, duration));
        }
    }

    #[test]
    fn sum_max_and_mean_are_exact() {
        let all = distribution(&[1, 1_000_003, 5_000_000_007]);
        assert_eq!(all.sum, Duration::from_nanos(5_001_000_011));
        assert_eq!(all.max, Duration::from_nanos(5_000_000_007));
        assert_eq!(all.mean(), Some(Duration::from_nanos(1_667_000_003)));
        let live = histogram(&[1, 1_000_003, 5_000_000_007]);
        assert_eq!((live.count(), live.sum), (3, 5_001_000_011));
    }

    #[test]
    fn the_open_bucket_is_estimated_by_max() {
        let all = distribution(&[TOP, TOP + 1, 3 * TOP, 3 * TOP]);
        assert_eq!(all.p50(), Some(Duration::from_nanos(3 * TOP)));
    }

    #[test]
    fn what_does_not_fit_saturates() {
        let mut all = Distribution::new();
        all.record(Duration::MAX);
        all.record(Duration::MAX);
        assert_eq!((all.count, all.sum), (2, Duration::MAX));
        for _ in 0..64 {
            all.merge(&all.clone());
        }
        assert_eq!((all.count, all.sum), (u64::MAX, Duration::MAX));
        assert_eq!(all.p99(), Some(Duration::MAX));

        let live = histogram(&[u64::MAX, u64::MAX, 0]);
        assert_eq!((live.count(), live.sum), (3, u64::MAX));
    }

    #[test]
    fn a_run_counts_exactly_however_many_durations_each_bucket_has() {
        let mut live = Histogram::default();
        let mut all = Distribution::new();
        for bucket in 0..BUCKETS {
            // Up to 11 bits each, and more than there are slots with 14.
            let times = bucket * 37 % 2_048 + if bucket % 10 == 0 { 10_000 } else { 0 };
            let duration = bound(bucket);
            (0..times).for_each(|_| live.record(duration));
            all.merge(&Distribution {
                count: times as u64,
                sum: Duration::from_nanos(duration) * times as u32,
                max: Duration::from_nanos(duration),
                buckets: vec![(bucket as u16, times as u64); usize::from(times > 0)],
            });
        }
        assert_eq!(live.distribution(), all);
        assert!(!live.counts.unwrap().more.is_empty());
    }

    #[test]
    fn a_slot_that_is_full_is_followed_by_another() {
        let mut counts = Counts::default();
        for _ in 0..70_000 {
            counts.carry(LAST);
        }
        let mut total = 0;
        counts.for_each(|bucket, count| {
            assert_eq!(usize::from(bucket), LAST);
            total += count;
        });
        assert_eq!(total, 70_000);
        assert_eq!(
            counts.slots[..3]
                .iter()
                .map(|slot| slot.1)
                .collect::<Vec<_>>(),
            [u16::MAX, 4_465, 0]
        );
    }

    #[test]
    fn a_run_of_65_000_durations_allocates_only_when_it_is_reserved() {
        let mut live = Histogram::default();
        live.reserve();
        // As evenly as it takes for the most counts to outgrow their bits.
        for _ in 0..4_096 {
            (0..SLOTS).for_each(|bucket| live.record(bound(bucket)));
        }
        assert!(live.count() > 65_000);
        let counts = live.counts.unwrap();
        assert!(counts.slots.iter().all(|(_, times)| *times == 1));
        assert_eq!(counts.more.capacity(), 0);
    }

    #[test]
    fn buckets_are_plain_and_in_order() {
        let all = distribution(&[3 * TOP, 300, 40, 300]);
        let bucket = |lower, upper, count| Bucket {
            lower: Duration::from_nanos(lower),
            upper,
            count,
        };
        assert_eq!(
            all.buckets().collect::<Vec<_>>(),
            [
                bucket(32, Duration::from_nanos(48), 1),
                bucket(296, Duration::from_nanos(308), 2),
                bucket(251 << 34, Duration::MAX, 1),
            ]
        );
    }

    #[test]
    fn the_json_form_is_as_documented() {
        let all = distribution(&[40, 40, 1_500_000, TOP]);
        assert_eq!(
            serde_json::to_value(&all).unwrap(),
            json!({
                "count": 4,
                "sum": 4_398_048.011_184,
                "max": 4_398_046.511_104,
                "p50": 0.000_04,
                "p90": 4_398_046.511_104,
                "p99": 4_398_046.511_104,
                "buckets": [[0.000_048, 2], [1.523_712, 1], [null, 1]],
            })
        );
        assert_eq!(round_trip(&all), all);
        assert_eq!(
            serde_json::to_value(Distribution::new()).unwrap(),
            json!({ "count": 0, "sum": 0, "max": 0, "buckets": [] })
        );
    }

    #[test]
    fn reading_ignores_derived_and_unknown_fields_and_empty_buckets() {
        let read: Distribution = serde_json::from_value(json!({
            "count": 1, "sum": 0.00004, "max": 0.00004, "p50": "high", "p90": -1, "p99": null,
            "more": {}, "buckets": [[0.000_016, 0], [0.000_048, 1], [0.000_064, 0], [null, 0]],
        }))
        .unwrap();
        assert_eq!(read, distribution(&[40]));
        assert!(
            serde_json::from_str::<Distribution>("{}")
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn reading_refuses_what_contradicts_itself() {
        let valid = json!({
            "count": 3, "sum": 1.50008, "max": 1.5,
            "buckets": [[0.000_048, 2], [1.523_712, 1]],
        });
        assert!(serde_json::from_value::<Distribution>(valid.clone()).is_ok());
        for (field, value) in [
            ("count", json!(4)),
            ("count", json!(0)),
            ("count", json!(-3)),
            ("count", json!(3.5)),
            ("count", json!(null)),
            ("sum", json!(-1)),
            ("sum", json!(1e300)),
            ("sum", json!("1.5")),
            ("max", json!(-1.5)),
            ("buckets", json!({})),
            ("buckets", json!([])),
            ("buckets", json!([3])),
            ("buckets", json!([[1.523_712, 1], [0.000_048, 2]])),
            (
                "buckets",
                json!([[0.000_048, 1], [0.000_048, 1], [1.523_712, 1]]),
            ),
            ("buckets", json!([[0.000_048, 2], [1.523_713, 1]])),
            ("buckets", json!([[0.000_048, 2], [1.523_712, 1, 0]])),
            ("buckets", json!([[0.000_048, 2], [1.523_712]])),
            ("buckets", json!([[0, 2], [1.523_712, 1]])),
            ("buckets", json!([[-0.000_048, 2], [1.523_712, 1]])),
            ("buckets", json!([[0.000_048, -2], [1.523_712, 5]])),
            ("buckets", json!([[0.000_048, 2], [1e300, 1]])),
            ("buckets", json!([[0.000_048, u64::MAX], [1.523_712, 4]])),
            ("buckets", json!([[null, 2], [null, 1]])),
            (
                "buckets",
                Value::Array(vec![json!([0.000_048, 0]); 100_000]),
            ),
        ] {
            let mut hostile = valid.clone();
            hostile[field] = value;
            let read = serde_json::from_value::<Distribution>(hostile.clone());
            assert!(read.is_err(), "{field}: {read:?}");
        }
    }

    /// Durations of every magnitude up to `2^bits` ns, all magnitudes equally likely.
    fn values(bits: u32) -> impl Strategy<Value = Vec<u64>> {
        let value = (64 - bits..64, any::<u64>()).prop_map(|(shift, value)| value >> shift);
        prop::collection::vec(value, 0..200)
    }

    proptest! {
        #[test]
        fn merging_is_recording_all_of_both(a in values(64), b in values(64), c in values(64)) {
            let together = distribution(&[a.clone(), b.clone(), c.clone()].concat());
            let (a, b, c) = (distribution(&a), distribution(&b), distribution(&c));
            let merged = |parts: [&Distribution; 2]| {
                let mut all = parts[0].clone();
                all.merge(parts[1]);
                all
            };
            prop_assert_eq!(&merged([&merged([&a, &b]), &c]), &together);
            prop_assert_eq!(&merged([&a, &merged([&b, &c])]), &together);
            prop_assert_eq!(&merged([&merged([&c, &b]), &a]), &together);
        }

        #[test]
        fn quantile_rises_with_q_and_stays_within_max(
            sample in values(64),
            mut shares in prop::collection::vec(-0.1..1.1, 2..20),
        ) {
            let all = distribution(&sample);
            shares.sort_by(f64::total_cmp);
            let estimates: Vec<_> = shares.iter().map(|q| all.quantile(*q)).collect();
            prop_assert!(estimates.is_sorted());
            prop_assert!(estimates.iter().all(|estimate| *estimate <= Some(all.max)));
        }

        #[test]
        fn quantile_is_near_the_nearest_rank(mut sample in values(42), q in 0.0..=1.0_f64) {
            prop_assume!(!sample.is_empty());
            let all = distribution(&sample);
            sample.sort_unstable();
            let rank = (q * sample.len() as f64).ceil().max(1.0) as usize;
            let (estimate, exact) = (nanos(all.quantile(q).unwrap()), sample[rank - 1]);
            prop_assert!(
                exact >= bound(LAST) || is_near(estimate, exact),
                "{} for {}", estimate, exact
            );
        }

        #[test]
        fn a_run_and_a_distribution_count_alike(sample in values(56)) {
            prop_assert_eq!(histogram(&sample).distribution(), distribution(&sample));
        }

        #[test]
        fn json_reads_back_equal(sample in values(42)) {
            let all = distribution(&sample);
            prop_assert_eq!(round_trip(&all), all);
        }

        #[test]
        fn whatever_is_read_is_consistent(
            mut places in prop::collection::vec((0..BUCKETS, 0_u64..4), 0..8),
            sorted in any::<bool>(),
            count_off in 0_u64..2,
            fill in 0.0..1.1,
            max in 0..BUCKETS,
        ) {
            if sorted {
                places.sort_unstable();
            }
            let count = places.iter().map(|(_, count)| count).sum::<u64>() + count_off;
            let max = if sorted { places.last().map_or(0, |last| last.0) } else { max };
            let buckets: Vec<_> = places
                .iter()
                .map(|(index, count)| JsonBucket(upper_bound(*index).map(Millis), *count))
                .collect();
            let max = bound(max) as f64 / 1e6;
            let json = json!({
                "count": count,
                "sum": max.max(fill * max * count as f64),
                "max": max,
                "buckets": buckets,
            });
            if let Ok(read) = serde_json::from_value::<Distribution>(json) {
                prop_assert_eq!(total(&read.buckets), read.count);
                prop_assert!(read.buckets.is_sorted_by(|a, b| a.0 < b.0));
                prop_assert!(read.buckets.iter().all(|bucket| bucket.1 > 0));
                prop_assert_eq!(round_trip(&read), read);
            }
        }
    }
}
