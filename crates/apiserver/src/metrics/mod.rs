//! Counters of the server, under upstream's names. What may be counted is one row of `table`; what every request is counted by has
//! a faster way of its own in `requests`.

pub mod collect;
pub mod requests;
pub mod table;

use std::ops::Deref;
use std::sync::Arc;

pub use requests::{InFlight, LongRunning, RequestLabels, Series};
use telemetry::metrics::Registry;
pub use telemetry::metrics::{Desc, Histogram, Kind, head, label, line, number};

/// Series that every request counts in, found once.
pub struct Hot {
    pub authenticated: Outcome,
    pub unauthenticated: Outcome,
    pub allowed: Outcome,
    pub denied: Outcome,
}

/// How often something came out so, and how long it took.
pub struct Outcome {
    count: Arc<Histogram>,
    duration: Arc<Histogram>,
}

impl Outcome {
    fn new(metrics: &Metrics, count: &'static Desc, duration: &'static Desc, result: &str) -> Self {
        Self { count: metrics.family(count).with(&[result]), duration: metrics.family(duration).with(&[result]) }
    }

    pub fn note(&self, took: std::time::Duration) {
        self.count.add(1.0);
        self.duration.observe(took.as_secs_f64());
    }
}

impl Hot {
    fn new(metrics: &Metrics) -> Self {
        let authentication = |result| Outcome::new(metrics, &table::AUTHENTICATION_ATTEMPTS, &table::AUTHENTICATION_DURATION, result);
        let authorization = |result| Outcome::new(metrics, &table::AUTHORIZATION_ATTEMPTS, &table::AUTHORIZATION_DURATION, result);
        Self {
            authenticated: authentication("success"),
            unauthenticated: authentication("failure"),
            allowed: authorization("allowed"),
            denied: authorization("denied"),
        }
    }
}

pub struct Metrics {
    hot: std::sync::OnceLock<Hot>,
    registry: Registry,
    pub requests: requests::Requests,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { hot: std::sync::OnceLock::new(), registry: Registry::new(&[table::ALL]), requests: requests::Requests::default() }
    }
}

impl Deref for Metrics {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

impl Metrics {
    pub fn hot(&self) -> &Hot {
        self.hot.get_or_init(|| Hot::new(self))
    }

    /// The text exposition format.
    pub fn text(&self) -> String {
        let mut out = self.registry.text();
        self.requests.text(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.count(&table::AUDIT_LEVEL, &["Meta\"data"]);
        metrics.observe(&table::FIELD_VALIDATION_DURATION, &["Strict"], 0.07);
        let text = metrics.text();
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        has("# TYPE apiserver_audit_level_total counter");
        has("apiserver_audit_level_total{level=\"Meta\\\"data\"} 1");
        has("apiserver_audit_event_total 0");
        has("field_validation_request_duration_seconds_bucket{field_validation=\"Strict\",le=\"0.05\"} 0");
        has("field_validation_request_duration_seconds_bucket{field_validation=\"Strict\",le=\"0.1\"} 1");
        has("field_validation_request_duration_seconds_bucket{field_validation=\"Strict\",le=\"+Inf\"} 1");
        has("field_validation_request_duration_seconds_sum{field_validation=\"Strict\"} 0.07");
        assert!(text.contains("\nprocess_resident_memory_bytes "));
        let names: Vec<&str> = table::ALL.iter().map(|d| d.name).collect();
        let distinct: std::collections::BTreeSet<&&str> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "a name stands twice in the table");
    }
}
