//! Numbers that are the same on every run and every build: SplitMix64 from a seed, FNV-1a from bytes. Neither is for secrets,
//! nor for tables that an attacker can fill. Names, jitter, simulations and what is found again by its hash use them.

/// What SplitMix64's state moves on by.
pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's answer for a state.
pub const fn scramble(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SplitMix64: small, and the same sequence for the same seed.
#[derive(Clone, Debug, Default)]
pub struct Random(pub u64);

impl Random {
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        scramble(self.0)
    }

    /// A number from 0 to `n - 1`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_u64() % n.max(1)
    }

    /// True once in `n`.
    pub fn chance(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// FNV-1a in 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct Fnv64(pub u64);

impl Default for Fnv64 {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv64 {
    pub fn of(bytes: impl IntoIterator<Item = u8>) -> u64 {
        let mut hash = Self::default();
        hash.eat(bytes);
        hash.0
    }

    pub fn eat(&mut self, bytes: impl IntoIterator<Item = u8>) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl std::hash::Hasher for Fnv64 {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.eat(bytes.iter().copied());
    }
}

/// FNV-1a in 32 bits.
#[derive(Clone, Copy, Debug)]
pub struct Fnv32(pub u32);

impl Default for Fnv32 {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv32 {
    pub fn of(bytes: impl IntoIterator<Item = u8>) -> u32 {
        let mut hash = Self::default();
        hash.eat(bytes);
        hash.0
    }

    pub fn eat(&mut self, bytes: impl IntoIterator<Item = u8>) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_splitmix64s() {
        // The reference implementation's for the seed 1234567.
        let mut random = Random(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        let mut bytes = [0; 11];
        Random(1_234_567).fill(&mut bytes);
        assert_eq!(bytes[..8], first[0].to_le_bytes());
        assert_eq!(bytes[8..], first[1].to_le_bytes()[..3]);
        assert_eq!(Random(0).below(0), 0);
    }

    #[test]
    fn hashes_are_fnv_1as() {
        assert_eq!(Fnv64::of(*b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Fnv64::of(*b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(Fnv32::of(*b"foobar"), 0xbf9c_f968);
    }
}
