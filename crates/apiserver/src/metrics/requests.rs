//! What every request is counted by: `apiserver_request_*` and the requests in flight. A series is found by a hash of its
//! labels without making a text, because this is on the way of every request. Only what this server serves is counted, so
//! that nothing a client sends makes a series.

use std::collections::HashMap;
use std::hash::{Hash as _, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mix::Fnv64;

use super::{Desc, Histogram, Kind, head, label};

const DURATIONS: &[f64] =
    &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const SLI_DURATIONS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const SIZES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

static TOTAL: Desc = stable("apiserver_request_total", "Requests by what was asked and the code of the answer.", Kind::Counter, &[]);
static DURATION: Desc = stable("apiserver_request_duration_seconds", "Time to answer.", Kind::Histogram, DURATIONS);
static SLI: Desc =
    stable("apiserver_request_sli_duration_seconds", "Time to answer, without webhooks and queues.", Kind::Histogram, SLI_DURATIONS);
static SIZE: Desc = stable("apiserver_response_sizes", "Size of answers.", Kind::Histogram, SIZES);
static INFLIGHT: Desc = stable("apiserver_current_inflight_requests", "Requests in flight.", Kind::Gauge, &[]);
static LONG: Desc = stable("apiserver_longrunning_requests", "Watches, logs, proxied requests and streams.", Kind::Gauge, &[]);

const fn stable(name: &'static str, help: &'static str, kind: Kind, buckets: &'static [f64]) -> Desc {
    Desc { name, help, stability: "STABLE", kind, labels: &[], buckets }
}

/// How upstream labels a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestLabels<'a> {
    /// In capitals: `GET`, `LIST`, `WATCH`, `APPLY`, `CONNECT`.
    pub verb: &'static str,
    /// `resource`, `namespace`, `cluster` or nothing.
    pub scope: &'static str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub dry_run: bool,
}

/// One histogram of a series.
type Of = fn(&Series) -> &Histogram;

/// One set of labels.
pub struct Series {
    text: String,
    dry_run: bool,
    codes: RwLock<Vec<(u16, Arc<Histogram>)>>,
    duration: Histogram,
    sli: Histogram,
    size: Histogram,
    long_running: AtomicUsize,
}

#[derive(Default)]
pub struct Requests {
    series: RwLock<HashMap<u64, Arc<Series>>>,
    pub reads: AtomicUsize,
    pub writes: AtomicUsize,
}

/// Counts a request as long as it lives.
pub struct InFlight<'a>(&'a AtomicUsize);

impl Requests {
    pub fn series(&self, labels: &RequestLabels<'_>) -> Arc<Series> {
        // Short texts, and no attacker in labels of served resources.
        let mut hasher = Fnv64::default();
        labels.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(found) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&hash) {
            return found.clone();
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(hash).or_insert_with(|| Arc::new(Series::new(labels))).clone()
    }

    /// All but long-running ones.
    pub fn in_flight(&self) -> usize {
        self.reads.load(Ordering::Relaxed) + self.writes.load(Ordering::Relaxed)
    }

    pub(super) fn text(&self, out: &mut String) {
        let mut all: Vec<Arc<Series>> = self.series.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by(|a, b| a.text.cmp(&b.text));
        head(out, &TOTAL);
        for series in &all {
            for (code, count) in series.codes.read().unwrap_or_else(PoisonError::into_inner).iter() {
                let dry = if series.dry_run { "All" } else { "" };
                let more = format!("code=\"{code}\",dry_run=\"{dry}\"");
                super::line(out, TOTAL.name, "", &series.text, &more, &super::number(count.value()));
            }
        }
        let histograms: [(&Desc, Of); 3] = [(&DURATION, |s| &s.duration), (&SLI, |s| &s.sli), (&SIZE, |s| &s.size)];
        for (desc, of) in histograms {
            head(out, desc);
            for series in all.iter().filter(|s| of(s).count() > 0) {
                of(series).text(out, desc.name, &series.text);
            }
        }
        head(out, &LONG);
        for series in &all {
            let now = series.long_running.load(Ordering::Relaxed);
            if now > 0 {
                super::line(out, LONG.name, "", &series.text, "", &now.to_string());
            }
        }
        head(out, &INFLIGHT);
        for (kind, count) in [("mutating", &self.writes), ("readOnly", &self.reads)] {
            super::line(out, INFLIGHT.name, "", &format!("request_kind=\"{kind}\""), "", &count.load(Ordering::Relaxed).to_string());
        }
    }

    /// How many requests of a kind are in flight with this one, and what counts it until dropped.
    pub fn begin(&self, write: bool) -> (usize, InFlight<'_>) {
        let gauge = if write { &self.writes } else { &self.reads };
        (gauge.fetch_add(1, Ordering::Relaxed) + 1, InFlight(gauge))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A long-running request, counted until dropped.
pub struct LongRunning(Arc<Series>);

impl Drop for LongRunning {
    fn drop(&mut self) {
        self.0.long_running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Series {
    fn new(labels: &RequestLabels<'_>) -> Self {
        let mut text = String::new();
        for (name, value) in [
            ("component", "apiserver"),
            ("group", labels.group),
            ("resource", labels.resource),
            ("scope", labels.scope),
            ("subresource", labels.subresource),
            ("verb", labels.verb),
            ("version", labels.version),
        ] {
            label(&mut text, name, value);
        }
        Self {
            text,
            dry_run: labels.dry_run,
            codes: RwLock::default(),
            duration: Histogram::new(DURATIONS),
            sli: Histogram::new(SLI_DURATIONS),
            size: Histogram::new(SIZES),
            long_running: AtomicUsize::new(0),
        }
    }

    /// A request was answered. `waited`: the part of `took` that others are to answer for.
    pub fn answered(&self, code: u16, took: Duration, waited: Duration, bytes: Option<u64>) {
        let known = |codes: &Vec<(u16, Arc<Histogram>)>| codes.iter().find(|(c, _)| *c == code).map(|(_, count)| count.clone());
        let found = known(&self.codes.read().unwrap_or_else(PoisonError::into_inner));
        let count = found.unwrap_or_else(|| {
            let mut codes = self.codes.write().unwrap_or_else(PoisonError::into_inner);
            known(&codes).unwrap_or_else(|| {
                let fresh = Arc::new(Histogram::new(&[]));
                codes.push((code, fresh.clone()));
                codes.sort_by_key(|(code, _)| *code);
                fresh
            })
        });
        count.add(1.0);
        self.duration.observe(took.as_secs_f64());
        self.sli.observe(took.saturating_sub(waited).as_secs_f64());
        if let Some(bytes) = bytes {
            self.size.observe(bytes as f64);
        }
    }

    pub fn long_running(self: &Arc<Self>) -> LongRunning {
        self.long_running.fetch_add(1, Ordering::Relaxed);
        LongRunning(self.clone())
    }
}
