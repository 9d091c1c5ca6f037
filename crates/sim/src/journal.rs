//! The record of a run: every write of the store is a step with a number, told in one line, hashed, and checked against the
//! invariants. Faults and what the user asks for are told between the steps. Everything else of the simulator reports here.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mix::Fnv64;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::invariants::{Invariants, Step};
use crate::state::{State, describe, is_secret};

/// Lines that a failing run shows.
const RECENT_LINES: usize = 60;

thread_local! {
    /// In whose name the request that is being worked on was made.
    static WHO: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Sets who acts while a future is polled; answers who did before.
pub(crate) fn set_who(name: String) -> String {
    WHO.replace(name)
}

/// Who acts.
pub(crate) fn who() -> String {
    WHO.with_borrow(Clone::clone)
}

#[derive(Clone)]
pub(crate) struct Journal(Arc<Mutex<Inner>>);

struct Inner {
    start: Instant,
    keep_all: bool,
    until: Option<u64>,
    show: Option<String>,
    steps: u64,
    hash: Fnv64,
    lines: VecDeque<String>,
    faults: BTreeMap<&'static str, u64>,
    violation: Option<String>,
    ended: CancellationToken,
    state: State,
    invariants: Invariants,
    /// Since when nobody has changed anything that counts.
    quiet_since: Instant,
    /// What was last done, for telling what is not quiet.
    last_change: String,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub steps: u64,
    /// FNV-1a of all lines, which hold a hash of each value: equal for equal runs.
    pub hash: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub virtual_seconds: u64,
    /// The last lines; all of them when asked for.
    pub trace: Vec<String>,
}

impl Journal {
    pub fn new(options: &Options, ended: CancellationToken) -> Self {
        let inner = Inner {
            start: Instant::now(),
            keep_all: options.trace,
            until: options.until,
            show: options.show.clone(),
            steps: 0,
            hash: Fnv64::default(),
            lines: VecDeque::new(),
            faults: BTreeMap::new(),
            violation: None,
            ended,
            state: State::default(),
            invariants: Invariants::default(),
            quiet_since: Instant::now(),
            last_change: String::new(),
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what is not a step.
    pub fn note(&self, text: &str) {
        self.lock().line(text);
    }

    /// Counts and tells a fault.
    pub fn fault(&self, kind: &'static str, text: &str) {
        let mut inner = self.lock();
        *inner.faults.entry(kind).or_default() += 1;
        inner.line(&format!("!! {kind} {text}"));
    }

    /// Counts a fault that is too common to be told.
    pub fn small_fault(&self, kind: &'static str) {
        *self.lock().faults.entry(kind).or_default() += 1;
    }

    /// Something does not hold: the run is over.
    pub fn violate(&self, what: String) {
        self.lock().violate(what);
    }

    /// A component asked for a change, whatever came of it.
    pub fn asked(&self, who: &str, method: &str, path: &str) {
        let mut inner = self.lock();
        inner.quiet_since = Instant::now();
        inner.last_change = format!("{who} {method} {path}");
        if inner.keep_all {
            inner.line(&format!("   {who} {method} {path}"));
        }
    }

    /// A write of the store, in order.
    pub fn step(&self, revision: u64, key: &str, value: Option<&bytes::Bytes>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let who = who();
        let now = inner.start.elapsed();
        inner.steps += 1;
        let Some((old, new)) = inner.state.apply(revision, key, value) else {
            inner.violate(format!("revision {revision} of {key} is not after {}", inner.state.revision));
            return;
        };
        let value = value.filter(|_| !is_secret(key)).map_or(&b""[..], |bytes| bytes);
        let hash = Fnv64::of(value.iter().copied()) & 0xffff;
        let shown = who.rsplit(':').next().unwrap_or_default();
        let text = format!("#{} r{revision} {shown}: {} [{hash:04x}]", inner.steps, describe(key, old.as_deref(), new.as_deref()));
        inner.line(&text);
        if let Some(object) = new.as_deref().filter(|_| inner.show.as_ref().is_some_and(|show| key.contains(show))) {
            inner.line(&format!("   {key}: {}", whole(&object.tree)));
        }
        if !is_routine(key, old.is_some(), new.is_some()) {
            inner.quiet_since = Instant::now();
            inner.last_change = text;
        }
        let step = Step { key, old: old.as_deref(), new: new.as_deref(), who: &who, now };
        if let Err(what) = inner.invariants.check(&step, &inner.state) {
            inner.violate(what);
        }
        if inner.until.is_some_and(|until| inner.steps >= until) {
            inner.ended.cancel();
        }
    }

    /// For how long nobody has changed anything, and what came last.
    pub fn quiet(&self) -> (Duration, String) {
        let inner = self.lock();
        (inner.quiet_since.elapsed(), inner.last_change.clone())
    }

    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Looks at the true state.
    pub fn look<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.lock().state)
    }

    pub fn violation(&self) -> Option<String> {
        self.lock().violation.clone()
    }

    pub fn report(&self) -> Report {
        let inner = self.lock();
        Report {
            steps: inner.steps,
            hash: inner.hash.0,
            faults: inner.faults.clone(),
            virtual_seconds: inner.start.elapsed().as_secs(),
            trace: inner.lines.iter().cloned().collect(),
        }
    }
}

/// What goes on in a quiet cluster, too: heartbeats, and events that have been told and expire.
fn is_routine(key: &str, existed: bool, exists: bool) -> bool {
    key.starts_with("/registry/leases/")
        || key.starts_with("/registry/masterleases/")
        || (key.starts_with("/registry/events/") && existed && !exists)
}

/// An object, but for the record of who wrote what.
fn whole(object: &serde_json::Value) -> String {
    let mut object = object.clone();
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(serde_json::Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object.to_string()
}

impl Inner {
    fn line(&mut self, text: &str) {
        let mut line = String::new();
        let at = self.start.elapsed();
        if write!(line, "{:>9.3} {text}", at.as_secs_f64()).is_err() {
            line.push_str(text);
        }
        self.hash.eat(line.bytes());
        if !self.keep_all && self.lines.len() >= RECENT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn violate(&mut self, what: String) {
        if self.violation.is_none() {
            self.line(&format!("!! VIOLATION: {what}"));
            self.violation = Some(what);
            self.ended.cancel();
        }
    }
}
