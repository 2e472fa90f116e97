//! Entropy spikes: a delta with a much more mixed set of characters than the deltas before it.
//!
//! All values are integers in units of 1/65536 bits. Equal values therefore have a deviation of exactly
//! zero, and the running sums stay exact.

use std::collections::HashMap;

use super::delta::Delta;

/// The minimum number of values before the last one can be a spike.
pub(super) const MIN_VALUES: usize = 10;

/// The maximum number of values kept. The sums are sized for it.
pub(super) const MAX_VALUES: usize = 1_000;

/// The number of fraction bits of a value.
const FRACTION: u32 = 16;

/// The number of characters up to which a delta needs neither a logarithm nor an allocation.
const SHORT: usize = 64;

/// `n * log2(n)`, for small n.
const N_LOG2_N: [u32; SHORT + 1] = {
    let mut table = [0; SHORT + 1];
    let mut n = 2;
    while n <= SHORT {
        table[n] = n_log2_n(n as u64);
        n += 1;
    }
    table
};

/// The entropy of n different characters, for small n.
const DIFFERENT: [u32; SHORT + 1] = {
    let mut table = [0; SHORT + 1];
    let mut n = 1;
    while n <= SHORT {
        table[n] = N_LOG2_N[n] / n as u32;
        n += 1;
    }
    table
};

/// The increase of `n * log2(n)` when n increases by one.
const STEP: [u32; SHORT] = {
    let mut table = [0; SHORT];
    let mut n = 0;
    while n < SHORT {
        table[n] = N_LOG2_N[n + 1] - N_LOG2_N[n];
        n += 1;
    }
    table
};

/// Returns `n * log2(n)`, computed one bit of the logarithm at a time.
const fn n_log2_n(n: u64) -> u32 {
    const DIGITS: u32 = 31;
    let whole = n.ilog2();
    let mut log = whole as u64;
    let mut mantissa = (n << DIGITS) >> whole;
    let mut digit = 0;
    while digit < DIGITS {
        mantissa = (mantissa * mantissa) >> DIGITS;
        log <<= 1;
        if mantissa >> (DIGITS + 1) == 1 {
            mantissa >>= 1;
            log |= 1;
        }
        digit += 1;
    }
    let half = 1 << (DIGITS - FRACTION - 1);
    ((n * log + half) >> (DIGITS - FRACTION)) as u32
}

/// The entropies of the last deltas.
#[derive(Debug)]
pub(super) struct Entropy {
    /// The square of the threshold in standard deviations.
    threshold: f64,
    /// A ring buffer.
    values: Box<[u32]>,
    /// The number of values.
    count: usize,
    /// The ring position of the next value.
    next: usize,
    sum: u64,
    squares: u64,
}

impl Entropy {
    pub(super) fn new(threshold: f64, values: usize) -> Self {
        Self {
            threshold: threshold * threshold,
            values: vec![0; values.clamp(MIN_VALUES, MAX_VALUES)].into(),
            count: 0,
            next: 0,
            sum: 0,
            squares: 0,
        }
    }

    /// Returns `true` if this delta is a spike.
    #[inline]
    pub(super) fn text(&mut self, delta: &Delta<'_>) -> bool {
        self.add(entropy(delta))
    }

    /// Returns `true` if this value is a spike. It is one of the values that it is compared with.
    fn add(&mut self, value: u32) -> bool {
        // The ring holds zeros where it has no value yet.
        let Some(place) = self.values.get_mut(self.next) else {
            return false;
        };
        let old = u64::from(std::mem::replace(place, value));
        let new = u64::from(value);
        self.sum = self.sum + new - old;
        self.squares = self.squares + new * new - old * old;
        self.next += 1;
        if self.next == self.values.len() {
            self.next = 0;
        }
        if self.count < self.values.len() {
            self.count += 1;
            if self.count < MIN_VALUES {
                return false;
            }
        }
        // All terms are multiplied by the count, and the deviation is squared, so there is no division
        // and no root. There is also no branch, which would be unpredictable.
        let count = self.count as u64;
        let above = (count * new) as i64 - self.sum as i64;
        let variance = count * self.squares - self.sum * self.sum;
        (above > 0) & ((above * above) as f64 > self.threshold * variance as i64 as f64)
    }
}

#[inline]
fn entropy(delta: &Delta<'_>) -> u32 {
    let characters = delta.characters();
    if characters > SHORT {
        long(delta.text, characters)
    } else if delta.is_ascii() {
        if delta.all_differ() {
            return DIFFERENT[characters];
        }
        short_ascii(delta.text.as_bytes())
    } else {
        short(delta.text, characters)
    }
}

#[inline(never)]
fn short_ascii(delta: &[u8]) -> u32 {
    let mut counts = [0_u8; 128];
    let mut repeated = 0;
    for byte in delta {
        let count = &mut counts[usize::from(byte & 127)];
        repeated += STEP[usize::from(*count) % SHORT];
        *count += 1;
    }
    bits(delta.len(), repeated)
}

fn short(delta: &str, characters: usize) -> u32 {
    let mut sorted = ['\0'; SHORT];
    for (place, c) in sorted.iter_mut().zip(delta.chars()) {
        *place = c;
    }
    let sorted = &mut sorted[..characters];
    sorted.sort_unstable();
    let runs = sorted.chunk_by(|a, b| a == b);
    let repeated = runs.map(|run| N_LOG2_N[run.len()]).sum();
    bits(characters, repeated)
}

