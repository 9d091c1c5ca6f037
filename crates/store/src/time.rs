//! The engine's own time, in which leases expire: milliseconds that the engine has been running, over all restarts. Wall
//! clocks play no part. `core` advances it.

use std::sync::Arc;
use std::time::Duration;

/// A monotonic clock with any origin.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// However long the engine was not asked (the host slept, the process was stopped), no more than this passes: a jump of
/// the clock must not expire leases whose owners had no chance to renew them.
const STEP_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EngineTime {
    pub now_ms: u64,
    /// Microseconds that do not yet make a millisecond.
    rest_us: u64,
    last: Option<Duration>,
}

impl EngineTime {
    /// Takes a reading of the clock and answers the engine's time.
    pub(crate) fn advance(&mut self, reading: Duration) -> u64 {
        let passed = self.last.map_or(Duration::ZERO, |last| reading.saturating_sub(last)).min(STEP_MAX);
        self.last = Some(reading);
        let us = self.rest_us + u64::try_from(passed.as_micros()).unwrap_or(0);
        self.now_ms += us / 1000;
        self.rest_us = us % 1000;
        self.now_ms
    }

    /// Continues from what was persisted.
    pub(crate) fn restore(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }
}

/// Tokio's clock, so that paused time works; the standard one outside a runtime.
pub(crate) fn default_clock() -> Clock {
    let start = tokio::time::Instant::now();
    Arc::new(move || tokio::time::Instant::now().saturating_duration_since(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_steps_add_up_and_jumps_do_not_count() {
        let mut time = EngineTime::default();
        time.restore(1000);
        assert_eq!(time.advance(Duration::from_secs(77)), 1000, "the origin means nothing");
        let mut at = Duration::from_secs(77);
        for _ in 0..3000 {
            at += Duration::from_micros(500);
            time.advance(at);
        }
        assert_eq!(time.now_ms, 2500);
        assert_eq!(time.advance(at + Duration::from_secs(86_400)), 7500, "a jump ahead");
        assert_eq!(time.advance(Duration::ZERO), 7500, "a jump back");
    }
}
