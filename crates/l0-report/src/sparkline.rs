//! Sparklines: the shape of a distribution as a short line of text.

use crate::quantiles::Quantiles;
use crate::text::three_digits;

/// The number of characters in a sparkline.
const WIDTH: usize = 20;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The maximum ratio of the ends of a scale. Smaller numbers count as its lower end.
const MAX_RATIO: f64 = 1e9;

/// A scale for several sparklines, so their shapes can be compared: logarithmic,
/// from the smallest to the largest number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Scale {
    /// Creates the scale of these numbers. `None` if there are none.
    pub(crate) fn of(all: &Quantiles) -> Option<Self> {
        let ((low, _), high) = all.counts().next().zip(all.max())?;
        Some(Self { low, high })
    }

    /// Returns the heading of sparklines: the ends of the scale, each above its end, with this unit.
    pub(crate) fn heading(self, unit: &str) -> String {
        let [low, high] = [self.low, self.high].map(|end| three_digits(Some(end)));
        let width = low.len() + high.len() + unit.len();
        let space = " ".repeat(WIDTH.saturating_sub(width).max(1));
        format!("{low}{space}{high}{unit}")
    }

    /// Returns a sparkline of numbers with their counts, in ascending order. The fullest bar of the line has the
    /// full height. A non-empty bar has at least the lowest height, and an empty bar is a space.
    pub(crate) fn sparkline(self, counts: &[(f64, u64)]) -> String {
        let mut bars = [0_u64; WIDTH];
        for (number, count) in counts {
            let bar = &mut bars[self.place(*number)];
            *bar = bar.saturating_add(*count);
        }
        let fullest = bars.into_iter().max().unwrap_or_default();
        bars.map(
            |bar| match (u128::from(bar) * 8).div_ceil(u128::from(fullest.max(1))) {
                0 => ' ',
                height => BARS[height as usize - 1],
            },
        )
        .iter()
        .collect()
    }

    fn place(self, number: f64) -> usize {
        let low = self.low.max(self.high / MAX_RATIO);
        let share = (number.max(low) / low).ln() / (self.high / low).ln();
        // NaN if all numbers are equal or zero.
        if share.is_nan() {
            return WIDTH / 2;
        }
        ((share * WIDTH as f64) as usize).min(WIDTH - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(counts: &[(f64, u64)]) -> String {
        let (low, high) = (counts[0].0, counts[counts.len() - 1].0);
        Scale { low, high }.sparkline(counts)
    }

    #[test]
    fn the_shape_is_drawn_on_a_logarithmic_scale() {
        for (counts, expected) in [
            (
                &[(1.0, 1), (10.0, 4), (100.0, 8)][..],
                "▁         ▄        █",
            ),
            (&[(1.0, 8), (1.01, 1_000_000)], "▁                  █"),
            (&[(5.0, 3)], "          █         "),
            (&[(0.0, 1), (8.0, 8)], "▁                  █"),
            (&[(0.0, 1)], "          █         "),
            (
                &[(1.0, u64::MAX), (2.0, u64::MAX), (4.0, u64::MAX)],
                "█         █        █",
            ),
        ] {
            assert_eq!(drawn(counts), expected, "{counts:?}");
        }
    }

    #[test]
    fn the_heading_shows_the_ends_of_the_scale() {
        let scale = Scale {
            low: 81.3,
            high: 2_287.0,
        };
        assert_eq!(scale.heading(" ms"), "81.3         2287 ms");
        assert_eq!(
            scale.heading(" per second each"),
            "81.3 2287 per second each"
        );
    }

    #[test]
    fn lines_of_one_scale_can_be_compared() {
        let scale = Scale {
            low: 1.0,
            high: 100.0,
        };
        assert_eq!(scale.sparkline(&[(10.0, 1)]), "          █         ");
        assert_eq!(scale.sparkline(&[]), " ".repeat(WIDTH));
    }
}
