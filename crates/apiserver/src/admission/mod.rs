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

use async_trait::async_trait;
use machinery::status::StatusError;
use serde_json::Value;

pub use notes::Notes;
pub use policy::Policies;
pub use request::{Operation, Request};
pub use webhooks::Hooks;

use crate::chain::Call;
use crate::config::Config;
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

impl Plugins {
    pub fn new(config: &Config) -> Self {
        let on = |row: &&Row| {
            let named = |list: &[String]| list.iter().any(|n| n == row.name);
            (row.on_by_default || named(&config.enable_admission_plugins)) && !named(&config.disable_admission_plugins)
        };
        Self(TABLE.iter().filter(on).collect())
    }
}

pub async fn mutate(request: &Request<'_>, value: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
    loop {
        for row in &request.api.plugins.0 {
            if row.plugin.handles(request) {
                row.plugin.mutate(request, value, old).await?;
            }
        }
        if !request.reinvocation.begin_second() {
            return Ok(());
        }
    }
}

pub async fn validate(request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
    for row in &request.api.plugins.0 {
        if row.plugin.handles(request) {
            row.plugin.validate(request, value, old).await?;
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
