//! Counters of the server and their Prometheus text, under upstream's names. What may be counted is one row of `table`; what
//! every request is counted by has a faster way of its own in `requests`.

pub mod collect;
mod process;
pub mod requests;
mod series;
pub mod table;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, PoisonError, RwLock};

pub use requests::{RequestLabels, Series};
pub use series::Histogram;
pub use table::{Desc, Kind};

/// Label sets beyond this are not kept: nothing a client sends may grow a table without bound.
const SERIES_MAX: usize = 20_000;

type Values = Box<[Box<str>]>;

/// The label sets of one metric.
pub struct Family {
    desc: &'static Desc,
    series: RwLock<BTreeMap<Values, Arc<Histogram>>>,
    /// The same by the hash of their values: who counts need not make a key of them first.
    hashed: RwLock<HashMap<u64, (Values, Arc<Histogram>)>>,
}

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
    families: RwLock<BTreeMap<&'static str, Arc<Family>>>,
    pub requests: requests::Requests,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self { hot: std::sync::OnceLock::new(), families: RwLock::default(), requests: requests::Requests::default() };
        for desc in table::ALL {
            let family = metrics.family(desc);
            if desc.labels.is_empty() {
                drop(family.with(&[]));
            }
        }
        metrics
    }
}

impl Family {
    /// The series of these label values, made when missing. Whoever counts often keeps it.
    pub fn with(&self, values: &[&str]) -> Arc<Histogram> {
        debug_assert_eq!(values.len(), self.desc.labels.len(), "{}", self.desc.name);
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(values);
        if let Some((of, found)) = self.hashed.read().unwrap_or_else(PoisonError::into_inner).get(&hash)
            && of.iter().map(|v| &**v).eq(values.iter().copied())
        {
            return found.clone();
        }
        let key: Values = values.iter().map(|v| Box::from(*v)).collect();
        let found = self.made(key.clone());
        let mut hashed = self.hashed.write().unwrap_or_else(PoisonError::into_inner);
        if hashed.len() < SERIES_MAX {
            hashed.insert(hash, (key, found.clone()));
        }
        found
    }

    fn made(&self, key: Values) -> Arc<Histogram> {
        if let Some(found) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return found.clone();
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Histogram::new(self.desc.buckets));
        if all.len() >= SERIES_MAX && !all.contains_key(&key) {
            return fresh();
        }
        all.entry(key).or_insert_with(fresh).clone()
    }

    fn text(&self, out: &mut String) {
        let all = self.series.read().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            return;
        }
        head(out, self.desc);
        for (values, series) in all.iter() {
            let mut labels = String::new();
            for (name, value) in self.desc.labels.iter().zip(values.iter()) {
                label(&mut labels, name, value);
            }
            match self.desc.kind {
                Kind::Histogram => series.text(out, self.desc.name, &labels),
                Kind::Counter | Kind::Gauge => line(out, self.desc.name, "", &labels, "", &number(series.value())),
            }
        }
    }
}

impl Metrics {
    pub fn hot(&self) -> &Hot {
        self.hot.get_or_init(|| Hot::new(self))
    }

    pub fn family(&self, desc: &'static Desc) -> Arc<Family> {
        if let Some(found) = self.families.read().unwrap_or_else(PoisonError::into_inner).get(desc.name) {
            return found.clone();
        }
        let mut all = self.families.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(desc.name).or_insert_with(|| Arc::new(Family { desc, series: RwLock::default(), hashed: RwLock::default() })).clone()
    }

    /// Counts one more.
    pub fn count(&self, desc: &'static Desc, values: &[&str]) {
        self.family(desc).with(values).add(1.0);
    }

    pub fn add(&self, desc: &'static Desc, values: &[&str], more: f64) {
        self.family(desc).with(values).add(more);
    }

    /// Sets a gauge.
    pub fn set(&self, desc: &'static Desc, values: &[&str], to: f64) {
        self.family(desc).with(values).set(to);
    }

    /// Puts an observation into a histogram.
    pub fn observe(&self, desc: &'static Desc, values: &[&str], seen: f64) {
        self.family(desc).with(values).observe(seen);
    }

    /// Some families alone.
    pub fn text_of(&self, wanted: &[&'static Desc]) -> String {
        let mut out = String::new();
        for desc in wanted {
            self.family(desc).text(&mut out);
        }
        process::start_time(&mut out);
        out
    }

    /// The text exposition format.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(64 * 1024);
        let families: Vec<Arc<Family>> = self.families.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for family in families {
            family.text(&mut out);
        }
        self.requests.text(&mut out);
        process::text(&mut out);
        out
    }
}

pub(crate) fn head(out: &mut String, desc: &Desc) {
    let kind = match desc.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    put(out, format_args!("# HELP {} [{}] {}\n# TYPE {} {kind}\n", desc.name, desc.stability, desc.help, desc.name));
}

/// Writing into a String cannot fail.
fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    if out.write_fmt(what).is_err() {
        tracing::error!("a metric could not be written");
    }
}

pub(crate) fn label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    put(out, format_args!("{name}=\"{value}\""));
}

fn line(out: &mut String, name: &str, suffix: &str, labels: &str, more: &str, value: &str) {
    match (labels.is_empty(), more.is_empty()) {
        (true, true) => put(out, format_args!("{name}{suffix} {value}\n")),
        (false, false) => put(out, format_args!("{name}{suffix}{{{labels},{more}}} {value}\n")),
        _ => put(out, format_args!("{name}{suffix}{{{labels}{more}}} {value}\n")),
    }
}

/// As Go prints a float64 in `%g`, near enough for every reader of the format.
fn number(value: f64) -> String {
    if value != 0.0 && (value.abs() >= 1e21 || value.abs() < 1e-6) { format!("{value:e}") } else { format!("{value}") }
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
