//! Admission: plugins that change or refuse writes after authorization. A plugin is one file and one row of [`TABLE`], in
//! upstream's order.

mod default_toleration_seconds;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod service_account;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;

use std::sync::Arc;

use async_trait::async_trait;
use auth::User;
use kinds::Resource;
use machinery::status::StatusError;
use serde_json::Value;

use crate::config::Config;
use crate::state::Api;
use crate::verbs::Target;
use crate::verbs::write::Ctx;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// What is to be admitted.
pub struct Request<'a> {
    pub api: &'a Arc<Api>,
    pub operation: Operation,
    pub resource: &'a Resource,
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty for a create whose name is still to be generated.
    pub name: &'a str,
    pub user: &'a User,
}

impl<'a> Request<'a> {
    pub fn new(ctx: &'a Ctx, target: &'a Target, operation: Operation) -> Self {
        Self {
            api: &ctx.api,
            operation,
            resource: &target.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            user: &ctx.user,
        }
    }

    /// Whether it is about objects of a kind themselves, not a subresource.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.subresource.is_empty() && self.resource.group == group && self.resource.kind == kind
    }

    /// Upstream's `admission.NewForbidden`.
    pub fn forbidden(&self, value: &Value, why: &str) -> StatusError {
        let own = machinery::object::name(value);
        let name = match (own.is_empty(), self.name.is_empty()) {
            (false, _) => own,
            (true, false) => self.name,
            (true, true) if machinery::object::str_at(value, "metadata.generateName").is_empty() => "Unknown",
            (true, true) => machinery::object::str_at(value, "metadata.generateName"),
        };
        StatusError::forbidden(&self.resource.group_resource(), name, why)
    }
}

/// One plugin. `handles` is asked first, so that most plugins cost a comparison.
#[async_trait]
pub trait Plugin: Send + Sync {
    fn handles(&self, request: &Request<'_>) -> bool;

    async fn mutate(&self, _request: &Request<'_>, _value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        Ok(())
    }

    /// `value` is null for deletes.
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
    Row { name: "ServiceAccount", on_by_default: true, plugin: &service_account::ServiceAccount },
    Row { name: "NodeRestriction", on_by_default: true, plugin: &node_restriction::NodeRestriction },
    Row { name: "TaintNodesByCondition", on_by_default: true, plugin: &taint_nodes_by_condition::TaintNodesByCondition },
    Row { name: "Priority", on_by_default: true, plugin: &priority::Priority },
    Row { name: "DefaultTolerationSeconds", on_by_default: true, plugin: &default_toleration_seconds::DefaultTolerationSeconds },
    Row {
        name: "StorageObjectInUseProtection",
        on_by_default: true,
        plugin: &storage_object_in_use_protection::StorageObjectInUseProtection,
    },
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
    for row in &request.api.plugins.0 {
        if row.plugin.handles(request) {
            row.plugin.mutate(request, value, old).await?;
        }
    }
    Ok(())
}

pub async fn validate(request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
    for row in &request.api.plugins.0 {
        if row.plugin.handles(request) {
            row.plugin.validate(request, value, old).await?;
        }
    }
    Ok(())
}