/// Returns the entropy from the sum of `n * log2(n)` over the counts of characters.
fn bits(characters: usize, repeated: u32) -> u32 {
    // Rounding can make a sum of parts slightly greater than the whole.
    N_LOG2_N[characters].saturating_sub(repeated) / characters.max(1) as u32
}

/// Allocates memory proportional to the delta, and does not keep it.
#[cold]
fn long(delta: &str, characters: usize) -> u32 {
    let mut ascii = [0_u64; 128];
    let mut others: HashMap<char, u64> = HashMap::new();
    for c in delta.chars() {
        match ascii.get_mut(c as usize) {
            Some(count) => *count += 1,
            None => *others.entry(c).or_default() += 1,
        }
    }
    // In this order, so equal deltas have equal sums.
    let mut counts: Vec<u64> = others.into_values().collect();
    counts.sort_unstable();
    let n_log2_n = |n: u64| (n as f64) * (n.max(1) as f64).log2();
    let repeated: f64 = ascii.into_iter().chain(counts).map(n_log2_n).sum();
    let bits = (n_log2_n(characters as u64) - repeated) / characters as f64;
    (bits.max(0.0) * f64::from(1 << FRACTION)).round() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A straightforward reference implementation.
    fn reference(delta: &str) -> f64 {
        let mut counts = HashMap::new();
        for c in delta.chars() {
            *counts.entry(c).or_insert(0.0) += 1.0;
        }
        let length = delta.chars().count() as f64;
        counts
            .values()
            .map(|n: &f64| -(n / length) * (n / length).log2())
            .sum()
    }

    fn of(delta: &str) -> f64 {
        let delta = Delta::read(delta, 0);
        if delta.is_ascii() && delta.text.len() <= SHORT {
            assert_eq!(entropy(&delta), short(delta.text, delta.text.len()));
        }
        f64::from(entropy(&delta)) / 65536.0
    }

    #[test]
    fn entropies_are_those_of_the_formula() {
        for (delta, expected) in [
            ("a", 0.0),
            ("aaaa", 0.0),
            ("ab", 1.0),
            ("abcd", 2.0),
            ("aabb", 1.0),
            ("hello", 1.921_928),
            ("日本語", 1.584_962),
            ("日日本本", 1.0),
        ] {
            assert!(
                (of(delta) - expected).abs() < 1e-4,
                "{delta}: {}",
                of(delta)
            );
        }
        for n in [64, 65, 1000, 100_000] {
            let delta = "abcdefgh".repeat(n / 8 + 1);
            assert!((of(&delta) - 3.0).abs() < 1e-3, "{n}");
            let same = "a".repeat(n);
            assert_eq!(of(&same), 0.0, "{n}");
        }
    }

    #[test]
    fn equal_values_have_no_deviation() {
        let mut entropy = Entropy::new(0.0, 50);
        for _ in 0..100_000 {
            assert!(!entropy.text(&Delta::read("hello", 0)));
        }
        assert!(!entropy.text(&Delta::read("hello", 0)));
        assert!(
            entropy.text(&Delta::read("world", 0)),
            "any deviation is above one of zero"
        );
    }

    #[test]
    fn sums_are_exact_however_long() {
        let mut entropy = Entropy::new(2.5, 50);
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..100_000 {
            entropy.add(rng.u32(..1_400_000));
        }
        assert_eq!(
            entropy.sum,
            entropy
                .values
                .iter()
                .map(|one| u64::from(*one))
                .sum::<u64>()
        );
        let squares = entropy.values.iter().map(|one| u64::from(*one).pow(2));
        assert_eq!(entropy.squares, squares.sum::<u64>());
    }

    #[test]
    fn the_greatest_values_do_not_overflow() {
        let mut entropy = Entropy::new(2.5, MAX_VALUES);
        for value in 0..10 * MAX_VALUES {
            entropy.add(if value % 2 == 0 { (1 << 21) - 1 } else { 0 });
        }
    }

    proptest! {
        #[test]
        fn entropies_match_the_reference(delta in "[a-e ]{1,100}|\\PC{1,100}") {
            prop_assert!((of(&delta) - reference(&delta)).abs() < 1e-3);
        }

        #[test]
        fn spikes_match_the_reference(
            values in prop::collection::vec(0_u32..300_000, 1..100),
            window in 10_usize..60,
        ) {
            let mut entropy = Entropy::new(2.5, window);
            for end in 1..=values.len() {
                let ring = &values[end.saturating_sub(window)..end];
                let count = ring.len() as f64;
                let mean = ring.iter().map(|one| f64::from(*one)).sum::<f64>() / count;
                let squares = ring.iter().map(|one| (f64::from(*one) - mean).powi(2));
                let deviation = (squares.sum::<f64>() / count).sqrt();
                let distance = f64::from(values[end - 1]) - mean - 2.5 * deviation;
                let found = entropy.add(values[end - 1]);
                if distance.abs() > 1e-6 {
                    prop_assert_eq!(found, ring.len() >= MIN_VALUES && distance > 0.0);
                }
            }
        }
    }
}
