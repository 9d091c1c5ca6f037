//! Clock and randomness as values, so that a simulation can own both. Pure crates get only what these return.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Tells the time of day.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system's.
    System,
    /// So much after a fixed moment as tokio's clock, which a test can pause, has moved since `start`, and as it was set
    /// forward or back by.
    Tokio { epoch: Timestamp, start: Instant, skew_ms: Arc<AtomicI64> },
}

impl Clock {
    /// A clock that shows `epoch` now and moves with tokio's time.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self::Tokio { epoch, start: Instant::now(), skew_ms: Arc::default() }
    }

    /// Sets a simulated clock, and all its clones, so many milliseconds from the true time; the system's own is left alone.
    pub fn set_skew_ms(&self, by: i64) {
        if let Self::Tokio { skew_ms, .. } = self {
            skew_ms.store(by, Ordering::Relaxed);
        }
    }

    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Tokio { epoch, start, skew_ms } => {
                let passed = SignedDuration::try_from(start.elapsed()).unwrap_or(SignedDuration::MAX);
                let passed = passed.saturating_add(SignedDuration::from_millis(skew_ms.load(Ordering::Relaxed)));
                epoch.checked_add(passed).unwrap_or(Timestamp::MAX)
            }
        }
    }
}

/// Random numbers (SplitMix64), good for names and jitter, not for secrets. Clones share one sequence.
#[derive(Clone, Debug)]
pub struct Entropy(Arc<AtomicU64>);

impl Entropy {
    /// The same seed gives the same sequence.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// Seeded by the operating system.
    pub fn from_system() -> Self {
        Self::from_seed(RandomState::new().hash_one(0_u64))
    }

    pub fn next_u64(&self) -> u64 {
        mix::scramble(self.0.fetch_add(mix::STEP, Ordering::Relaxed).wrapping_add(mix::STEP))
    }

    /// A number from 0 to `limit - 1`; 0 when the limit is 0.
    pub fn below(&self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.next_u64() % limit }
    }
}

/// Doubling delays with jitter: at least half of the step, at most all of it.
#[derive(Debug)]
pub(crate) struct Backoff {
    entropy: Entropy,
    step_ms: u64,
}

impl Backoff {
    const FIRST_MS: u64 = 100;
    const LAST_MS: u64 = 30_000;

    pub(crate) fn new(entropy: Entropy) -> Self {
        Self { entropy, step_ms: Self::FIRST_MS }
    }

    pub(crate) fn reset(&mut self) {
        self.step_ms = Self::FIRST_MS;
    }

    pub(crate) fn next_delay(&mut self) -> std::time::Duration {
        let step = self.step_ms;
        self.step_ms = (step * 2).min(Self::LAST_MS);
        std::time::Duration::from_millis(step / 2 + self.entropy.below(step / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays() {
        let (a, b) = (Entropy::from_seed(7), Entropy::from_seed(7));
        assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
        assert_ne!(Entropy::from_seed(1).next_u64(), Entropy::from_seed(2).next_u64());
    }

    #[test]
    fn delays_double_up_to_a_limit() {
        let mut backoff = Backoff::new(Entropy::from_seed(1));
        for step in [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000] {
            let delay = backoff.next_delay().as_millis();
            assert!((step / 2..=step).contains(&delay), "{delay} for {step}");
        }
    }
}
