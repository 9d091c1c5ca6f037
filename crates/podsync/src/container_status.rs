//! Container statuses from what the runtime shows, start failures and probe standings (upstream's
//! `convertToAPIContainerStatuses` and the prober's `UpdatePodStatus`). Called by status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, ContainerUser,
    LinuxContainerUser, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::action::Failure;
use crate::observed::{Observed, ObservedContainer, RunState};

/// What a status is made of besides the runtime's view.
pub struct Facts<'a> {
    pub runtime: &'a str,
    /// `ContainerCreating` or `PodInitializing`.
    pub default_reason: &'a str,
    /// Why it could not start, or waits to be restarted.
    pub failure: Option<&'a Failure>,
    pub started: bool,
    pub ready: bool,
    /// The status that was written last.
    pub previous: Option<&'a ContainerStatus>,
    /// The pod is gone for good: what cannot be located ends as unknown.
    pub terminal: bool,
    pub image: &'a str,
}

fn time(t: Option<Timestamp>) -> Option<Time> {
    t.filter(|t| t.as_second() > 0).map(Time)
}

fn filled(s: &str) -> Option<String> {
    (!s.is_empty()).then(|| s.to_owned())
}

fn terminated(c: &ObservedContainer, runtime: &str) -> ContainerState {
    let reason = match c.reason.as_str() {
        "" if c.exit_code == 0 => "Completed",
        "" => "Error",
        r => r,
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: c.exit_code,
            reason: Some(reason.to_owned()),
            message: filled(&c.message),
            started_at: time(c.started_at),
            finished_at: time(c.finished_at),
            container_id: Some(format!("{runtime}://{}", c.id)),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let w = ContainerStateWaiting { reason: filled(reason), message: filled(message) };
    ContainerState { waiting: Some(w), ..ContainerState::default() }
}

fn lost(message: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(message.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn state(newest: Option<&ObservedContainer>, f: &Facts<'_>) -> ContainerState {
    match newest {
        Some(c) if c.state == RunState::Running => {
            ContainerState { running: Some(ContainerStateRunning { started_at: time(c.started_at) }), ..ContainerState::default() }
        }
        Some(c) if c.state == RunState::Exited => terminated(c, f.runtime),
        Some(c) if c.state == RunState::Unknown => lost("The container could not be located when the pod was terminated"),
        _ => match f.previous.and_then(|p| p.state.as_ref()) {
            // What was once seen to end stays ended when its remains are collected.
            Some(old) if old.terminated.is_some() => old.clone(),
            Some(old) if old.running.is_some() && newest.is_none() => {
                lost("The container could not be located when the pod was deleted.  The container used to be Running")
            }
            _ if f.terminal && newest.is_none() => lost("The container could not be located when the pod was terminated"),
            _ => waiting(f.default_reason, ""),
        },
    }
}

/// The status of one container.
pub fn container_status(c: &Container, observed: &Observed, f: &Facts<'_>) -> ContainerStatus {
    let instances = observed.instances(&c.name);
    let newest = instances.first().copied();
    let mut state = state(newest, f);
    let previous_end = |s: &Option<ContainerState>| s.clone().filter(|s| s.terminated.is_some());
    let mut last = instances.get(1).filter(|o| o.state == RunState::Exited).map(|o| terminated(o, f.runtime));
    if last.is_none() && newest.is_some_and(|n| n.attempt > 0) {
        last = f.previous.and_then(|p| previous_end(&p.last_state));
    }
    if let (Some(failure), true) = (f.failure, state.running.is_none()) {
        let ended = std::mem::replace(&mut state, waiting(&failure.reason, &failure.message));
        if ended.terminated.is_some() {
            last = Some(ended);
        }
    }
    let running = state.running.is_some();
    let requests = c.resources.as_ref().and_then(|r| r.requests.clone());
    ContainerStatus {
        name: c.name.clone(),
        image: newest.map(|n| n.image.clone()).filter(|i| !i.is_empty()).unwrap_or_else(|| f.image.to_owned()),
        image_id: newest.map(|n| n.image_id.clone()).unwrap_or_default(),
        container_id: newest.map(|n| format!("{}://{}", f.runtime, n.id)).or_else(|| f.previous.and_then(|p| p.container_id.clone())),
        restart_count: newest.map_or_else(|| f.previous.map_or(0, |p| p.restart_count), |n| i32::try_from(n.attempt).unwrap_or(i32::MAX)),
        started: Some(running && f.started),
        ready: running && f.ready && f.started,
        last_state: Some(last.unwrap_or_default()),
        state: Some(state),
        allocated_resources: requests.filter(|_| running),
        resources: c.resources.clone().filter(|_| running),
        volume_mounts: mounts(c),
        user: newest.filter(|_| running).and_then(|n| n.user.clone()).map(|(uid, gid, groups)| ContainerUser {
            linux: Some(LinuxContainerUser { uid, gid, supplemental_groups: (!groups.is_empty()).then_some(groups) }),
        }),
        stop_signal: newest.filter(|_| running).and_then(|n| n.stop_signal.clone()),
        allocated_resources_status: None,
    }
}

fn mounts(c: &Container) -> Option<Vec<VolumeMountStatus>> {
    let list: Vec<_> = c
        .volume_mounts
        .iter()
        .flatten()
        .map(|m| VolumeMountStatus {
            name: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only: m.read_only.filter(|r| *r),
            recursive_read_only: m.read_only.filter(|r| *r).map(|_| m.recursive_read_only.clone().unwrap_or_else(|| "Disabled".to_owned())),
            ..VolumeMountStatus::default()
        })
        .collect();
    (!list.is_empty()).then_some(list)
}
