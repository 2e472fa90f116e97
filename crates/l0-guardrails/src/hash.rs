//! Hashes that identify texts which are not kept. Collisions are harmless, so nothing is gained by an
//! attack.

/// An odd number without a pattern: the bits of the golden ratio.
pub(crate) const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// FNV-1a over any symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fnv(pub(crate) u64);

impl Fnv {
    pub(crate) const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    #[inline]
    pub(crate) fn push(&mut self, symbol: u64) {
        self.0 = (self.0 ^ symbol).wrapping_mul(0x0100_0000_01b3);
    }
}

impl Default for Fnv {
    fn default() -> Self {
        Self::EMPTY
    }
}
