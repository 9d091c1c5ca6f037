//! The pod's status: phase, conditions, addresses, container statuses (upstream's `generateAPIPodStatus`).
//! Part of [`Machine`]; the shell writes it when it changed.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::action::Failure;
use crate::conditions::{self, conditions};
use crate::container_status::{self, container_status};
use crate::machine::Machine;
use crate::observed::{Observed, RunState};
use crate::phase::phase;
use crate::probe::{ProbeKind, Standing};
use crate::requests::qos_class;
use crate::restart::is_sidecar;

impl Machine {
    fn statuses(
        &self,
        containers: &[Container],
        observed: &Observed,
        previous: &[ContainerStatus],
        init: bool,
        terminal: bool,
    ) -> Vec<ContainerStatus> {
        let has_init = self.pod.spec.as_ref().and_then(|s| s.init_containers.as_ref()).is_some_and(|i| !i.is_empty());
        let one = |c: &Container| {
            let newest = observed.newest(&c.name);
            let started = newest.is_some_and(|o| o.state == RunState::Running && ((init && !is_sidecar(c)) || self.started(c, o)));
            let standing = newest.and_then(|o| self.probes.get(&(c.name.clone(), ProbeKind::Readiness)).filter(|w| w.container_id == o.id));
            let ready = c.readiness_probe.is_none() || standing.is_some_and(|w| w.standing == Standing::Success);
            let hook = newest.and_then(|o| self.hooks.get(&o.id)).and_then(Option::as_ref);
            let failure: Option<&Failure> = hook.or(self.failures.get(&c.name).map(|f| &f.0)).filter(|_| self.end.is_none());
            let facts = container_status::Facts {
                runtime: &self.settings.runtime,
                default_reason: if has_init { "PodInitializing" } else { "ContainerCreating" },
                failure,
                started,
                ready: ready && (!init || is_sidecar(c)),
                previous: previous.iter().find(|p| p.name == c.name),
                // Before a pod is initialised, a missing regular container is one that never was.
                terminal: terminal && !init && (!has_init || self.initialized(observed)),
                image: c.image.as_deref().unwrap_or_default(),
            };
            let mut status = container_status(c, observed, &facts);
            let end = status.state.as_ref().and_then(|s| s.terminated.as_ref());
            if init && !is_sidecar(c) && end.is_some_and(|t| t.exit_code == 0) {
                status.ready = true;
            }
            status
        };
        containers.iter().map(one).collect()
    }

    /// The status now.
    pub(crate) fn make_status(&self, observed: &Observed, now: Timestamp) -> PodStatus {
        let Some(spec) = &self.pod.spec else { return self.status.clone() };
        let alive = observed.alive() || self.in_flight.iter().any(|a| matches!(a, crate::Action::StartContainer { .. }));
        let terminal = self.end.is_some() && !alive;
        let old = &self.status;
        let before = |s: &Option<Vec<ContainerStatus>>| s.clone().unwrap_or_default();
        let init_list = spec.init_containers.as_deref().unwrap_or_default();
        let init = self.statuses(init_list, observed, &before(&old.init_container_statuses), true, terminal);
        let mut regular = self.statuses(&spec.containers, observed, &before(&old.container_statuses), false, terminal);
        regular.sort_by(|a, b| a.name.cmp(&b.name));
        let all: Vec<_> = init.iter().chain(&regular).cloned().collect();
        let initialized = self.initialized(observed);
        let mut computed = phase(&self.pod, &all, terminal, initialized).to_owned();
        let (mut reason, mut message) = (old.reason.clone(), old.message.clone());
        let running = observed.containers.iter().any(|c| c.state == RunState::Running);
        if let Some((r, m)) = self.end.as_ref().and_then(|e| e.verdict.clone())
            && !running
        {
            computed = "Failed".to_owned();
            (reason, message) = (Some(r), Some(m));
        }
        let final_phase = |p: &str| matches!(p, "Succeeded" | "Failed");
        match old.phase.as_deref() {
            // A final phase stays; and none is reported while something may still run.
            Some(was) if final_phase(was) => computed = was.to_owned(),
            was if final_phase(&computed) && running => computed = was.unwrap_or("Running").to_owned(),
            _ => {}
        }
        let host = spec.host_network == Some(true);
        let sandbox = observed.ready_sandbox();
        let ips: Vec<String> = match sandbox {
            Some(_) if host => self.settings.host_ips.clone(),
            Some(s) => s.ips.clone(),
            None => old.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect(),
        };
        let facts = conditions::Facts {
            pod: &self.pod,
            phase: &computed,
            init: &init,
            regular: &regular,
            sandbox_ready: sandbox.is_some_and(|s| host || !s.ips.is_empty()),
            initialized,
        };
        let conditions = conditions(&facts, old.conditions.as_deref().unwrap_or_default(), now);
        let current = self.pod.status.as_ref();
        let some = |v: Vec<ContainerStatus>| (!v.is_empty()).then_some(v);
        PodStatus {
            observed_generation: self.pod.metadata.generation,
            phase: Some(computed),
            conditions: Some(conditions),
            reason,
            message,
            host_ip: self.settings.host_ips.first().cloned(),
            host_ips: Some(self.settings.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
            pod_ip: ips.first().cloned(),
            pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
            start_time: old.start_time.clone().or(Some(Time(now))),
            qos_class: Some(qos_class(&self.pod).to_owned()),
            init_container_statuses: some(init),
            container_statuses: some(regular),
            ephemeral_container_statuses: old.ephemeral_container_statuses.clone(),
            nominated_node_name: current.and_then(|s| s.nominated_node_name.clone()),
            resource_claim_statuses: current.and_then(|s| s.resource_claim_statuses.clone()),
            ..PodStatus::default()
        }
    }
}
