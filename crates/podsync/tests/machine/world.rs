//! A runtime in memory for tests: executes what a `Machine` plans, instantly, under a clock the test turns.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use podsync::probe::ProbeOutcome;
use podsync::{Action, Event, Failure, Machine, Observed, ObservedContainer, ObservedSandbox, RunState, Settings};
use serde_json::{Value, json};

pub struct World {
    pub machine: Machine,
    pub pod: Pod,
    pub now: i64,
    pub observed: Observed,
    pub status: PodStatus,
    pub log: Vec<String>,
    pub wake_at: Option<Timestamp>,
    pub probes: BTreeMap<String, ProbeOutcome>,
    /// Images that cannot be pulled.
    pub missing: Vec<String>,
    /// Containers that ignore SIGTERM until their grace is over.
    pub stubborn: Vec<String>,
    pub stopping: Vec<(Action, String, i64)>,
    /// Containers whose start fails, and how.
    pub broken: BTreeMap<String, Failure>,
    pub finished: bool,
    /// Plan between a start's effect and its report, as a runtime's event makes the shell do; the states seen then.
    pub early: bool,
    pub seen_early: Vec<String>,
    /// Let the machine see a container that is made but does not run yet.
    pub half_made: bool,
    made: u32,
}

pub fn time(s: i64) -> Timestamp {
    Timestamp::from_second(s).unwrap()
}

