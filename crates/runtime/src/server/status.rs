//! Sandboxes and containers in the CRI's words. Pure.

use std::collections::HashMap;

use cri::v1;

use super::state::{Container, Sandbox};

pub fn sandbox_state(sandbox: &Sandbox) -> v1::PodSandboxState {
    if sandbox.ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready }
}

pub fn sandbox(sandbox: &Sandbox) -> v1::PodSandboxStatus {
    let config = &sandbox.config.0;
    let mut ips = sandbox.ips.iter().map(ToString::to_string);
    v1::PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: config.metadata.clone(),
        state: sandbox_state(sandbox).into(),
        created_at: sandbox.created_ns,
        network: Some(v1::PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| v1::PodIp { ip }).collect(),
        }),
        linux: Some(v1::LinuxPodSandboxStatus { namespaces: Some(v1::Namespace { options: Some(sandbox.namespaces()) }) }),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: sandbox.handler.clone(),
    }
}

pub fn sandbox_item(sandbox: &Sandbox) -> v1::PodSandbox {
    let config = &sandbox.config.0;
    v1::PodSandbox {
        id: sandbox.id.clone(),
        metadata: config.metadata.clone(),
        state: sandbox_state(sandbox).into(),
        created_at: sandbox.created_ns,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: sandbox.handler.clone(),
    }
}

pub fn container_state(container: &Container) -> v1::ContainerState {
    match (&container.exit, container.started_ns) {
        (Some(_), _) => v1::ContainerState::ContainerExited,
        (None, 0) => v1::ContainerState::ContainerCreated,
        (None, _) => v1::ContainerState::ContainerRunning,
    }
}

fn reason(container: &Container) -> &'static str {
    match &container.exit {
        None => "",
        Some(_) if container.start_error.is_some() => "StartError",
        Some(exit) if exit.oom_killed => "OOMKilled",
        Some(exit) if exit.code == 0 => "Completed",
        Some(exit) if exit.lost => "Unknown",
        Some(_) => "Error",
    }
}

fn spec_image(container: &Container) -> Option<v1::ImageSpec> {
    container.config.0.image.clone()
}

pub fn container(container: &Container) -> v1::ContainerStatus {
    let config = &container.config.0;
    let resources = config.linux.as_ref().and_then(|l| l.resources.clone());
    let identity = &container.identity;
    let user = v1::LinuxContainerUser {
        uid: identity.uid.into(),
        gid: identity.gid.into(),
        supplemental_groups: identity.groups.iter().map(|g| i64::from(*g)).collect(),
    };
    v1::ContainerStatus {
        id: container.id.clone(),
        metadata: config.metadata.clone(),
        state: container_state(container).into(),
        created_at: container.created_ns,
        started_at: container.started_ns,
        finished_at: container.exit.as_ref().map_or(0, |e| e.finished_ns),
        exit_code: container.exit.as_ref().map_or(0, |e| e.code),
        image: spec_image(container),
        image_ref: container.image_ref.clone(),
        reason: reason(container).to_owned(),
        message: container.start_error.clone().unwrap_or_default(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path: container.spec.log.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
        resources: Some(v1::ContainerResources { linux: resources, windows: None }),
        image_id: container.image_id.clone(),
        user: Some(v1::ContainerUser { linux: Some(user) }),
        stop_signal: config.stop_signal,
    }
}

pub fn container_item(container: &Container) -> v1::Container {
    let config = &container.config.0;
    v1::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox.clone(),
        metadata: config.metadata.clone(),
        image: spec_image(container),
        image_ref: container.image_ref.clone(),
        state: container_state(container).into(),
        created_at: container.created_ns,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        image_id: container.image_id.clone(),
    }
}

/// Whether `labels` has all of `selector`.
pub fn selects(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
