//! How the server's seats are shared out: each level's nominal limit by its shares, and, period by period, its current limit
//! by what it and the others wanted (upstream's `computeConcurrencyAllocation` and `updateBorrowing`).

use crate::demand::Stats;
use crate::level::PriorityLevel;

/// How long a peak of demand is remembered: what is left of it after each period.
const SMOOTHING: f64 = 0.977;

/// A level's fixed limits, in seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub nominal: u32,
    /// What must be left to it.
    pub least: u32,
    /// What it may have with what others lend.
    pub most: u32,
}

/// The limits of all levels, in their order.
pub fn limits(server: u32, levels: &[&PriorityLevel]) -> Vec<Limits> {
    let shares: u64 = levels.iter().map(|l| u64::from(l.shares)).sum();
    let limit = |level: &&PriorityLevel| {
        let nominal = if shares == 0 { 0.0 } else { (f64::from(server) * f64::from(level.shares) / shares as f64).ceil() };
        let lendable = (nominal * f64::from(level.lendable_percent) / 100.0).round();
        let most = match level.borrowing_limit_percent {
            Some(percent) if !level.exempt => nominal + (nominal * f64::from(percent) / 100.0).round(),
            _ => nominal + f64::from(server),
        };
        Limits { nominal: whole(nominal), least: whole(nominal - lendable), most: whole(most) }
    };
    levels.iter().map(limit).collect()
}

fn whole(seats: f64) -> u32 {
    // Saturates.
    seats.max(0.0) as u32
}

/// What one level brings to the sharing out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    pub limits: Limits,
    /// The demand, smoothed over periods.
    pub smoothed: f64,
    /// The peak of the last period.
    pub peak: f64,
}

/// The smoothed demand after a period.
pub fn smooth(before: f64, period: Stats) -> f64 {
    let envelope = period.average + period.deviation;
    envelope.max(SMOOTHING * before + (1.0 - SMOOTHING) * envelope)
}

impl Claim {
    fn least(&self) -> f64 {
        f64::from(self.limits.least).max(f64::from(self.limits.nominal).min(self.peak))
    }

    /// What it should have if there were enough.
    pub fn target(&self) -> f64 {
        self.least().max(self.smoothed)
    }

    fn at(&self, fair: f64) -> f64 {
        (fair * self.target()).max(self.least()).min(f64::from(self.limits.most))
    }
}

/// Each claim's current limit, and the proportion of its target each gets that is at neither bound. The sum is the nominal
/// limits' where the bounds allow it.
pub fn allocate(claims: &[Claim]) -> (Vec<u32>, f64) {
    let total: f64 = claims.iter().map(|c| f64::from(c.limits.nominal)).sum();
    let least: f64 = claims.iter().map(Claim::least).sum();
    let sum = |fair: f64| claims.iter().map(|c| c.at(fair)).sum::<f64>();
    if least >= total {
        // Nothing is left to share: everybody wants at least what is theirs.
        let scale = if least > 0.0 { total / least } else { 1.0 };
        let cut = |c: &Claim| whole((c.least() * scale).round());
        return (claims.iter().map(cut).collect(), 1.0);
    }
    // The sum grows with the proportion, so halving finds it.
    let (mut low, mut high) = (0.0, 1.0);
    while sum(high) < total && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if sum(middle) < total { low = middle } else { high = middle }
    }
    (claims.iter().map(|c| whole(c.at(high).round())).collect(), high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults;

    #[test]
    fn nominal_limits_are_upstreams_for_600_seats() {
        let levels: Vec<PriorityLevel> = defaults::priority_levels().iter().filter_map(PriorityLevel::parse).collect();
        let limits = limits(600, &levels.iter().collect::<Vec<_>>());
        let of = |name: &str| limits[levels.iter().position(|l| l.name == name).unwrap()];
        // As a fresh upstream server reports them.
        let nominal = ["exempt", "catch-all", "system", "node-high", "leader-election", "workload-high", "workload-low", "global-default"];
        assert_eq!(nominal.map(|n| of(n).nominal), [0, 13, 74, 98, 25, 98, 245, 49]);
        assert_eq!((of("workload-low").least, of("global-default").least), (24, 24));
        assert_eq!(of("catch-all").most, 613);
    }

    #[test]
    fn idle_levels_lend_and_busy_ones_borrow() {
        let claim = |nominal, least, most, wanted: f64| Claim { limits: Limits { nominal, least, most }, smoothed: wanted, peak: wanted };
        let (seats, _) = allocate(&[claim(100, 10, 300, 500.0), claim(100, 10, 300, 0.0), claim(100, 100, 100, 0.0)]);
        assert_eq!(seats, [190, 10, 100], "the second lends all but ten");
        let (seats, _) = allocate(&[claim(100, 10, 120, 500.0), claim(100, 10, 300, 0.0)]);
        assert_eq!(seats[0], 120, "a borrowing limit holds");
        let (seats, _) = allocate(&[claim(100, 10, 300, 500.0), claim(100, 10, 300, 400.0)]);
        assert_eq!(seats, [100, 100], "who needs what is theirs keeps it");
        assert_eq!(allocate(&[]).0, Vec::<u32>::new());
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let busy = Stats { average: 10.0, deviation: 2.0, peak: 20.0 };
        assert_eq!(smooth(0.0, busy), 12.0);
        let after = smooth(12.0, Stats::default());
        assert!(after > 11.0 && after < 12.0);
    }
}
