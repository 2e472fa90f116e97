//! Intervals of one statistic, and of the difference of two.
//!
//! No random numbers are used. A quantile's interval consists of order statistics. A share's interval is
//! Wilson's. A mean's interval is Student's, widened if the values are skewed. Two intervals are combined into
//! that of the difference by the squares of their lengths on either side (Zou and Donner's method of variance
//! estimates recovery).

/// An estimated number, with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Estimate {
    /// The estimated value.
    #[serde(serialize_with = "nine_digits")]
    pub value: f64,
    /// The lower end of the interval.
    #[serde(serialize_with = "nine_digits")]
    pub lower: f64,
    /// The upper end of the interval.
    #[serde(serialize_with = "nine_digits")]
    pub upper: f64,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde's `serialize_with` asks for"
)]
fn nine_digits<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    rounded(*number).serialize(serializer)
}

/// Rounds a number to nine digits. Further digits are noise of the arithmetic.
pub(crate) fn rounded(number: f64) -> f64 {
    format!("{number:.8e}").parse().unwrap_or(number)
}

use serde::{Serialize, Serializer};

/// A confidence level, as the number of standard deviations on either side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    /// The probability of the tail on one side.
    tail: f64,
    z: f64,
}

impl Level {
    /// Creates the level of intervals that contain the true value with this probability, between 0 and 1.
    pub(crate) fn of(confidence: f64) -> Self {
        let tail = (1.0 - confidence) / 2.0;
        Self {
            tail,
            z: normal_quantile(1.0 - tail),
        }
    }

    pub(crate) const fn z(self) -> f64 {
        self.z
    }

    /// Returns the number of standard deviations for a variance that was estimated with these degrees of freedom:
    /// Student's, by the expansion of Cornish and Fisher.
    pub(crate) fn t(self, freedom: f64) -> f64 {
        let z = self.z;
        let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
        z + (z3 + z) / (4.0 * freedom)
            + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * freedom.powi(2))
            + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * freedom.powi(3))
    }

    /// Returns the minimum number of values for an interval of this quantile. With fewer values, the true quantile
    /// may be beyond all of them.
    pub(crate) fn least_for_quantile(self, q: f64) -> u64 {
        let q = q.max(1.0 - q);
        (self.tail.ln() / q.ln()).ceil() as u64
    }
}

/// Returns the quantile of the standard normal distribution.
fn normal_quantile(probability: f64) -> f64 {
    let mut x = 0.0_f64;
    // Newton's method. Its steps do not overshoot when they start in the middle.
    for _ in 0..100 {
        let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
        let step = (probability - normal_below(x, density)) / density;
        x += step;
        if step.abs() < 1e-12 {
            break;
        }
    }
    x
}

