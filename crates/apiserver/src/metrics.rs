//! Counters of the server and their Prometheus text, under upstream's names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// verb, group, version, resource, subresource
pub type Labels = (String, String, String, String, String);

const BUCKETS_SECONDS: [f64; 12] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0, 60.0];

#[derive(Default)]
struct Series {
    codes: BTreeMap<u16, u64>,
    buckets: [u64; BUCKETS_SECONDS.len()],
    count: u64,
    sum_seconds: f64,
}

#[derive(Default)]
pub struct Metrics {
    series: Mutex<BTreeMap<Labels, Series>>,
    pub requests_in_flight: AtomicUsize,
    pub long_running: AtomicUsize,
}

/// Counts a request as long as it lives.
pub struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub fn in_flight(&self, long: bool) -> InFlight<'_> {
        let gauge = if long { &self.long_running } else { &self.requests_in_flight };
        gauge.fetch_add(1, Ordering::Relaxed);
        InFlight(gauge)
    }

    pub fn request(&self, labels: &Labels, code: u16, took: Duration) {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        // Unknown resources must not grow the table without bound.
        if all.len() > 10_000 && !all.contains_key(labels) {
            return;
        }
        let series = all.entry(labels.clone()).or_default();
        *series.codes.entry(code).or_default() += 1;
        let seconds = took.as_secs_f64();
        series.count += 1;
        series.sum_seconds += seconds;
        for (bucket, bound) in series.buckets.iter_mut().zip(BUCKETS_SECONDS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    /// The text exposition format.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        out.push_str("# HELP apiserver_request_total Requests by verb, resource and code.\n# TYPE apiserver_request_total counter\n");
        for (labels, series) in all.iter() {
            for (code, count) in &series.codes {
                line(&mut out, "apiserver_request_total", labels, &format!(",code=\"{code}\""), &count.to_string());
            }
        }
        out.push_str("# HELP apiserver_request_duration_seconds Time to answer.\n# TYPE apiserver_request_duration_seconds histogram\n");
        for (labels, series) in all.iter() {
            for (count, bound) in series.buckets.iter().zip(BUCKETS_SECONDS) {
                line(&mut out, "apiserver_request_duration_seconds_bucket", labels, &format!(",le=\"{bound}\""), &count.to_string());
            }
            line(&mut out, "apiserver_request_duration_seconds_bucket", labels, ",le=\"+Inf\"", &series.count.to_string());
            line(&mut out, "apiserver_request_duration_seconds_sum", labels, "", &series.sum_seconds.to_string());
            line(&mut out, "apiserver_request_duration_seconds_count", labels, "", &series.count.to_string());
        }
        let gauges =
            [("apiserver_current_inflight_requests", &self.requests_in_flight), ("apiserver_longrunning_requests", &self.long_running)];
        for (name, gauge) in gauges {
            // Writing into a String cannot fail.
            if writeln!(out, "# TYPE {name} gauge\n{name} {}", gauge.load(Ordering::Relaxed)).is_err() {
                break;
            }
        }
        out
    }
}

fn line(out: &mut String, name: &str, labels: &Labels, more: &str, value: &str) {
    let (verb, group, version, resource, subresource) = labels;
    let verb = verb.to_ascii_uppercase();
    out.push_str(&format!(
        "{name}{{verb={verb:?},group={group:?},version={version:?},resource={resource:?},subresource={subresource:?},component=\"apiserver\"{more}}} {value}\n"
    ));
}
