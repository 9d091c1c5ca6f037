//! The pod's phase from its container statuses (upstream's `getPhase`). Called by status.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::restart::{is_sidecar, pod_policy, restarts};

fn find<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|s| s.name == name)
}

#[derive(Default)]
struct Tally {
    pending_init: u32,
    pending_sidecars: u32,
    failed_init: u32,
    unknown: u32,
    running: u32,
    waiting: u32,
    stopped: u32,
    succeeded: u32,
    restarting: u32,
}

/// `terminal`: the pod is being or has been killed for good. `initialized`: a regular container has once run.
pub fn phase(pod: &Pod, statuses: &[ContainerStatus], terminal: bool, initialized: bool) -> &'static str {
    let Some(spec) = &pod.spec else { return "Pending" };
    let mut t = Tally::default();
    for c in spec.init_containers.iter().flatten() {
        let state = find(statuses, &c.name).and_then(|s| s.state.as_ref().map(|state| (s, state)));
        let last = |s: &ContainerStatus| s.last_state.as_ref().and_then(|l| l.terminated.as_ref()).map(|l| l.exit_code);
        match state {
            None if is_sidecar(c) => t.unknown += 1,
            None => t.pending_init += 1,
            Some((s, state)) if is_sidecar(c) => {
                if state.running.is_some() {
                    t.pending_sidecars += u32::from(s.started != Some(true));
                    t.running += 1;
                } else if state.waiting.is_some() && last(s).is_none() {
                    t.pending_sidecars += 1;
                    t.waiting += 1;
                }
            }
            Some((s, state)) => match (&state.terminated, &state.waiting) {
                (Some(end), _) if end.exit_code == 0 => {}
                (Some(end), _) if restarts(pod, c, end.exit_code, true) => t.pending_init += 1,
                (Some(_), _) => t.failed_init += 1,
                (None, Some(_)) => match last(s) {
                    Some(code) if code != 0 && !restarts(pod, c, code, true) => t.failed_init += 1,
                    _ => t.pending_init += 1,
                },
                (None, None) => t.pending_init += 1,
            },
        }
    }
    for c in &spec.containers {
        let Some((s, state)) = find(statuses, &c.name).and_then(|s| s.state.as_ref().map(|state| (s, state))) else {
            t.unknown += 1;
            continue;
        };
        if state.running.is_some() {
            t.running += 1;
        } else if let Some(end) = &state.terminated {
            t.stopped += 1;
            t.succeeded += u32::from(end.exit_code == 0);
            t.restarting += u32::from(restarts(pod, c, end.exit_code, false));
        } else if state.waiting.is_some() {
            if let Some(last) = s.last_state.as_ref().and_then(|l| l.terminated.as_ref()) {
                t.stopped += 1;
                t.restarting += u32::from(restarts(pod, c, last.exit_code, false));
            } else {
                t.waiting += 1;
            }
        } else {
            t.unknown += 1;
        }
    }
    verdict(pod, &t, terminal, initialized)
}

fn verdict(pod: &Pod, t: &Tally, terminal: bool, initialized: bool) -> &'static str {
    if t.failed_init > 0 && (pod_policy(pod) == "Never" || terminal) {
        return "Failed";
    }
    if t.pending_init > 0 || t.failed_init > 0 || (t.pending_sidecars > 0 && !initialized) || t.waiting > 0 {
        return "Pending";
    }
    if t.unknown > 0 || (t.running == 0 && t.stopped == 0) {
        return "Pending";
    }
    let end = if t.stopped == t.succeeded { "Succeeded" } else { "Failed" };
    if t.running > 0 {
        return "Running";
    }
    if terminal {
        return end;
    }
    if t.restarting > 0 { "Running" } else { end }
}