/// Returns the probability that a standard normal variable is below `x`, by the series around 0.
fn normal_below(x: f64, density: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    let mut odd = 1.0;
    while term.abs() > 1e-17 {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + density * sum
}

/// Returns the ranks, from 1, between which the true quantile of `count` values lies. Uses the binomial
/// distribution of the number of values below it, with its skewness. Ranks can be fractions.
pub(crate) fn ranks(count: u64, q: f64, level: Level) -> (f64, f64) {
    let (count, z) = (count as f64, level.z());
    let middle = count * q + 0.5 + (z * z - 1.0) * (1.0 - 2.0 * q) / 6.0;
    let spread = z * (count * q * (1.0 - q)).sqrt();
    (middle - spread, middle + spread)
}

/// Estimates the share of `hits` in `count`, with Wilson's interval.
pub(crate) fn share(hits: u64, count: u64, level: Level) -> Estimate {
    let (n, z2) = (count as f64, level.z().powi(2));
    let value = hits as f64 / n;
    let middle = (value + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let spread =
        (z2 * value * (1.0 - value) / n + (z2 / (2.0 * n)).powi(2)).sqrt() / (1.0 + z2 / n);
    Estimate {
        value,
        // Rounding must not exclude the value itself.
        lower: (middle - spread).clamp(0.0, value),
        upper: (middle + spread).clamp(value, 1.0),
    }
}

/// Sums over runs, each of which has a number and a weight. They suffice for a weighted mean.
/// If each run has one value of a quantity, the weight is 1.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moments {
    runs: u64,
    /// Sums of products of number and weight. The name states the powers.
    x: f64,
    w: f64,
    xx: f64,
    xw: f64,
    ww: f64,
    xxx: f64,
    xxw: f64,
    xww: f64,
    www: f64,
}

impl Moments {
    pub(crate) fn add(&mut self, x: f64, w: f64) {
        self.runs += 1;
        self.x += x;
        self.w += w;
        self.xx += x * x;
        self.xw += x * w;
        self.ww += w * w;
        self.xxx += x * x * x;
        self.xxw += x * x * w;
        self.xww += x * w * w;
        self.www += w * w * w;
    }

    pub(crate) const fn runs(&self) -> u64 {
        self.runs
    }

    /// Returns the sum of the numbers.
    pub(crate) const fn sum(&self) -> f64 {
        self.x
    }

    /// Returns the sum of the numbers divided by that of the weights, with an interval whose units are runs.
    ///
    /// Each side is as long as Student's interval. On the side of a long tail, it is at least as long as that of
    /// Hall's transformation, which removes the skewness.
    pub(crate) fn mean(&self, level: Level) -> Option<Estimate> {
        let n = self.runs as f64;
        if self.runs < 2 || self.w <= 0.0 {
            return None;
        }
        let mean = self.x / self.w;
        // Second and third moments of the deviation of each run.
        let second = self.xx - 2.0 * mean * self.xw + mean * mean * self.ww;
        let third = self.xxx - 3.0 * mean * self.xxw + 3.0 * mean.powi(2) * self.xww
            - mean.powi(3) * self.www;
        // Rounding leaves a remainder of terms that cancel out.
        let second = if second <= self.xx * 1e-14 {
            0.0
        } else {
            second
        };
        let error = (n / (n - 1.0) * second).sqrt() / self.w;
        let t = level.t(n - 1.0);
        let skewness = if second > 0.0 {
            third / second.powf(1.5)
        } else {
            0.0
        };
        let without_skewness = |t: f64| {
            if skewness.abs() < 1e-6 {
                return t;
            }
            let inner = 1.0 + skewness * (t - skewness / 6.0);
            3.0 / skewness * (inner.cbrt() - 1.0)
        };
        let below = without_skewness(t).max(t);
        let above = (-without_skewness(-t)).max(t);
        let estimate = Estimate {
            value: mean,
            // No quantity is negative.
            lower: (mean - error * below).max(0.0),
            upper: mean + error * above,
        };
        estimate.upper.is_finite().then_some(estimate)
    }
}

/// Raises the upper end of a mean of mostly zero values to that of the share of non-zero values: even if
/// none occurred, the next one may. `typical` is the mean of the non-zero values.
pub(crate) fn with_unseen(
    mean: Estimate,
    not_zero: u64,
    runs: u64,
    typical: f64,
    level: Level,
) -> Estimate {
    let share = share(not_zero, runs, level);
    Estimate {
        upper: mean.upper.max(share.upper * typical),
        ..mean
    }
}

/// The intervals of the difference and the ratio of two statistics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Contrast {
    pub(crate) difference: Estimate,
    /// Absent if the base may be zero.
    pub(crate) ratio: Option<Estimate>,
}

