//! A hash that is the same on every run and every build, for names that must be found again.

/// FNV-1a, 64 bits, folded by a final mix so that every bit depends on every byte.
pub fn hash(text: &str) -> u64 {
    let mut h = mix::Fnv64::of(text.bytes());
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^ (h >> 33)
}
