//! Admission: plugins that change or refuse writes after authorization. A plugin is one file and one row of
//! the table in [`plugins`], in upstream's order. [`mutate`] and [`validate`] are called for everything that writes (also deletions and subresources) and
//! for everything that connects, on each attempt of a write that is tried again.

mod always;
mod always_pull_images;
mod authorizer;
mod certificates;
mod conditions;
mod configuration;
mod connect;
mod default_class;
mod default_toleration_seconds;
mod deny_service_external_ips;
mod event_rate_limit;
mod extended_resource_toleration;
mod image_policy_webhook;
mod in_force;
mod limit_pod_hard_anti_affinity_topology;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
mod namespaces;
mod node_restriction;
mod notes;
mod owner_references_permission_enforcement;
mod persistent_volume_claim_resize;
#[cfg(test)]
mod plugin_tests;
pub mod plugins;
mod pod_node_selector;
mod pod_resize;
mod pod_security;
mod pod_toleration_restriction;
mod pod_topology_labels;
mod pods;
mod policy;
mod priority;
mod reinvocation;
mod request;
mod resource_quota;
mod review;
mod runtime_class;
mod service_account;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;
mod webhooks;

use std::time::Instant;

use async_trait::async_trait;
use machinery::status::StatusError;
use serde_json::Value;

pub use notes::Notes;
pub use plugins::Plugins;
pub use policy::Policies;
pub use request::{Operation, Request};
pub use webhooks::Hooks;

use crate::chain::Call;
use crate::metrics::table;
use crate::verbs::Target;

/// One plugin. `handles` is asked first, so that most plugins cost a comparison.
#[async_trait]
pub trait Plugin: Send + Sync {
    fn handles(&self, request: &Request<'_>) -> bool;

    /// `value` is null for deletes, and the options of what connects. Called again in a second round.
    async fn mutate(&self, _request: &Request<'_>, _value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        Ok(())
    }

    /// As for `mutate`.
    async fn validate(&self, _request: &Request<'_>, _value: &Value, _old: Option<&Value>) -> Result<(), StatusError> {
        Ok(())
    }
}

/// Upstream's word for the two halves of admission, in metrics.
#[derive(Clone, Copy)]
enum Step {
    Admit,
    Validate,
}

/// Counts how long something took and whether it refused.
fn measured(request: &Request<'_>, plugin: Option<&str>, step: Step, since: Instant, done: &Result<(), StatusError>) {
    let metrics = &request.api.metrics;
    let step = if matches!(step, Step::Admit) { "admit" } else { "validate" };
    let (operation, rejected) = (request.operation.name(), if done.is_err() { "true" } else { "false" });
    let seconds = since.elapsed().as_secs_f64();
    match plugin {
        Some(name) => metrics.observe(&table::ADMISSION_CONTROLLER_DURATION, &[name, operation, rejected, step], seconds),
        None => metrics.observe(&table::ADMISSION_STEP_DURATION, &[operation, rejected, step], seconds),
    }
}

/// Whether somebody outside of the server is to see the object, or an expression that may ask for any field: then it must be
/// whole. Plugins of the table look at no managed fields.
pub fn shows_all(request: &Request<'_>) -> bool {
    let (hooks, policies) = (&request.api.hooks, &request.api.policies);
    let any = hooks.has_mutating() || hooks.has_validating() || policies.has_mutating() || policies.has_validating();
    any && !matching::is_exempt(request)
}

pub async fn mutate(request: &Request<'_>, value: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
    let started = Instant::now();
    let done = mutate_all(request, value, old).await;
    measured(request, None, Step::Admit, started, &done);
    done
}

async fn mutate_all(request: &Request<'_>, value: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
    loop {
        for (name, plugin) in request.api.plugins.iter() {
            if plugin.handles(request) {
                let started = Instant::now();
                let done = plugin.mutate(request, value, old).await;
                measured(request, Some(name), Step::Admit, started, &done);
                done?;
            }
        }
        if !request.reinvocation.begin_second() {
            return Ok(());
        }
    }
}

pub async fn validate(request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
    let started = Instant::now();
    let done = validate_all(request, value, old).await;
    measured(request, None, Step::Validate, started, &done);
    done
}

async fn validate_all(request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
    for (name, plugin) in request.api.plugins.iter() {
        if plugin.handles(request) {
            let started = Instant::now();
            let done = plugin.validate(request, value, old).await;
            measured(request, Some(name), Step::Validate, started, &done);
            done?;
        }
    }
    Ok(())
}

/// Both, for what is not stored, and for deletions. What plugins change of the value stays.
pub async fn admit(request: &Request<'_>, value: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
    mutate(request, value, old).await?;
    validate(request, value, old).await
}

/// Admits exec, attach, portforward and proxies.
pub async fn connecting(call: &Call, target: &Target) -> Result<(), StatusError> {
    if call.query.has("dryRun") {
        return Err(StatusError::bad_request("dryRun is not supported"));
    }
    let request = Request::connect(call, target);
    let mut options = connect::options(call, &request.kind);
    admit(&request, &mut options, None).await
}
