//! How many seats a priority level wants, over time: average, deviation and peak of a period (upstream's `integrator`).

use std::time::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    pub average: f64,
    pub deviation: f64,
    pub peak: f64,
}

#[derive(Clone, Debug, Default)]
pub struct Integrator {
    since: Duration,
    last: Duration,
    now: f64,
    sum: f64,
    squares: f64,
    peak: f64,
}

impl Integrator {
    /// The demand is so much from now on.
    pub fn set(&mut self, now: Duration, seats: u64) {
        self.advance(now);
        self.now = seats as f64;
        self.peak = self.peak.max(self.now);
    }

    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.last).as_secs_f64();
        self.sum += self.now * passed;
        self.squares += self.now * self.now * passed;
        self.last = self.last.max(now);
    }

    /// Ends a period and begins the next.
    pub fn reset(&mut self, now: Duration) -> Stats {
        self.advance(now);
        let length = self.last.saturating_sub(self.since).as_secs_f64();
        let stats = if length > 0.0 {
            let average = self.sum / length;
            Stats { average, deviation: (self.squares / length - average * average).max(0.0).sqrt(), peak: self.peak }
        } else {
            Stats { average: self.now, deviation: 0.0, peak: self.peak }
        };
        *self = Self { since: self.last, last: self.last, now: self.now, peak: self.now, sum: 0.0, squares: 0.0 };
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_weighed_by_time() {
        let mut demand = Integrator::default();
        let at = Duration::from_secs;
        demand.set(at(0), 4);
        demand.set(at(1), 0);
        let stats = demand.reset(at(4));
        assert_eq!((stats.average, stats.peak), (1.0, 4.0));
        assert!((stats.deviation - 3.0_f64.sqrt()).abs() < 1e-9);
        assert_eq!(demand.reset(at(5)), Stats::default());
    }
}
