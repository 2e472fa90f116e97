//! Cells: values for many narrow ranges of numbers.

/// The number of leading bits that are kept of a number's fraction. Each octave has 512 cells, so the middle of
/// a cell is within 1/1024 of all its numbers. Reports show three digits.
const KEPT_BITS: u32 = 9;
const PER_OCTAVE: usize = 1 << KEPT_BITS;
const DROPPED_BITS: u32 = f64::MANTISSA_DIGITS - 1 - KEPT_BITS;
/// Smaller numbers count as zero: 2^-30, about 1e-9.
const LOWEST: f64 = 1.0 / (1 << 30) as f64;
/// Larger numbers count as this: 2^40, about 1e12.
pub(crate) const HIGHEST: f64 = (1_u64 << 40) as f64;
/// The number of the cell that begins at [`LOWEST`]. The number of a cell is the leading bits of its numbers,
/// whose order is that of the non-negative numbers.
const FIRST: u64 = LOWEST.to_bits() >> DROPPED_BITS;

/// A range of numbers, at most 0.2 % wide, except the first and last few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell(usize);

impl Cell {
    /// Returns the cell of a non-negative number. `None` if the number counts as zero.
    pub(crate) fn of(number: f64) -> Option<Self> {
        let bits = number.min(HIGHEST).to_bits() >> DROPPED_BITS;
        (number >= LOWEST).then(|| Self((bits - FIRST) as usize))
    }

    /// Returns the cell of the smallest numbers that do not count as zero.
    pub(crate) const fn first() -> Self {
        Self(0)
    }

    /// Returns its lower bound.
    pub(crate) fn low(self) -> f64 {
        f64::from_bits((FIRST + self.0 as u64) << DROPPED_BITS)
    }

    /// Returns its upper bound, which is the lower bound of the next cell.
    pub(crate) fn high(self) -> f64 {
        Self(self.0 + 1).low()
    }

    pub(crate) fn middle(self) -> f64 {
        f64::from_bits(self.low().to_bits() | 1 << (DROPPED_BITS - 1))
    }
}

/// The values of all cells, in pages of an octave: most quantities occupy few octaves.
#[derive(Debug, Clone)]
pub(crate) struct Cells<C> {
    pages: Vec<Option<Box<[C; PER_OCTAVE]>>>,
}

impl<C: Copy + Default> Cells<C> {
    pub(crate) const fn new() -> Self {
        Self { pages: Vec::new() }
    }

    pub(crate) fn at(&mut self, cell: Cell) -> &mut C {
        let octave = cell.0 / PER_OCTAVE;
        if self.pages.len() <= octave {
            self.pages.resize_with(octave + 1, || None);
        }
        let page = &mut self.pages[octave];
        let page = page.get_or_insert_with(|| Box::new([C::default(); PER_OCTAVE]));
        &mut page[cell.0 % PER_OCTAVE]
    }

    /// Iterates over the cells of all pages, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Cell, &C)> {
        let pages = self.pages.iter().enumerate();
        pages.flat_map(|(octave, page)| {
            let page = page.iter().flat_map(|page| page.iter()).enumerate();
            page.map(move |(index, known)| (Cell(octave * PER_OCTAVE + index), known))
        })
    }
}

impl<C: Copy + Default> Default for Cells<C> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(number: f64) -> f64 {
        Cell::of(number).map_or(0.0, Cell::middle)
    }

    #[test]
    fn a_cell_has_the_documented_width() {
        let mut number = 1e-9;
        while number < 1e12 {
            let error = (rounded(number) - number).abs() / number;
            assert!(error <= 0.001, "{number}: {error}");
            let cell = Cell::of(number).expect("not zero");
            assert!((cell.low()..cell.high()).contains(&number), "{number}");
            number *= 1.000_37;
        }
        for number in [0.0, -0.0, 1e-10] {
            assert_eq!(Cell::of(number), None, "{number}");
        }
        assert_eq!(Cell::of(1e300), Cell::of(HIGHEST));
        assert_eq!(Cell::of(LOWEST), Some(Cell::first()));
    }

    #[test]
    fn memory_is_bounded() {
        let mut cells = Cells::<u64>::new();
        let mut number = 1e-10;
        while number < 1e15 {
            if let Some(cell) = Cell::of(number) {
                *cells.at(cell) += 1;
            }
            number *= 1.000_5;
        }
        // 70 octaves, and the cell of the highest number.
        let full = cells.iter().filter(|(_, count)| **count > 0);
        assert_eq!(full.count(), 70 * PER_OCTAVE + 1);
    }
}