impl World {
    pub fn new(spec: Value) -> Self {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 1}, "spec": spec,
            "status": {"phase": "Pending"}}))
        .unwrap();
        let settings = Settings { runtime: "skiff".into(), host_ips: vec!["192.168.0.1".into()] };
        let mut world = World {
            machine: Machine::new(pod.clone(), settings),
            pod,
            now: 1_000_000,
            observed: Observed::default(),
            status: PodStatus::default(),
            log: Vec::new(),
            wake_at: None,
            probes: BTreeMap::new(),
            missing: Vec::new(),
            stubborn: Vec::new(),
            stopping: Vec::new(),
            broken: BTreeMap::new(),
            finished: false,
            early: false,
            seen_early: Vec::new(),
            half_made: false,
            made: 0,
        };
        world.observe();
        world
    }

    pub fn observe(&mut self) {
        self.machine.handle(Event::Observed(self.observed.clone()), time(self.now));
    }

    /// Plans and executes until nothing more is to be done at this moment.
    pub fn settle(&mut self) -> &mut Self {
        for _ in 0..200 {
            let plan = self.machine.plan(time(self.now));
            self.status = plan.status;
            self.wake_at = plan.wake_at;
            if plan.actions.is_empty() || self.finished {
                return self;
            }
            for action in plan.actions {
                self.execute(action);
            }
        }
        panic!("no fixpoint at {}: {:?}", self.now, self.log.iter().rev().take(12).collect::<Vec<_>>());
    }

    /// Lets time pass, waking the machine whenever it asked to be.
    pub fn pass(&mut self, seconds: i64) -> &mut Self {
        let end = self.now + seconds;
        loop {
            self.settle();
            let wake = self.wake_at.map(|t| t.as_second() + i64::from(t.subsec_nanosecond() > 0)).filter(|t| *t <= end);
            let stop = self.stopping.iter().map(|s| s.2).min().filter(|t| *t <= end);
            let Some(next) = wake.into_iter().chain(stop).min() else { break };
            assert!(next >= self.now, "woken in the past");
            self.now = next.max(self.now + i64::from(next == self.now && wake == Some(next) && stop.is_none()));
            for (action, id, at) in std::mem::take(&mut self.stopping) {
                if at <= self.now {
                    self.exit(&id, 137, "");
                    self.machine.handle(Event::Done { action, result: Ok(String::new()) }, time(self.now));
                } else {
                    self.stopping.push((action, id, at));
                }
            }
        }
        self.now = end;
        self.settle()
    }

    fn execute(&mut self, action: Action) {
        let result = match &action {
            Action::Record(r) => {
                self.log.push(format!("event {} {}", r.reason, r.message));
                return;
            }
            Action::Finished => {
                self.finished = true;
                self.log.push("finished".into());
                return;
            }
            Action::PrepareVolumes => self.done("prepare volumes"),
            Action::EnsureImage { container } if self.missing.contains(container) => {
                self.log.push(format!("pull {container}"));
                Err(Failure::new("ErrImagePull", "no such image"))
            }
            Action::EnsureImage { container } => {
                self.log.push(format!("image {container}"));
                Ok("sha256:1".into())
            }
            Action::CreateSandbox { attempt } => {
                self.observed.sandboxes.push(ObservedSandbox {
                    id: format!("s{attempt}"),
                    attempt: *attempt,
                    ready: true,
                    created_at: time(self.now),
                    ips: vec!["10.0.0.7".into()],
                });
                self.done("create sandbox")
            }
            Action::StopSandbox { id } => {
                self.observed.sandboxes.iter_mut().filter(|s| s.id == *id).for_each(|s| s.ready = false);
                let inside: Vec<_> = self.observed.containers.iter().filter(|c| c.sandbox_id == *id).map(|c| c.id.clone()).collect();
                inside.iter().for_each(|c| self.exit(c, 137, ""));
                self.done("stop sandbox")
            }
            Action::RemoveSandbox { id } => {
                self.observed.sandboxes.retain(|s| s.id != *id);
                self.observed.containers.retain(|c| c.sandbox_id != *id);
                self.done("remove sandbox")
            }
            Action::StartContainer { container, sandbox, attempt, .. } => self.start(container, sandbox, *attempt),
            Action::PostStart { container, .. } => self.done(&format!("post-start {container}")),
            Action::StopContainer { container, id, grace_seconds, pre_stop } => {
                self.log.push(format!("stop {container} grace {grace_seconds}{}", if *pre_stop { " with hook" } else { "" }));
                if self.stubborn.contains(container) && *grace_seconds > 0 {
                    self.stopping.push((action.clone(), id.clone(), self.now + grace_seconds));
                    return;
                }
                self.exit(&id.clone(), 143, "");
                Ok(String::new())
            }
            Action::RemoveContainer { id } => {
                self.observed.containers.retain(|c| c.id != *id);
                Ok(String::new())
            }
            Action::Probe { container, id, kind, .. } => {
                let outcome = self.probes.get(&format!("{container} {}", kind.word())).cloned().unwrap_or(ProbeOutcome::Success);
                let event = Event::Probed { container: container.clone(), id: id.clone(), kind: *kind, outcome };
                self.machine.handle(event, time(self.now));
                return;
            }
            Action::CleanUp => self.done("clean up"),
            Action::DeletePod => self.done("delete pod"),
        };
        if let (true, true, Some(made)) =
            (self.half_made, matches!(action, Action::StartContainer { .. }), self.observed.containers.last_mut())
        {
            made.state = RunState::Created;
            self.observe();
            for early in self.machine.plan(time(self.now)).actions {
                self.execute(early);
            }
            self.observed.containers.iter_mut().filter(|c| c.state == RunState::Created).for_each(|c| c.state = RunState::Running);
        }
        self.observe();
        if let (true, Action::StartContainer { container, .. }) = (self.early, &action) {
            self.status = self.machine.plan(time(self.now)).status;
            self.seen_early.push(self.state(container));
        }
        let gone = matches!(action, Action::DeletePod);
        self.machine.handle(Event::Done { action, result }, time(self.now));
        if gone {
            self.machine.handle(Event::PodGone, time(self.now));
        }
    }

    fn done(&mut self, what: &str) -> Result<String, Failure> {
        self.log.push(what.to_owned());
        Ok(String::new())
    }

    fn start(&mut self, name: &str, sandbox: &str, attempt: u32) -> Result<String, Failure> {
        self.log.push(format!("start {name} {attempt}"));
        if let Some(f) = self.broken.get(name) {
            return Err(f.clone());
        }
        let alive = self.observed.containers.iter().any(|c| c.name == name && c.state == RunState::Running);
        assert!(!alive, "{name} was started while an instance of it runs");
        self.made += 1;
        let id = format!("c{}", self.made);
        self.observed.containers.push(ObservedContainer {
            id: id.clone(),
            sandbox_id: sandbox.to_owned(),
            name: name.to_owned(),
            attempt,
            state: RunState::Running,
            created_at: time(self.now),
            started_at: Some(time(self.now)),
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: "img".into(),
            image_id: "sha256:1".into(),
            hash: self.machine_hash(name),
            user: None,
            stop_signal: None,
        });
        Ok(id)
    }

    fn machine_hash(&self, name: &str) -> String {
        let spec = self.machine.pod().spec.as_ref().unwrap();
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        all.into_iter().find(|c| c.name == name).map(podsync::restart::hash).unwrap_or_default()
    }

    /// A container instance ends.
    pub fn exit(&mut self, id: &str, code: i32, reason: &str) {
        for c in self.observed.containers.iter_mut().filter(|c| c.id == id && c.state == RunState::Running) {
            c.state = RunState::Exited;
            c.exit_code = code;
            c.finished_at = Some(time(self.now));
            c.reason = reason.to_owned();
        }
        self.stopping.retain(|s| s.1 != id || s.2 <= self.now);
        self.observe();
    }

    /// The running instance of a container ends.
    pub fn exit_named(&mut self, name: &str, code: i32) -> &mut Self {
        let id = self.observed.containers.iter().rev().find(|c| c.name == name && c.state == RunState::Running).map(|c| c.id.clone());
        self.exit(&id.unwrap_or_else(|| panic!("{name} does not run: {:?}", self.log)), code, "");
        self
    }

    pub fn delete(&mut self, grace: i64) -> &mut Self {
        self.pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time(self.now + grace)));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.machine.handle(Event::Pod(Box::new(self.pod.clone())), time(self.now));
        self
    }

    pub fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or_default()
    }

    pub fn container(&self, name: &str) -> &ContainerStatus {
        let all = self.status.container_statuses.iter().flatten().chain(self.status.init_container_statuses.iter().flatten());
        all.into_iter().find(|s| s.name == name).unwrap()
    }

    /// `waiting Reason`, `running`, `terminated Reason code`, with `!` when ready.
    pub fn state(&self, name: &str) -> String {
        let s = self.container(name);
        let state = s.state.as_ref().unwrap();
        let text = if let Some(w) = &state.waiting {
            format!("waiting {}", w.reason.as_deref().unwrap_or_default())
        } else if let Some(t) = &state.terminated {
            format!("terminated {} {}", t.reason.as_deref().unwrap_or_default(), t.exit_code)
        } else {
            "running".to_owned()
        };
        format!("{text}{}", if s.ready { "!" } else { "" })
    }

    pub fn condition(&self, kind: &str) -> String {
        let c = self.status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
        let text = [Some(c.status.as_str()), c.reason.as_deref(), c.message.as_deref()];
        text.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// What was done since the last call, without API events.
    pub fn steps(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log).into_iter().filter(|l| !l.starts_with("event ")).collect()
    }

    pub fn events(&self) -> Vec<&str> {
        self.log.iter().filter_map(|l| l.strip_prefix("event ")).collect()
    }
}
