//! Which containers to start, stop, probe and collect while a pod runs (upstream's `computePodActions`).
//! Part of [`Machine`]; not called from elsewhere.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;

use crate::action::{Action, Failure};
use crate::machine::{Draft, Image, Machine};
use crate::observed::{Observed, ObservedContainer, RunState};
use crate::probe::{ProbeKind, Standing};
use crate::restart::{hash, is_sidecar, restarts};

impl Machine {
    /// Whether a regular container has been made in the newest sandbox: init containers are then done with.
    pub(crate) fn initialized(&self, observed: &Observed) -> bool {
        let Some(sandbox) = observed.sandbox() else { return false };
        let spec = self.pod.spec.as_ref();
        let made = |c: &Container| observed.containers.iter().any(|o| o.name == c.name && o.sandbox_id == sandbox.id);
        spec.is_some_and(|s| s.containers.iter().any(made))
    }

    /// Whether a running instance counts as started: hook done, startup probe passed.
    pub(crate) fn started(&self, c: &Container, instance: &ObservedContainer) -> bool {
        // Seen to run before its start has been reported: the hook is still to come.
        let starting = |a: &Action| matches!(a, Action::StartContainer { container, .. } if *container == c.name);
        let hooked = c.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
        if self.hooks.contains_key(&instance.id) || (hooked && self.in_flight.iter().any(starting)) {
            return false;
        }
        let worker = self.probes.get(&(c.name.clone(), ProbeKind::Startup)).filter(|w| w.container_id == instance.id);
        c.startup_probe.is_none() || worker.is_some_and(|w| w.standing == Standing::Success)
    }

    /// Whether the pod's work is over: every regular container has ended for good, or an init container has failed for
    /// good. Sidecars do not keep a pod alive.
    pub(crate) fn complete(&self, observed: &Observed) -> bool {
        let Some(spec) = &self.pod.spec else { return false };
        let over = |c: &Container, init: bool| {
            let ended = observed.newest(&c.name).filter(|o| o.state == RunState::Exited);
            ended.is_some_and(|o| (!init || o.exit_code != 0) && !restarts(&self.pod, c, o.exit_code, init))
        };
        let regular = !spec.containers.is_empty() && spec.containers.iter().all(|c| over(c, false));
        let failed = || spec.init_containers.iter().flatten().any(|c| !is_sidecar(c) && over(c, true));
        regular || (!self.initialized(observed) && failed())
    }

    /// What is to run and does not: containers to start now, in order.
    fn wanted(&self, observed: &Observed) -> Vec<Container> {
        let Some(spec) = &self.pod.spec else { return Vec::new() };
        let sandbox = observed.ready_sandbox().map(|s| s.id.as_str());
        let live = |c: &Container| observed.newest(&c.name).filter(|o| Some(o.sandbox_id.as_str()) == sandbox);
        let initialized = sandbox.is_some() && self.initialized(observed);
        let mut out = Vec::new();
        for c in spec.init_containers.iter().flatten() {
            let now = live(c);
            if is_sidecar(c) {
                match now {
                    Some(o) if o.state == RunState::Running => {
                        if !self.started(c, o) && !initialized {
                            return out;
                        }
                    }
                    _ => {
                        out.push(c.clone());
                        if !initialized {
                            return out;
                        }
                    }
                }
            } else if !initialized {
                match now {
                    Some(o) if o.state == RunState::Exited && o.exit_code == 0 => {}
                    Some(o) if o.state == RunState::Exited => {
                        if restarts(&self.pod, c, o.exit_code, true) {
                            out.push(c.clone());
                        }
                        return out;
                    }
                    Some(o) if o.state == RunState::Running => return out,
                    _ => {
                        out.push(c.clone());
                        return out;
                    }
                }
            }
        }
        for c in &spec.containers {
            let start = match observed.newest(&c.name) {
                None => true,
                Some(o) if o.state == RunState::Exited => restarts(&self.pod, c, o.exit_code, false),
                Some(o) if Some(o.sandbox_id.as_str()) == sandbox => o.state != RunState::Running,
                // Lost with its sandbox: as if killed.
                Some(_) => restarts(&self.pod, c, 137, false),
            };
            if start {
                out.push(c.clone());
            }
        }
        out
    }

