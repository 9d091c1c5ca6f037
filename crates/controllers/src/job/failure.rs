//! When failed pods make a Job fail: the back-off limit and the pod failure policy.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::Pod;

use super::count::Count;
use crate::{meta, pods};

pub fn exceeds_backoff_limit(spec: &JobSpec, count: &Count) -> bool {
    let default = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 };
    let limit = usize::try_from(spec.backoff_limit.unwrap_or(default)).unwrap_or(0);
    if count.failed > limit {
        return true;
    }
    let on_failure = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) == Some("OnFailure");
    if !on_failure {
        return false;
    }
    let restarts: i32 = count.active.iter().map(|pod| restarts(pod)).sum();
    let restarts = usize::try_from(restarts).unwrap_or(0);
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    status.init_container_statuses.iter().chain(&status.container_statuses).flatten().map(|status| status.restart_count).sum()
}

/// The message of the first `FailJob` rule that matches one of these pods.
pub fn matched_policy(spec: &JobSpec, failed: &[Arc<Pod>]) -> Option<String> {
    failed.iter().find_map(|pod| match first_match(spec, pod) {
        Some((rule, message)) if rule.action == "FailJob" => Some(message),
        _ => None,
    })
}

/// An ignored pod does not count towards the limit.
pub fn is_ignored(job: &Job, pod: &Pod) -> bool {
    let matched = job.spec.as_ref().and_then(|spec| first_match(spec, pod));
    matched.is_some_and(|(rule, _)| rule.action == "Ignore")
}

/// Such a failure ends the index, whatever its limit.
pub fn fails_index(job: &Job, pod: &Pod) -> bool {
    let matched = job.spec.as_ref().and_then(|spec| first_match(spec, pod));
    matched.is_some_and(|(rule, _)| rule.action == "FailIndex")
}

fn first_match<'a>(spec: &'a JobSpec, pod: &Pod) -> Option<(&'a PodFailurePolicyRule, String)> {
    let rules = &spec.pod_failure_policy.as_ref()?.rules;
    rules.iter().enumerate().find_map(|(at, rule)| {
        let message = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => exit_code(codes, pod).map(|(container, code)| {
                let pod = meta::key(pod);
                format!("Container {container} for pod {pod} failed with exit code {code} matching {} rule at index {at}", rule.action)
            }),
            (None, patterns) => patterns.iter().flatten().find_map(|pattern| {
                let wanted = if pattern.status.as_deref().unwrap_or_default().is_empty() { "True" } else { pattern.status.as_deref()? };
                let has = pods::condition(pod, &pattern.type_)?;
                let pod = meta::key(pod);
                (has.status == wanted)
                    .then(|| format!("Pod {pod} has condition {} matching {} rule at index {at}", pattern.type_, rule.action))
            }),
        };
        message.map(|message| (rule, message))
    })
}

fn exit_code(wanted: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<(String, i32)> {
    let status = pod.status.as_ref()?;
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let of_container = statuses.filter(|status| wanted.container_name.as_ref().is_none_or(|name| *name == status.name));
    let mut ended = of_container.filter_map(|status| Some((status.name.clone(), status.state.as_ref()?.terminated.as_ref()?.exit_code)));
    ended.find(|(_, code)| *code != 0 && wanted.values.contains(code) == (wanted.operator == "In"))
}
