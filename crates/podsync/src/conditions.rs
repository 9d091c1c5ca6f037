//! Pod conditions from container statuses, with upstream's reasons and messages. Called by status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::restart::is_sidecar;

/// Types the kubelet owns; all others in a status are someone else's and stay.
pub const OWNED: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

fn condition(kind: &str, status: bool, reason: &str, message: &str) -> PodCondition {
    let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    PodCondition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: some(reason),
        message: some(message),
        ..PodCondition::default()
    }
}

fn list(prefix: &str, names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| format!("{prefix}: [{}]", names.join(" ")))
}

/// Inputs that conditions are made of.
pub struct Facts<'a> {
    pub pod: &'a Pod,
    pub phase: &'a str,
    pub init: &'a [ContainerStatus],
    pub regular: &'a [ContainerStatus],
    pub sandbox_ready: bool,
    /// A regular container has run once in this sandbox.
    pub initialized: bool,
}

fn containers_ready(f: &Facts<'_>) -> PodCondition {
    let kind = "ContainersReady";
    if f.regular.is_empty() {
        return condition(kind, false, "UnknownContainerStatuses", "");
    }
    let spec = f.pod.spec.as_ref();
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    let sidecars = spec.and_then(|s| s.init_containers.as_ref()).into_iter().flatten().filter(|c| is_sidecar(c)).map(|c| (c, f.init));
    let regular = spec.into_iter().flat_map(|s| &s.containers).map(|c| (c, f.regular));
    for (c, statuses) in sidecars.chain(regular) {
        match statuses.iter().find(|s| s.name == c.name) {
            None => unknown.push(c.name.as_str()),
            Some(s) if !s.ready => unready.push(c.name.as_str()),
            Some(_) => {}
        }
    }
    match f.phase {
        "Succeeded" if unknown.is_empty() => return condition(kind, false, "PodCompleted", ""),
        "Failed" if unknown.is_empty() => return condition(kind, false, "PodFailed", ""),
        _ => {}
    }
    let texts = [list("containers with unknown status", &unknown), list("containers with unready status", &unready)];
    let message = texts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if message.is_empty() { condition(kind, true, "", "") } else { condition(kind, false, "ContainersNotReady", &message) }
}

fn ready(f: &Facts<'_>, containers: &PodCondition) -> PodCondition {
    if containers.status != "True" {
        return PodCondition { type_: "Ready".to_owned(), ..containers.clone() };
    }
    let mut texts = Vec::new();
    let current = f.pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    for gate in f.pod.spec.as_ref().and_then(|s| s.readiness_gates.as_ref()).into_iter().flatten() {
        match current.iter().find(|c| c.type_ == gate.condition_type) {
            None => texts.push(format!("corresponding condition of pod readiness gate {:?} does not exist.", gate.condition_type)),
            Some(c) if c.status != "True" => {
                texts.push(format!("the status of pod readiness gate {:?} is not \"True\", but {}", gate.condition_type, c.status));
            }
            Some(_) => {}
        }
    }
    if texts.is_empty() { condition("Ready", true, "", "") } else { condition("Ready", false, "ReadinessGatesNotReady", &texts.join(", ")) }
}

fn initialized(f: &Facts<'_>) -> PodCondition {
    let kind = "Initialized";
    let spec = f.pod.spec.as_ref();
    let wanted: Vec<_> = spec.and_then(|s| s.init_containers.as_ref()).into_iter().flatten().collect();
    if f.init.is_empty() && !wanted.is_empty() {
        return condition(kind, false, "UnknownContainerStatuses", "");
    }
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for c in wanted {
        match f.init.iter().find(|s| s.name == c.name) {
            None => unknown.push(c.name.as_str()),
            Some(s) => {
                let done = if is_sidecar(c) { s.started == Some(true) } else { s.ready };
                if !done {
                    incomplete.push(c.name.as_str());
                }
            }
        }
    }
    if f.phase == "Succeeded" && unknown.is_empty() {
        return condition(kind, true, "PodCompleted", "");
    }
    if f.initialized {
        return condition(kind, true, "", "");
    }
    let texts = [list("containers with unknown status", &unknown), list("containers with incomplete status", &incomplete)];
    let message = texts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if message.is_empty() { condition(kind, true, "", "") } else { condition(kind, false, "ContainersNotInitialized", &message) }
}

/// All conditions of the status: the kubelet's own with their transition times, then those of others.
pub fn conditions(f: &Facts<'_>, previous: &[PodCondition], now: Timestamp) -> Vec<PodCondition> {
    let containers = containers_ready(f);
    let ready = ready(f, &containers);
    let mut out = vec![
        condition("PodReadyToStartContainers", f.sandbox_ready, "", ""),
        initialized(f),
        ready,
        containers,
        condition("PodScheduled", true, "", ""),
    ];
    for c in &mut out {
        c.observed_generation = f.pod.metadata.generation;
        let same = previous.iter().find(|p| p.type_ == c.type_ && p.status == c.status);
        c.last_transition_time = same.and_then(|p| p.last_transition_time.clone()).or(Some(Time(now)));
    }
    let current = f.pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    out.extend(current.iter().filter(|c| !OWNED.contains(&c.type_.as_str())).cloned());
    out
}