    /// The plan of a pod that is to run.
    pub(crate) fn plan_run(&mut self, observed: &Observed, now: Timestamp, draft: &mut Draft) {
        let wanted = self.wanted(observed);
        self.stop_failing(observed, draft);
        self.collect(observed, draft);
        self.probe(observed, now, false, draft);
        self.post_start(observed, draft);
        if !self.volumes.ready {
            match self.volumes.not_before.filter(|t| *t > now) {
                Some(at) => draft.wake(at),
                None => draft.actions.push(Action::PrepareVolumes),
            }
        }
        if wanted.is_empty() {
            return;
        }
        let sandbox = self.ensure_sandbox(observed, now, draft);
        let mut busy = self.in_flight.iter().any(|a| matches!(a, Action::StartContainer { .. } | Action::PostStart { .. }));
        for c in wanted {
            // An instance that is being made is seen before it runs: it is not the one that comes before the next.
            if self.in_flight.iter().any(|a| matches!(a, Action::StartContainer { container, .. } if *container == c.name)) {
                continue;
            }
            // Images come while volumes and sandbox are made; containers start one after the other, as hooks expect.
            let Some(image_id) = self.startable(&c, observed, now, draft) else { continue };
            let (Some(sandbox), true, false) = (&sandbox, self.volumes.ready, busy) else { continue };
            let attempt = self.next_attempt(&c.name);
            if let Some(o) = observed.newest(&c.name).filter(|o| o.state == RunState::Exited) {
                self.backoff.next(&c.name, o.finished_at.unwrap_or(now));
            }
            draft.actions.push(Action::StartContainer { container: c.name.clone(), sandbox: sandbox.clone(), attempt, image_id });
            busy = true;
        }
    }

    /// The ready sandbox, or the action that leads to one.
    fn ensure_sandbox(&mut self, observed: &Observed, now: Timestamp, draft: &mut Draft) -> Option<String> {
        if let Some(s) = observed.ready_sandbox() {
            return Some(s.id.clone());
        }
        if let Some(at) = self.sandbox.not_before.filter(|t| *t > now) {
            draft.wake(at);
            return None;
        }
        let attempt = match observed.sandbox() {
            Some(dead) => {
                let alive = observed.containers.iter().any(|c| c.sandbox_id == dead.id && c.state == RunState::Running);
                self.tell(
                    format!("sandbox {}", dead.id),
                    false,
                    "SandboxChanged",
                    "Pod sandbox changed, it will be killed and re-created.".to_owned(),
                    None,
                );
                if alive {
                    draft.actions.push(Action::StopSandbox { id: dead.id.clone() });
                    return None;
                }
                dead.attempt.saturating_add(1)
            }
            None => 0,
        };
        if self.volumes.ready {
            draft.actions.push(Action::CreateSandbox { attempt });
        }
        None
    }

    /// The image ID if nothing but sandbox and volumes keeps a container from starting.
    fn startable(&mut self, c: &Container, observed: &Observed, now: Timestamp, draft: &mut Draft) -> Option<String> {
        let name = &c.name;
        if let Some(o) = observed.newest(name).filter(|o| o.state == RunState::Exited) {
            let from = o.finished_at.unwrap_or(o.created_at);
            if let Some(until) = self.backoff.until(name, from, now) {
                draft.wake(until);
                let delay = machinery::duration::text(self.backoff.delay(name));
                let text = format!("back-off {delay} restarting failed container={name} pod={}", self.display());
                self.failures.insert(name.clone(), (Failure::new("CrashLoopBackOff", text), now));
                let event = format!("Back-off restarting failed container {name} in pod {}", self.display());
                self.tell(format!("backoff {name}"), true, "BackOff", event, Some(name));
                return None;
            }
        }
        if let Some((failure, at)) = self.failures.get(name)
            && *at > now
            && failure.reason != "CrashLoopBackOff"
        {
            draft.wake(*at);
            return None;
        }
        match self.images.get(name).cloned() {
            Some(Image::Ready { attempt, id }) if attempt == self.next_attempt(name) => return Some(id),
            Some(Image::Failed { at, reason, message }) => {
                let until = self.image_backoff.until(name, at, now);
                if let Some(until) = until {
                    draft.wake(until);
                    self.pull_backoff(c, &reason, &message, at, now, draft);
                    return None;
                }
            }
            _ => {}
        }
        draft.actions.push(Action::EnsureImage { container: name.clone() });
        None
    }

    /// Shows the failure itself for a moment, then the back-off, as upstream's two passes do.
    fn pull_backoff(&mut self, c: &Container, reason: &str, message: &str, at: Timestamp, now: Timestamp, draft: &mut Draft) {
        let name = c.name.as_str();
        let shown = crate::time::after(at, std::time::Duration::from_secs(1));
        let direct = matches!(reason, "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError");
        if now < shown || direct {
            if !direct {
                draft.wake(shown);
            }
            self.failures.insert(name.to_owned(), (Failure::new(reason, message), now));
            return;
        }
        let image = c.image.as_deref().unwrap_or_default();
        let text = format!("Back-off pulling image {image:?}");
        let key = format!("pull {name}");
        if !self.told.contains(&key) {
            self.record(true, "Failed", "Error: ImagePullBackOff", Some(name));
        }
        self.tell(key, false, "BackOff", text.clone(), Some(name));
        self.failures.insert(name.to_owned(), (Failure::new("ImagePullBackOff", format!("{text}: {reason}: {message}")), now));
    }

