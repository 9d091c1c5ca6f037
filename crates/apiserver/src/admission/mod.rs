//! Admission: plugins that change or refuse writes after authorization. A plugin is one file and one row of [`TABLE`], in
//! upstream's order. [`mutate`] and [`validate`] are called for everything that writes (also deletions and subresources) and
//! for everything that connects, on each attempt of a write that is tried again.

mod authorizer;
mod certificates;
mod connect;
mod default_class;
mod default_toleration_seconds;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
mod node_restriction;
mod notes;
mod persistent_volume_claim_resize;
mod pod_security;
mod pod_topology_labels;
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
pub use policy::Policies;
pub use request::{Operation, Request};
pub use webhooks::Hooks;

use crate::chain::Call;
use crate::config::Config;
use crate::error::Error;
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

struct Row {
    name: &'static str,
    on_by_default: bool,
    plugin: &'static dyn Plugin,
}

/// All plugins, in the order they run.
static TABLE: &[Row] = &[
    Row { name: "NamespaceLifecycle", on_by_default: true, plugin: &namespace_lifecycle::NamespaceLifecycle },
    Row { name: "LimitRanger", on_by_default: true, plugin: &limit_ranger::LimitRanger },
    Row { name: "ServiceAccount", on_by_default: true, plugin: &service_account::ServiceAccount },
    Row { name: "NodeRestriction", on_by_default: true, plugin: &node_restriction::NodeRestriction },
    Row { name: "TaintNodesByCondition", on_by_default: true, plugin: &taint_nodes_by_condition::TaintNodesByCondition },
    Row { name: "PodSecurity", on_by_default: true, plugin: &pod_security::PodSecurity },
    Row { name: "Priority", on_by_default: true, plugin: &priority::Priority },
    Row { name: "DefaultTolerationSeconds", on_by_default: true, plugin: &default_toleration_seconds::DefaultTolerationSeconds },
    Row { name: "DefaultStorageClass", on_by_default: true, plugin: &default_class::STORAGE },
    Row {
        name: "StorageObjectInUseProtection",
        on_by_default: true,
        plugin: &storage_object_in_use_protection::StorageObjectInUseProtection,
    },
    Row { name: "PersistentVolumeClaimResize", on_by_default: true, plugin: &persistent_volume_claim_resize::PersistentVolumeClaimResize },
    Row { name: "RuntimeClass", on_by_default: true, plugin: &runtime_class::RuntimeClass },
    Row { name: "CertificateApproval", on_by_default: true, plugin: &certificates::CertificateApproval },
    Row { name: "CertificateSigning", on_by_default: true, plugin: &certificates::CertificateSigning },
    Row { name: "CertificateSubjectRestriction", on_by_default: true, plugin: &certificates::CertificateSubjectRestriction },
    Row { name: "DefaultIngressClass", on_by_default: true, plugin: &default_class::INGRESS },
    Row { name: "PodTopologyLabels", on_by_default: true, plugin: &pod_topology_labels::PodTopologyLabels },
    Row { name: "MutatingAdmissionPolicy", on_by_default: true, plugin: &policy::MutatingAdmissionPolicy },
    Row { name: "MutatingAdmissionWebhook", on_by_default: true, plugin: &webhooks::MutatingAdmissionWebhook },
    Row { name: "ValidatingAdmissionPolicy", on_by_default: true, plugin: &policy::ValidatingAdmissionPolicy },
    Row { name: "ValidatingAdmissionWebhook", on_by_default: true, plugin: &webhooks::ValidatingAdmissionWebhook },
    Row { name: "ResourceQuota", on_by_default: true, plugin: &resource_quota::ResourceQuota },
];

