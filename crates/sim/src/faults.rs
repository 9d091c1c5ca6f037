//! Whether a fault strikes now: the profile, the faults' own randomness, and a switch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::Entropy;

use crate::journal::Journal;
use crate::profile::Profile;

/// Shared by all parts of a simulation.
#[derive(Clone)]
pub(crate) struct Faults {
    pub profile: Arc<Profile>,
    pub entropy: Entropy,
    on: Arc<AtomicBool>,
    /// Held back for a moment, whether they are on or not.
    held: Arc<AtomicBool>,
    journal: Journal,
}

impl Faults {
    pub fn new(profile: Profile, seed: u64, journal: Journal) -> Self {
        Self { profile: Arc::new(profile), entropy: Entropy::from_seed(seed ^ 0xfa17), on: Arc::default(), held: Arc::default(), journal }
    }

    pub fn turn(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Holds all faults back, or no longer does. Beside [`Faults::turn`]: trouble may end in between, and must not begin anew.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    pub fn are_on(&self) -> bool {
        self.on.load(Ordering::Relaxed) && !self.held.load(Ordering::Relaxed)
    }

    /// True in `per_mille` of the cases, and only while faults are on; then it is counted.
    pub fn strikes(&self, kind: &'static str, per_mille: u64) -> bool {
        let strikes = self.are_on() && per_mille > 0 && self.entropy.below(1000) < per_mille;
        if strikes {
            self.journal.small_fault(kind);
        }
        strikes
    }

    /// A random time up to a limit, and none while faults are off.
    pub async fn lag(&self, kind: &'static str, limit_ms: u64) {
        if self.are_on() && limit_ms > 0 {
            self.journal.small_fault(kind);
            tokio::time::sleep(Duration::from_millis(self.entropy.below(limit_ms))).await;
        }
    }
}