    fn post_start(&mut self, observed: &Observed, draft: &mut Draft) {
        for (id, failed) in &self.hooks {
            if let (None, Some(c)) = (failed, observed.by_id(id)) {
                draft.actions.push(Action::PostStart { container: c.name.clone(), id: id.clone() });
            }
        }
    }

    /// Stops containers whose probes or hooks failed.
    fn stop_failing(&mut self, observed: &Observed, draft: &mut Draft) {
        let grace = self.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
        for o in observed.containers.iter().filter(|o| o.state == RunState::Running) {
            let Some((c, _)) = self.container(&o.name).map(|(c, i)| (c.clone(), i)) else { continue };
            let failed = |kind| {
                let worker = self.probes.get(&(o.name.clone(), kind)).filter(|w| w.container_id == o.id);
                worker.is_some_and(|w| w.standing == Standing::Failure)
            };
            let hook = self.hooks.get(&o.id).and_then(Option::as_ref);
            let of = |p: &Option<k8s_openapi::api::core::v1::Probe>| p.as_ref().and_then(|p| p.termination_grace_period_seconds);
            let (text, own) = if failed(ProbeKind::Liveness) {
                (format!("Container {} failed liveness probe, will be restarted", o.name), of(&c.liveness_probe))
            } else if failed(ProbeKind::Startup) {
                (format!("Container {} failed startup probe, will be restarted", o.name), of(&c.startup_probe))
            } else if hook.is_some() {
                ("FailedPostStartHook".to_owned(), None)
            } else if !o.hash.is_empty() && o.hash != hash(&c) {
                (format!("Container {} definition changed, will be restarted", o.name), None)
            } else {
                continue;
            };
            self.stop(o, own.unwrap_or(grace), text, draft);
        }
    }

    /// Stops an instance, unless it is already being stopped at least as fast.
    pub(crate) fn stop(&mut self, o: &ObservedContainer, grace: i64, text: String, draft: &mut Draft) {
        if self.stops.get(&o.id).is_some_and(|g| *g <= grace) {
            return;
        }
        let again = self.stops.insert(o.id.clone(), grace).is_some();
        if !again {
            self.record(false, "Killing", text, Some(&o.name));
        }
        let hook = self.container(&o.name).and_then(|(c, _)| c.lifecycle.as_ref()).is_some_and(|l| l.pre_stop.is_some());
        let pre_stop = hook && !again && grace > 0;
        draft.actions.push(Action::StopContainer { container: o.name.clone(), id: o.id.clone(), grace_seconds: grace, pre_stop });
    }

    /// Removes dead instances beyond the newest two of each container, and dead sandboxes that were replaced.
    fn collect(&mut self, observed: &Observed, draft: &mut Draft) {
        let mut names: Vec<&str> = observed.containers.iter().map(|c| c.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            for old in observed.instances(name).into_iter().skip(2).filter(|o| o.state != RunState::Running) {
                draft.actions.push(Action::RemoveContainer { id: old.id.clone() });
            }
        }
        let Some(current) = observed.ready_sandbox() else { return };
        for dead in observed.sandboxes.iter().filter(|s| s.id != current.id) {
            let holds = observed.containers.iter().any(|c| c.sandbox_id == dead.id);
            if dead.ready {
                draft.actions.push(Action::StopSandbox { id: dead.id.clone() });
            } else if !holds {
                draft.actions.push(Action::RemoveSandbox { id: dead.id.clone() });
            }
        }
    }

    /// Issues probes that are due. `ending`: only readiness goes on.
    pub(crate) fn probe(&self, observed: &Observed, now: Timestamp, ending: bool, draft: &mut Draft) {
        for ((name, kind), worker) in &self.probes {
            if (ending && *kind != ProbeKind::Readiness) || self.stops.contains_key(&worker.container_id) {
                continue;
            }
            let instance = observed.by_id(&worker.container_id).filter(|o| o.state == RunState::Running);
            let (Some(instance), Some((c, _))) = (instance, self.container(name)) else { continue };
            let Some(probe) = kind.spec(c) else { continue };
            let flying = self.in_flight.iter().any(|a| matches!(a, Action::Probe { id, kind: k, .. } if *id == instance.id && k == kind));
            if flying {
                continue;
            }
            match worker.due(self.started(c, instance)) {
                Some(at) if at <= now => draft.actions.push(Action::Probe {
                    container: name.clone(),
                    id: instance.id.clone(),
                    kind: *kind,
                    timeout_seconds: probe.timeout_seconds.and_then(|t| u32::try_from(t).ok()).filter(|t| *t > 0).unwrap_or(1),
                }),
                Some(at) => draft.wake(at),
                None => {}
            }
        }
    }
}
