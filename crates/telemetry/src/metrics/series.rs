//! One series: a counter, a gauge, or a histogram's buckets. All atomic: counting takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{line, number};

/// A counter or gauge has no buckets, and its value is the sum.
pub struct Histogram {
    bounds: &'static [f64],
    /// Each of its own, not cumulative; the last is for what lies above all bounds.
    counts: Box<[AtomicU64]>,
    /// Bits of an f64.
    sum: AtomicU64,
}

impl Histogram {
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = if bounds.is_empty() { 0 } else { bounds.len() + 1 };
        Self { bounds, counts: (0..counts).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    pub fn value(&self) -> f64 {
        f64::from_bits(self.sum.load(Ordering::Relaxed))
    }

    pub fn set(&self, to: f64) {
        self.sum.store(to.to_bits(), Ordering::Relaxed);
    }

    pub fn add(&self, more: f64) {
        let mut seen = self.sum.load(Ordering::Relaxed);
        loop {
            let next = (f64::from_bits(seen) + more).to_bits();
            match self.sum.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    pub fn observe(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.add(value);
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }

    /// The samples of a histogram.
    pub fn text(&self, out: &mut String, name: &str, labels: &str) {
        let mut total = 0;
        for (count, bound) in self.counts.iter().zip(self.bounds) {
            total += count.load(Ordering::Relaxed);
            line(out, name, "_bucket", labels, &format!("le=\"{}\"", number(*bound)), &total.to_string());
        }
        total += self.counts.last().map_or(0, |c| c.load(Ordering::Relaxed));
        line(out, name, "_bucket", labels, "le=\"+Inf\"", &total.to_string());
        line(out, name, "_sum", labels, "", &number(self.value()));
        line(out, name, "_count", labels, "", &total.to_string());
    }
}