/// The plugins that are on.
pub struct Plugins(Vec<&'static Row>);

/// Plugins of upstream's that are off unless asked for and not here: naming one is an error, not a silent nothing.
const ABSENT: [&str; 12] = [
    "AlwaysAdmit",
    "AlwaysDeny",
    "AlwaysPullImages",
    "DenyServiceExternalIPs",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "LimitPodHardAntiAffinityTopology",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "OwnerReferencesPermissionEnforcement",
    "PodNodeSelector",
];

impl Plugins {
    /// Those of the table that are on by default or by flag, and not off by flag.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let (enabled, disabled) = (&config.enable_admission_plugins, &config.disable_admission_plugins);
        for (flag, names) in [("enable-admission-plugins", enabled), ("disable-admission-plugins", disabled)] {
            for name in names.iter().filter(|n| TABLE.iter().all(|row| row.name != **n)) {
                let why = match ABSENT.contains(&name.as_str()) {
                    // To be without it is what the flag asks.
                    true if flag.starts_with("disable") => continue,
                    true => format!("{flag} plugin {name:?} is not part of this server"),
                    false => format!("{flag} plugin {name:?} is unknown"),
                };
                return Err(Error::Config(why));
            }
        }
        if let Some(both) = disabled.iter().find(|n| enabled.contains(n)) {
            let why = format!("[{both}] in enable-admission-plugins and disable-admission-plugins overlapped");
            return Err(Error::Config(why));
        }
        let on = |row: &&Row| (row.on_by_default || enabled.iter().any(|n| n == row.name)) && !disabled.iter().any(|n| n == row.name);
        Ok(Self(TABLE.iter().filter(on).collect()))
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

pub async fn mutate(request: &Request<'_>, value: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
    let started = Instant::now();
    let done = mutate_all(request, value, old).await;
    measured(request, None, Step::Admit, started, &done);
    done
}

async fn mutate_all(request: &Request<'_>, value: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
    loop {
        for row in &request.api.plugins.0 {
            if row.plugin.handles(request) {
                let started = Instant::now();
                let done = row.plugin.mutate(request, value, old).await;
                measured(request, Some(row.name), Step::Admit, started, &done);
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
    for row in &request.api.plugins.0 {
        if row.plugin.handles(request) {
            let started = Instant::now();
            let done = row.plugin.validate(request, value, old).await;
            measured(request, Some(row.name), Step::Validate, started, &done);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_run_in_upstreams_order() {
        let order = [
            "NamespaceLifecycle",
            "LimitRanger",
            "ServiceAccount",
            "NodeRestriction",
            "TaintNodesByCondition",
            "PodSecurity",
            "Priority",
            "DefaultTolerationSeconds",
            "DefaultStorageClass",
            "StorageObjectInUseProtection",
            "PersistentVolumeClaimResize",
            "RuntimeClass",
            "CertificateApproval",
            "CertificateSigning",
            "CertificateSubjectRestriction",
            "DefaultIngressClass",
            "PodTopologyLabels",
            "MutatingAdmissionPolicy",
            "MutatingAdmissionWebhook",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionWebhook",
            "ResourceQuota",
        ];
        assert_eq!(TABLE.iter().map(|row| row.name).collect::<Vec<_>>(), order);
    }

    #[test]
    fn flags_choose_plugins_and_name_only_those_there_are() {
        let with = |enabled: &[&str], disabled: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
            let config =
                Config { enable_admission_plugins: list(enabled), disable_admission_plugins: list(disabled), ..Config::new("/nowhere") };
            Plugins::new(&config).map(|p| p.0.iter().map(|row| row.name).collect::<Vec<_>>()).map_err(|e| e.to_string())
        };
        assert!(with(&[], &["LimitRanger", "AlwaysAdmit"]).is_ok_and(|on| !on.contains(&"LimitRanger") && on.contains(&"Priority")));
        let text = |r: Result<Vec<&str>, String>| r.err().unwrap_or_default();
        assert!(text(with(&["Nonsense"], &[])).contains("enable-admission-plugins plugin \"Nonsense\" is unknown"));
        assert!(text(with(&["AlwaysDeny"], &[])).contains("not part of this server"));
        assert!(text(with(&["Priority"], &["Priority"])).contains("overlapped"));
    }
}