/// Compares two estimates whose errors have this correlation, which is 0 for different runs.
///
/// Both intervals agree: the interval of the ratio contains the factors by which the base can be multiplied
/// so that no difference remains. So it begins above 1 exactly if that of the difference begins above 0.
pub(crate) fn contrast(base: &Estimate, new: &Estimate, correlation: f64) -> Contrast {
    let value = new.value - base.value;
    let reach = |a: f64, b: f64| (a * a + b * b - 2.0 * correlation * a * b).max(0.0).sqrt();
    let difference = Estimate {
        value,
        lower: value - reach(new.value - new.lower, base.upper - base.value),
        upper: value + reach(new.upper - new.value, base.value - base.lower),
    };

    // (new - factor * base)^2 = reach^2, solved for the factor.
    let product = |a: f64, b: f64| new.value * base.value - correlation * a * b;
    let root = |a: f64, b: f64| {
        let squares = (new.value.powi(2) - a * a) * (base.value.powi(2) - b * b);
        (product(a, b).powi(2) - squares).max(0.0).sqrt()
    };
    let ratio = (base.lower > 0.0).then(|| {
        let (a, b) = (new.value - new.lower, base.upper - base.value);
        let lower = (new.value.powi(2) - a * a) / (product(a, b) + root(a, b));
        let (a, b) = (new.upper - new.value, base.value - base.lower);
        let upper = (product(a, b) + root(a, b)) / (base.value.powi(2) - b * b);
        Estimate {
            value: new.value / base.value,
            lower: if lower.is_finite() {
                lower.max(0.0)
            } else {
                0.0
            },
            upper,
        }
    });
    Contrast {
        difference,
        ratio: ratio.filter(|ratio| ratio.upper.is_finite()),
    }
}

/// Returns the correlation of pairs of numbers, or 0 if one side does not vary.
pub(crate) fn correlation(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let count = pairs.clone().count() as f64;
    let (sum_a, sum_b) = pairs
        .clone()
        .fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let (mean_a, mean_b) = (sum_a / count, sum_b / count);
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (x, y) = (x - mean_a, y - mean_b);
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    let product = (aa * bb).sqrt();
    if product > 0.0 {
        (ab / product).clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64, by: f64) {
        assert!((a - b).abs() <= by, "{a} for {b}");
    }

    #[test]
    fn normal_and_student_quantiles_match_published_tables() {
        for (confidence, z) in [
            (0.5, 0.674_489_750),
            (0.9, 1.644_853_627),
            (0.95, 1.959_963_985),
            (0.999_9, 3.890_591_886),
        ] {
            near(Level::of(confidence).z(), z, 1e-8);
        }
        // scipy.stats.t.ppf
        for (confidence, freedom, t) in [
            (0.95, 29.0, 2.045_229_642),
            (0.95, 999.0, 1.962_341_461),
            (0.99, 29.0, 2.756_385_904),
            (0.999, 60.0, 3.460_200_5),
        ] {
            near(Level::of(confidence).t(freedom), t, 1e-4);
        }
    }

    #[test]
    fn a_quantile_needs_values_beyond_it() {
        let level = Level::of(0.95);
        for (q, least) in [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368), (0.1, 36)] {
            assert_eq!(level.least_for_quantile(q), least, "{q}");
        }
    }

    #[test]
    fn shares_match_the_literature() {
        // Newcombe 1998, table II, case (a): 56/70 against 48/80, method 10.
        let level = Level::of(0.95);
        let (base, new) = (share(48, 80, level), share(56, 70, level));
        let difference = contrast(&base, &new, 0.0).difference;
        near(difference.lower, 0.0524, 5e-5);
        near(difference.upper, 0.3339, 5e-5);
    }

    #[test]
    fn difference_and_ratio_agree() {
        let estimate = |value: f64, below: f64, above: f64| Estimate {
            value,
            lower: value - below,
            upper: value + above,
        };
        let base = estimate(100.0, 5.0, 9.0);
        for correlation in [0.0, 0.7] {
            for hundredths in 8_000..12_000 {
                let new = estimate(f64::from(hundredths) / 100.0, 4.0, 11.0);
                let Contrast { difference, ratio } = contrast(&base, &new, correlation);
                let ratio = ratio.expect("a base that is not zero");
                assert_eq!(
                    difference.lower > 0.0,
                    ratio.lower > 1.0,
                    "{difference:?} {ratio:?}"
                );
                assert_eq!(
                    difference.upper < 0.0,
                    ratio.upper < 1.0,
                    "{difference:?} {ratio:?}"
                );
            }
        }
    }

    #[test]
    fn constant_values_have_a_mean_without_a_width() {
        let mut moments = Moments::default();
        for _ in 0..1_000 {
            moments.add(0.1, 1.0);
        }
        let mean = moments.mean(Level::of(0.95)).expect("values");
        near(mean.lower, 0.1, 1e-9);
        near(mean.upper, 0.1, 1e-9);
    }
}
