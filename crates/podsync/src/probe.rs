//! Liveness, readiness and startup probes as a scheduler without a clock: when a probe is due, and what its outcomes
//! amount to under their thresholds (upstream's `prober/worker`). Running a probe is the shell's part.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use serde::Serialize;

use crate::time::after;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];

    /// As it stands in event messages.
    pub fn word(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    pub fn spec(self, c: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => c.startup_probe.as_ref(),
            ProbeKind::Liveness => c.liveness_probe.as_ref(),
            ProbeKind::Readiness => c.readiness_probe.as_ref(),
        }
    }
}

/// What running a probe gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    Success,
    /// Succeeded, with something users should hear (a redirect elsewhere).
    Warning(String),
    Failure(String),
    /// It could not be run; counts for nothing but is retried.
    Error(String),
}

/// The standing of a probe: what thresholds made of its outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Unknown,
    Success,
    Failure,
}

/// One probe of one container instance.
#[derive(Clone, Debug)]
pub struct ProbeWorker {
    pub kind: ProbeKind,
    /// The instance it watches; a new instance starts it anew.
    pub container_id: String,
    pub standing: Standing,
    last: Standing,
    run: i32,
    due: Timestamp,
    held: bool,
}

fn seconds(n: Option<i32>, default: u32) -> Duration {
    Duration::from_secs(u64::from(n.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default)))
}

impl ProbeWorker {
    pub fn new(kind: ProbeKind, probe: &Probe, container_id: &str, started_at: Timestamp) -> Self {
        let standing = match kind {
            ProbeKind::Startup => Standing::Unknown,
            ProbeKind::Liveness => Standing::Success,
            ProbeKind::Readiness => Standing::Failure,
        };
        let due = after(started_at, seconds(probe.initial_delay_seconds, 0));
        ProbeWorker { kind, container_id: container_id.to_owned(), standing, last: Standing::Unknown, run: 0, due, held: false }
    }

    /// When it runs next, given whether the container has started (passed its startup probe). None: not before
    /// something changes.
    pub fn due(&self, started: bool) -> Option<Timestamp> {
        if self.held || started == (self.kind == ProbeKind::Startup) {
            return None;
        }
        Some(self.due)
    }

    /// Takes an outcome. Returns whether the standing changed.
    pub fn take(&mut self, probe: &Probe, outcome: &ProbeOutcome, now: Timestamp) -> bool {
        self.due = after(now, seconds(probe.period_seconds, 10));
        let result = match outcome {
            ProbeOutcome::Success | ProbeOutcome::Warning(_) => Standing::Success,
            ProbeOutcome::Failure(_) => Standing::Failure,
            ProbeOutcome::Error(_) => return false,
        };
        if self.last == result {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = result;
            self.run = 1;
        }
        let threshold = match result {
            Standing::Failure => probe.failure_threshold.filter(|n| *n > 0).unwrap_or(3),
            _ => probe.success_threshold.filter(|n| *n > 0).unwrap_or(1),
        };
        if self.run < threshold {
            return false;
        }
        let changed = self.standing != result;
        self.standing = result;
        if result == Standing::Failure && self.kind != ProbeKind::Readiness {
            // The container will be restarted: stop probing it until there is a new one.
            self.held = true;
            self.run = 0;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn spec() -> Probe {
        Probe {
            initial_delay_seconds: Some(5),
            period_seconds: Some(2),
            failure_threshold: Some(3),
            success_threshold: Some(2),
            ..Probe::default()
        }
    }

    #[test]
    fn readiness_needs_its_thresholds() {
        let p = spec();
        let mut w = ProbeWorker::new(ProbeKind::Readiness, &p, "a", at(100));
        assert_eq!(w.due(false), None, "not before the container has started");
        assert_eq!(w.due(true), Some(at(105)));
        assert!(!w.take(&p, &ProbeOutcome::Success, at(105)));
        assert_eq!(w.due(true), Some(at(107)));
        assert!(w.take(&p, &ProbeOutcome::Success, at(107)));
        assert_eq!(w.standing, Standing::Success);
        for _ in 0..2 {
            assert!(!w.take(&p, &ProbeOutcome::Failure(String::new()), at(109)));
        }
        assert!(!w.take(&p, &ProbeOutcome::Error(String::new()), at(109)), "errors count for nothing");
        assert!(w.take(&p, &ProbeOutcome::Failure(String::new()), at(111)));
        assert_eq!(w.due(true), Some(at(113)), "readiness goes on");
    }

    #[test]
    fn liveness_holds_after_failing_and_startup_after_success() {
        let p = spec();
        let mut w = ProbeWorker::new(ProbeKind::Liveness, &p, "a", at(0));
        for _ in 0..3 {
            w.take(&p, &ProbeOutcome::Failure(String::new()), at(9));
        }
        assert_eq!((w.standing, w.due(true)), (Standing::Failure, None));
        let w = ProbeWorker::new(ProbeKind::Startup, &p, "a", at(0));
        assert_eq!((w.due(false), w.due(true)), (Some(at(5)), None));
    }
}
