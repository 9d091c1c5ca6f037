//! The state of one pod on the node and what events do to it. [`Machine::handle`] notes an event, [`Machine::plan`]
//! says what to do now; both are synchronous and know no clock.
//!
//! Contract with the shell: an `Event::Observed` taken after an action took effect comes before that action's
//! `Event::Done`, so the machine never acts on a view that misses its own last action.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};

use crate::action::{Action, BACKOFF_INITIAL, BACKOFF_MAX, Event, Failure, Plan, Record};
use crate::backoff::Backoff;
use crate::observed::{Observed, RunState};
use crate::probe::{ProbeKind, ProbeOutcome, ProbeWorker, Standing};
use crate::time::{after, earliest};

/// What every machine of a node shares.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The runtime's name, the scheme of container IDs.
    pub runtime: String,
    pub host_ips: Vec<String>,
}

/// The pod's directories and mounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retry {
    pub ready: bool,
    pub failures: u32,
    pub not_before: Option<Timestamp>,
}

/// The image of the next instance of a container.
#[derive(Clone, Debug)]
pub(crate) enum Image {
    /// Present; used for the attempt it was fetched for.
    Ready {
        attempt: u32,
        id: String,
    },
    Failed {
        at: Timestamp,
        reason: String,
        message: String,
    },
}

/// The pod is to end.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub at: Timestamp,
    pub grace_seconds: i64,
    /// Reason and message of the status, if it is to be Failed.
    pub verdict: Option<(String, String)>,
}

/// One pod.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(crate) settings: Settings,
    pub(crate) pod: Pod,
    pub(crate) gone: bool,
    pub(crate) observed: Option<Observed>,
    pub(crate) volumes: Retry,
    pub(crate) sandbox: Retry,
    pub(crate) images: BTreeMap<String, Image>,
    pub(crate) failures: BTreeMap<String, (Failure, Timestamp)>,
    pub(crate) backoff: Backoff,
    pub(crate) image_backoff: Backoff,
    /// Instances whose postStart hook is still to run or runs.
    pub(crate) hooks: BTreeMap<String, Option<Failure>>,
    pub(crate) probes: BTreeMap<(String, ProbeKind), ProbeWorker>,
    pub(crate) in_flight: BTreeSet<Action>,
    /// Instances being stopped, and with which grace.
    pub(crate) stops: BTreeMap<String, i64>,
    pub(crate) records: Vec<Action>,
    pub(crate) told: BTreeSet<String>,
    pub(crate) end: Option<End>,
    pub(crate) cleaned: bool,
    pub(crate) deleted: bool,
    pub(crate) status: PodStatus,
}

/// A plan in the making.
#[derive(Default)]
pub(crate) struct Draft {
    pub actions: Vec<Action>,
    pub wake_at: Option<Timestamp>,
}

impl Draft {
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = earliest(self.wake_at, Some(at));
    }
}

impl Machine {
    pub fn new(pod: Pod, settings: Settings) -> Self {
        Machine {
            settings,
            status: pod.status.clone().unwrap_or_default(),
            pod,
            gone: false,
            observed: None,
            volumes: Retry::default(),
            sandbox: Retry::default(),
            images: BTreeMap::new(),
            failures: BTreeMap::new(),
            backoff: Backoff::new(BACKOFF_INITIAL, BACKOFF_MAX),
            image_backoff: Backoff::new(BACKOFF_INITIAL, BACKOFF_MAX),
            hooks: BTreeMap::new(),
            probes: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            stops: BTreeMap::new(),
            records: Vec::new(),
            told: BTreeSet::new(),
            end: None,
            cleaned: false,
            deleted: false,
        }
    }

    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The status last planned.
    pub fn status(&self) -> &PodStatus {
        &self.status
    }

    /// Whether the pod is ending or has ended.
    pub fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    /// `name_namespace(uid)`, as messages show a pod.
    pub(crate) fn display(&self) -> String {
        let m = &self.pod.metadata;
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        format!("{}_{}({})", text(&m.name), text(&m.namespace), text(&m.uid))
    }

    /// A container of the spec by name; `true` if it is an init container.
    pub(crate) fn container(&self, name: &str) -> Option<(&Container, bool)> {
        let spec = self.pod.spec.as_ref()?;
        let init = spec.init_containers.iter().flatten().map(|c| (c, true));
        init.chain(spec.containers.iter().map(|c| (c, false))).find(|(c, _)| c.name == name)
    }

    pub(crate) fn record(&mut self, warning: bool, reason: &'static str, message: impl Into<String>, container: Option<&str>) {
        self.records.push(Action::Record(Record { warning, reason, message: message.into(), container: container.map(str::to_owned) }));
    }

    /// Records something once, until [`Machine::untell`] with the same key.
    pub(crate) fn tell(&mut self, key: String, warning: bool, reason: &'static str, message: String, container: Option<&str>) {
        if self.told.insert(key) {
            self.record(warning, reason, message, container);
        }
    }

