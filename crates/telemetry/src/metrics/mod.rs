//! Counters and their Prometheus text, under upstream's names. A component has a table of what it counts ([`metrics_table!`]),
//! and one [`Registry`] of the series there are. Called by every component; nothing is sent anywhere: who wants to know asks.

mod process;
mod series;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, PoisonError, RwLock};

pub use series::Histogram;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub struct Desc {
    pub name: &'static str,
    pub help: &'static str,
    pub stability: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    /// Upper bounds, without the infinite one; none but for histograms.
    pub buckets: &'static [f64],
}

/// A static for each row, and `ALL` of them:
/// `NAME Kind STABILITY "name" ["label"...] [bound...] "help"`.
#[macro_export]
macro_rules! metrics_table {
    ($($id:ident $kind:ident $stability:ident $name:literal [$($label:literal)*] [$($bucket:literal)*] $help:literal)*) => {
        $(pub static $id: $crate::metrics::Desc = $crate::metrics::Desc {
            name: $name,
            help: $help,
            stability: stringify!($stability),
            kind: $crate::metrics::Kind::$kind,
            labels: &[$($label),*],
            buckets: &[$($bucket),*],
        };)*
        pub static ALL: &[&$crate::metrics::Desc] = &[$(&$id),*];
    };
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

/// What a component has counted.
#[derive(Default)]
pub struct Registry {
    families: RwLock<BTreeMap<&'static str, Arc<Family>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    /// Knows these metrics from the start; those without labels are told although they are still 0.
    pub fn new(tables: &[&[&'static Desc]]) -> Self {
        let registry = Self::default();
        for desc in tables.iter().copied().flatten() {
            let family = registry.family(desc);
            if desc.labels.is_empty() {
                drop(family.with(&[]));
            }
        }
        registry
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

    /// The text exposition format, and what the kernel knows of the process.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(64 * 1024);
        let families: Vec<Arc<Family>> = self.families.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for family in families {
            family.text(&mut out);
        }
        process::text(&mut out);
        out
    }
}

/// The lines before a family's series.
pub fn head(out: &mut String, desc: &Desc) {
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

/// Adds a label to a list of labels.
pub fn label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    put(out, format_args!("{name}=\"{value}\""));
}

/// One sample: `more` are labels of its own.
pub fn line(out: &mut String, name: &str, suffix: &str, labels: &str, more: &str, value: &str) {
    match (labels.is_empty(), more.is_empty()) {
        (true, true) => put(out, format_args!("{name}{suffix} {value}\n")),
        (false, false) => put(out, format_args!("{name}{suffix}{{{labels},{more}}} {value}\n")),
        _ => put(out, format_args!("{name}{suffix}{{{labels}{more}}} {value}\n")),
    }
}

/// As Go prints a float64 with `%g`, so that bounds have the same names.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        }
        .to_owned();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if value != 0.0 && !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    metrics_table! {
        PIECES Counter ALPHA "pieces_total" ["kind"] [] "Pieces."
        PLAIN Counter ALPHA "plain_total" [] [] "Plain."
        TIME Histogram STABLE "time_seconds" ["of"] [0.00001 0.1 1000000.0] "Time."
    }

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let registry = Registry::new(&[ALL]);
        registry.count(&PIECES, &["a\"b"]);
        registry.observe(&TIME, &["x"], 0.07);
        let text = registry.text();
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        has("# HELP pieces_total [ALPHA] Pieces.");
        has("pieces_total{kind=\"a\\\"b\"} 1");
        has("plain_total 0");
        has("time_seconds_bucket{of=\"x\",le=\"1e-05\"} 0");
        has("time_seconds_bucket{of=\"x\",le=\"1e+06\"} 1");
        has("time_seconds_sum{of=\"x\"} 0.07");
        assert!(text.contains("\nprocess_resident_memory_bytes "));
    }

    #[test]
    fn numbers_are_gos() {
        for (value, text) in [
            (0.0, "0"),
            (12.5, "12.5"),
            (1e6, "1e+06"),
            (123_456.0, "123456"),
            (1.048_576e6, "1.048576e+06"),
            (9.999_999_999_999_999e-6, "9.999999999999999e-06"),
            (0.0001, "0.0001"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
