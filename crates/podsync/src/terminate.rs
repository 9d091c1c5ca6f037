//! How a pod ends: deadline, deletion, eviction, completion; containers, then sidecars in reverse, then the sandbox,
//! then clean-up and the API object. Part of [`Machine`]; not called from elsewhere.

use std::time::Duration;

use jiff::Timestamp;

use crate::action::Action;
use crate::machine::{Draft, Machine};
use crate::observed::{Observed, RunState};
use crate::restart::is_sidecar;
use crate::time::{after, since};

impl Machine {
    /// Notices what ends the pod by itself: a deletion, a deadline, a phase that was once final.
    pub(crate) fn check_end(&mut self, now: Timestamp, draft: &mut Draft) {
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.finish(now, None, None);
            return;
        }
        if self.end.is_some() {
            return;
        }
        let status = self.pod.status.as_ref();
        if matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed")) {
            self.finish(now, None, None);
            return;
        }
        let deadline = self.pod.spec.as_ref().and_then(|s| s.active_deadline_seconds).and_then(|s| u64::try_from(s).ok());
        let start = self.status.start_time.as_ref().map(|t| t.0);
        if let (Some(deadline), start) = (deadline, start.unwrap_or(now)) {
            let at = after(start, Duration::from_secs(deadline));
            if at <= now {
                let text = "Pod was active on the node longer than the specified deadline";
                self.record(false, "DeadlineExceeded", text, None);
                self.finish(now, None, Some(("DeadlineExceeded".to_owned(), text.to_owned())));
            } else {
                draft.wake(at);
            }
        }
    }

    fn seconds_left(&self, now: Timestamp) -> i64 {
        let Some(end) = &self.end else { return 0 };
        let past = i64::try_from(since(now, end.at).as_secs()).unwrap_or(i64::MAX);
        end.grace_seconds.saturating_sub(past).max(0)
    }

    /// The plan of a pod that is to end.
    pub(crate) fn plan_end(&mut self, observed: &Observed, now: Timestamp, draft: &mut Draft) {
        self.probe(observed, now, true, draft);
        // What is being made cannot be stopped before it is there.
        let making = |a: &Action| matches!(a, Action::CreateSandbox { .. } | Action::StartContainer { .. });
        if self.in_flight.iter().any(making) {
            return;
        }
        if let Some(at) = self.sandbox.not_before.filter(|t| *t > now) {
            draft.wake(at);
            return;
        }
        if self.stop_all(observed, now, draft) {
            return;
        }
        let mut stopping = false;
        for s in observed.sandboxes.iter().filter(|s| s.ready) {
            draft.actions.push(Action::StopSandbox { id: s.id.clone() });
            stopping = true;
        }
        let preparing = self.in_flight.iter().any(|a| matches!(a, Action::StopSandbox { .. } | Action::PrepareVolumes));
        if stopping || preparing {
            return;
        }
        if let Some(at) = self.volumes.not_before.filter(|t| *t > now) {
            draft.wake(at);
            return;
        }
        if !self.cleaned {
            draft.actions.push(Action::CleanUp);
            return;
        }
        if self.gone {
            for s in &observed.sandboxes {
                draft.actions.push(Action::RemoveSandbox { id: s.id.clone() });
            }
            if observed.sandboxes.is_empty() {
                draft.actions.push(Action::Finished);
            }
        } else if self.pod.metadata.deletion_timestamp.is_some() && !self.deleted {
            draft.actions.push(Action::DeletePod);
        }
    }

    /// Stops what runs. True while anything does.
    fn stop_all(&mut self, observed: &Observed, now: Timestamp, draft: &mut Draft) -> bool {
        let running: Vec<_> = observed.containers.iter().filter(|c| c.state == RunState::Running).cloned().collect();
        if running.is_empty() {
            return false;
        }
        let init: Vec<_> = self.pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).cloned().collect();
        let rank = |name: &str| init.iter().position(|c| c.name == name && is_sidecar(c));
        let left = self.seconds_left(now);
        let mut first: Vec<_> = running.iter().filter(|c| rank(&c.name).is_none()).collect();
        if first.is_empty() {
            let last = running.iter().filter_map(|c| rank(&c.name)).max();
            first = running.iter().filter(|c| rank(&c.name) == last).collect();
        }
        for c in first {
            // A stop in progress keeps its own time; only a shorter order from outside replaces it.
            let total = self.end.as_ref().map_or(0, |e| e.grace_seconds);
            let grace = if self.stops.contains_key(&c.id) && total > 0 { total } else { left };
            self.stop(c, grace, format!("Stopping container {}", c.name), draft);
        }
        true
    }
}