    /// Notes what happened.
    pub fn handle(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Pod(pod) => self.pod = *pod,
            Event::PodGone => {
                self.gone = true;
                self.finish(now, None, None);
            }
            Event::Observed(observed) => self.observe(observed, now),
            Event::Done { action, result } => self.done(action, result, now),
            Event::Probed { container, id, kind, outcome } => self.probed(&container, &id, kind, &outcome, now),
            Event::Evict { reason, message, grace_seconds } => self.finish(now, grace_seconds, Some((reason, message))),
            Event::Retry => {
                self.failures.values_mut().for_each(|f| f.1 = now);
                self.volumes.not_before = None;
            }
        }
    }

    /// Starts the end of the pod, or shortens its grace.
    pub(crate) fn finish(&mut self, now: Timestamp, grace: Option<i64>, verdict: Option<(String, String)>) {
        let spec_grace = self.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
        let grace = grace.or(self.pod.metadata.deletion_grace_period_seconds).unwrap_or(spec_grace).max(0);
        match &mut self.end {
            None => self.end = Some(End { at: now, grace_seconds: grace, verdict }),
            Some(end) => end.grace_seconds = end.grace_seconds.min(grace),
        }
    }

    fn observe(&mut self, observed: Observed, now: Timestamp) {
        for c in observed.containers.iter().filter(|c| c.state == RunState::Exited) {
            self.hooks.remove(&c.id);
            self.stops.remove(&c.id);
        }
        let first = self.observed.is_none();
        let mut fresh = Vec::new();
        for c in observed.containers.iter().filter(|c| c.state == RunState::Running) {
            let Some((spec, init)) = self.container(&c.name) else { continue };
            if init && !crate::restart::is_sidecar(spec) {
                continue;
            }
            for kind in ProbeKind::ALL {
                let known = self.probes.get(&(c.name.clone(), kind)).is_some_and(|w| w.container_id == c.id);
                let Some(probe) = kind.spec(spec).filter(|_| !known) else { continue };
                let mut worker = ProbeWorker::new(kind, probe, &c.id, c.started_at.unwrap_or(now));
                if first {
                    self.inherit(&mut worker, &c.name);
                }
                fresh.push(((c.name.clone(), kind), worker));
            }
        }
        self.probes.extend(fresh);
        self.observed = Some(observed);
    }

    /// A kubelet that restarts does not make ready pods unready: the written status tells how they stood.
    fn inherit(&self, worker: &mut ProbeWorker, name: &str) {
        let all = self.status.container_statuses.iter().flatten().chain(self.status.init_container_statuses.iter().flatten());
        let Some(old) = all.into_iter().find(|s| s.name == name) else { return };
        if old.container_id.as_deref().is_none_or(|id| !id.ends_with(&worker.container_id)) {
            return;
        }
        match worker.kind {
            ProbeKind::Readiness if old.ready => worker.standing = Standing::Success,
            ProbeKind::Startup if old.started == Some(true) => worker.standing = Standing::Success,
            _ => {}
        }
    }

    fn done(&mut self, action: Action, result: Result<String, Failure>, now: Timestamp) {
        self.in_flight.remove(&action);
        match (action, result) {
            (Action::PrepareVolumes, Ok(_)) => self.volumes = Retry { ready: true, ..Retry::default() },
            (Action::PrepareVolumes, Err(f)) => {
                self.record(true, "FailedMount", f.message, None);
                later(&mut self.volumes, now);
            }
            (Action::CreateSandbox { .. }, Ok(_)) => self.sandbox = Retry::default(),
            (Action::CreateSandbox { .. }, Err(f)) => {
                self.record(true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {}", f.message), None);
                later(&mut self.sandbox, now);
            }
            (Action::EnsureImage { container }, result) => self.image_done(container, result, now),
            (Action::StartContainer { container, attempt, .. }, result) => self.start_done(&container, attempt, result, now),
            (Action::PostStart { container, id }, Err(f)) => {
                self.record(true, "FailedPostStartHook", "PostStartHook failed", Some(&container));
                self.hooks.insert(id, Some(f));
            }
            (Action::PostStart { id, .. }, Ok(_)) => {
                self.hooks.remove(&id);
            }
            (Action::StopContainer { id, .. }, result) => {
                self.stops.remove(&id);
                if let Err(f) = result {
                    self.record(true, "FailedKillPod", format!("error killing pod: {}", f.message), None);
                    later(&mut self.sandbox, now);
                }
            }
            (Action::StopSandbox { .. } | Action::RemoveSandbox { .. }, Err(f)) => {
                self.record(true, "FailedKillPod", format!("error killing pod: {}", f.message), None);
                later(&mut self.sandbox, now);
            }
            (Action::StopSandbox { .. } | Action::RemoveSandbox { .. }, Ok(_)) => self.sandbox = Retry::default(),
            (Action::CleanUp, Ok(_)) => self.cleaned = true,
            (Action::DeletePod, Ok(_)) => self.deleted = true,
            (Action::CleanUp | Action::DeletePod, Err(_)) => later(&mut self.volumes, now),
            (Action::RemoveContainer { .. } | Action::Probe { .. } | Action::Record(_) | Action::Finished, _) => {}
        }
    }

    fn image_done(&mut self, container: String, result: Result<String, Failure>, now: Timestamp) {
        let attempt = self.next_attempt(&container);
        match result {
            Ok(id) => {
                self.failures.remove(&container);
                self.image_backoff.forget(&container);
                self.images.insert(container, Image::Ready { attempt, id });
            }
            Err(f) => {
                self.record(true, "Failed", format!("Error: {}", f.reason), Some(&container));
                self.image_backoff.next(&container, now);
                self.told.remove(&format!("pull {container}"));
                self.images.insert(container, Image::Failed { at: now, reason: f.reason, message: f.message });
            }
        }
    }

    fn start_done(&mut self, container: &str, attempt: u32, result: Result<String, Failure>, now: Timestamp) {
        self.images.remove(container);
        match result {
            Ok(id) => {
                self.failures.remove(container);
                self.record(false, "Created", "Container created", Some(container));
                self.record(false, "Started", "Container started", Some(container));
                self.told.remove(&format!("backoff {container}"));
                let hook = self.container(container).and_then(|(c, _)| c.lifecycle.as_ref()).is_some_and(|l| l.post_start.is_some());
                let alive = self.observed.as_ref().and_then(|o| o.by_id(&id)).is_none_or(|c| c.state == RunState::Running);
                if hook && alive {
                    self.hooks.insert(id, None);
                }
            }
            Err(f) => {
                let message = if f.message.is_empty() { f.reason.clone() } else { f.message.clone() };
                self.record(true, "Failed", format!("Error: {message}"), Some(container));
                let key = format!("start {container}");
                self.image_backoff.next(&key, now);
                let wait = self.image_backoff.delay(&key).min(Duration::from_secs(10)) / if attempt == 0 { 5 } else { 1 };
                self.failures.insert(container.to_owned(), (f, after(now, wait)));
            }
        }
    }

    fn probed(&mut self, container: &str, id: &str, kind: ProbeKind, outcome: &ProbeOutcome, now: Timestamp) {
        self.in_flight.retain(|a| !matches!(a, Action::Probe { id: i, kind: k, .. } if i == id && *k == kind));
        let Some(probe) = self.container(container).and_then(|(c, _)| kind.spec(c)).cloned() else { return };
        let Some(worker) = self.probes.get_mut(&(container.to_owned(), kind)).filter(|w| w.container_id == id) else { return };
        worker.take(&probe, outcome, now);
        match outcome {
            ProbeOutcome::Failure(text) => {
                self.record(true, "Unhealthy", format!("{} probe failed: {text}", kind.word()), Some(container));
            }
            ProbeOutcome::Error(text) => {
                self.record(
                    true,
                    "Unhealthy",
                    format!("{} probe errored and resulted in unknown state: {text}", kind.word()),
                    Some(container),
                );
            }
            ProbeOutcome::Warning(text) => {
                self.record(true, "ProbeWarning", format!("{} probe warning: {text}", kind.word()), Some(container));
            }
            ProbeOutcome::Success => {}
        }
    }

    /// The restart count the next instance of a container will have.
    pub(crate) fn next_attempt(&self, name: &str) -> u32 {
        self.observed.as_ref().and_then(|o| o.newest(name)).map_or(0, |c| c.attempt.saturating_add(1))
    }

    /// What to do now. Call after each batch of events and at the previous plan's `wake_at`.
    pub fn plan(&mut self, now: Timestamp) -> Plan {
        let mut draft = Draft::default();
        if let Some(observed) = self.observed.clone() {
            self.check_end(now, &mut draft);
            if self.end.is_none() && self.complete(&observed) {
                self.finish(now, None, None);
            }
            if self.end.is_some() {
                self.plan_end(&observed, now, &mut draft);
            } else {
                self.plan_run(&observed, now, &mut draft);
            }
            self.status = self.make_status(&observed, now);
            let finished = matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"));
            if finished && self.end.is_none() {
                self.finish(now, None, None);
                self.plan_end(&observed, now, &mut draft);
            }
        }
        let mut actions = std::mem::take(&mut self.records);
        for action in draft.actions {
            if !action.is_operation() || self.in_flight.insert(action.clone()) {
                actions.push(action);
            }
        }
        Plan { actions, status: self.status.clone(), wake_at: draft.wake_at }
    }
}

/// Another try later: half a second, doubling to two minutes.
fn later(r: &mut Retry, now: Timestamp) {
    let delay = Duration::from_millis(500) * 2u32.saturating_pow(r.failures.min(8));
    r.failures = r.failures.saturating_add(1);
    r.not_before = Some(after(now, delay.min(Duration::from_secs(120))));
}
