//! The table, and latencies.

use std::time::Duration;

/// One measurement.
pub struct Row {
    pub server: String,
    pub operation: String,
    pub concurrency: usize,
    pub seconds: f64,
    pub latencies: Latencies,
    /// Things done, where that is not the number of latencies.
    pub count: Option<u64>,
    pub failures: u64,
    pub server_cpu: Option<Duration>,
    pub server_peak_bytes: Option<u64>,
}

impl Row {
    pub fn new(server: &str, operation: &str, concurrency: usize) -> Self {
        Row {
            server: server.to_owned(),
            operation: operation.to_owned(),
            concurrency,
            seconds: 0.0,
            latencies: Latencies::default(),
            count: None,
            failures: 0,
            server_cpu: None,
            server_peak_bytes: None,
        }
    }

    pub fn done(&self) -> u64 {
        self.count.unwrap_or(self.latencies.0.len() as u64)
    }

    pub fn per_second(&self) -> f64 {
        self.done() as f64 / self.seconds.max(1e-9)
    }

    /// Of the server, in microseconds.
    pub fn cpu_per_operation(&self) -> f64 {
        self.server_cpu.map_or(0.0, |c| c.as_secs_f64() * 1e6 / self.done().max(1) as f64)
    }
}

#[derive(Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    pub fn add(&mut self, latency: Duration) {
        self.0.push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn merge(&mut self, other: Latencies) {
        self.0.extend(other.0);
    }

    /// For [`Latencies::at`].
    pub fn sort(&mut self) {
        self.0.sort_unstable();
    }

    /// The latency that a part (0 to 1) of all stay below.
    pub fn at(&self, part: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let index = (part * last as f64).round() as usize;
        Duration::from_nanos(self.0.get(index.min(last)).copied().unwrap_or(0))
    }
}

pub fn head() {
    println!(
        "{:<34} {:<7} {:>5} {:>10} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>7}",
        "operation", "server", "conc", "ops/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "cpu us/op", "peak MiB", "failed"
    );
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub fn print(mut row: Row) {
    row.latencies.sort();
    let ms = |part| format!("{:.3}", row.latencies.at(part).as_secs_f64() * 1e3);
    let cpu = row.server_cpu.map_or("-".into(), |_| format!("{:.1}", row.cpu_per_operation()));
    let peak = row.server_peak_bytes.map_or("-".into(), |b| format!("{:.1}", mib(b)));
    println!(
        "{:<34} {:<7} {:>5} {:>10.0} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>7}",
        row.operation,
        row.server,
        row.concurrency,
        row.per_second(),
        ms(0.5),
        ms(0.9),
        ms(0.99),
        ms(1.0),
        cpu,
        peak,
        row.failures
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let mut latencies = Latencies::default();
        (1..=101).for_each(|n| latencies.add(Duration::from_micros(n)));
        assert_eq!([0.0, 0.5, 0.9, 1.0].map(|p| latencies.at(p).as_micros()), [1, 51, 91, 101]);
        assert_eq!(Latencies::default().at(0.5), Duration::ZERO);
    }
}
