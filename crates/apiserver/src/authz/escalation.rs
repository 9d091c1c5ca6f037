//! Nobody hands out more than they hold: what upstream's `policybased` storages check before a role or binding is written.
//! `verbs::write` calls this on every path (create, update, patch, apply), after mutating admission and before validation.

use auth::rbac::{RoleRef, Rule, escalation, rules_of};
use auth::{Attributes, Decision, user};
use machinery::object::{self, metadata_mut};
use machinery::status::StatusError;
use serde::Deserialize as _;
use serde_json::Value;

use crate::verbs::Target;
use crate::verbs::write::Ctx;

const GROUP: &str = "rbac.authorization.k8s.io";

/// `old` is `None` for a new object.
pub async fn check(ctx: &Ctx, target: &Target, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
    if target.resource.group != GROUP || !target.subresource.is_empty() || ctx.user.in_group(user::SYSTEM_MASTERS) {
        return Ok(());
    }
    if old.is_some_and(|old| only_for_garbage_collection(value, old)) {
        return Ok(());
    }
    match target.resource.kind.as_str() {
        "Role" | "ClusterRole" => role(ctx, target, value, old).await,
        "RoleBinding" | "ClusterRoleBinding" => binding(ctx, target, value).await,
        _ => Ok(()),
    }
}

/// Owners and finalizers alone change: the garbage collector must be able to.
fn only_for_garbage_collection(value: &Value, old: &Value) -> bool {
    let mut value = value.clone();
    for key in ["ownerReferences", "finalizers", "managedFields"] {
        match old.pointer(&format!("/metadata/{key}")) {
            Some(before) => drop(metadata_mut(&mut value).insert(key.to_owned(), before.clone())),
            None => drop(metadata_mut(&mut value).remove(key)),
        }
    }
    value == *old
}

async fn role(ctx: &Ctx, target: &Target, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
    if allowed(ctx, "escalate", target, &target.resource.resource, &target.name).await {
        return Ok(());
    }
    confirm(ctx, target, value, &rules_of(value))?;
    // A sum may become anything.
    if target.resource.kind == "ClusterRole" && (adds_up(value) || old.is_some_and(adds_up)) {
        let policy = ctx.api.authorizer.policy();
        if escalation::confirm_no_escalation(&policy, &ctx.user, "", &escalation::everything()).is_err() {
            return Err(forbidden(target, value, "must have cluster-admin privileges to use an aggregationRule"));
        }
    }
    Ok(())
}

fn adds_up(role: &Value) -> bool {
    let selectors = object::at(role, "aggregationRule.clusterRoleSelectors").and_then(Value::as_array);
    selectors.is_some_and(|s| !s.is_empty())
}

async fn binding(ctx: &Ctx, target: &Target, value: &Value) -> Result<(), StatusError> {
    let role = value.get("roleRef").and_then(|r| RoleRef::deserialize(r).ok()).unwrap_or_default();
    let resource = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
    if allowed(ctx, "bind", target, resource, &role.name).await {
        return Ok(());
    }
    let policy = ctx.api.authorizer.policy();
    let known = matches!(role.kind.as_str(), "ClusterRole" | "Role");
    let Some(rules) = policy.rules(&role, &target.namespace) else {
        let error = if known {
            StatusError::not_found(&target.resource.group_resource(), &role.name)
        } else {
            StatusError::internal(format!("unsupported role reference kind: {:?}", role.kind))
        };
        return Err(error);
    };
    confirm(ctx, target, value, rules)
}

/// Whether the special verb is granted, which lifts the check.
async fn allowed(ctx: &Ctx, verb: &str, target: &Target, resource: &str, name: &str) -> bool {
    let asked = Attributes {
        user: ctx.user.clone(),
        verb: verb.to_owned(),
        namespace: target.namespace.clone(),
        group: GROUP.to_owned(),
        version: "*".to_owned(),
        resource: resource.to_owned(),
        name: name.to_owned(),
        is_resource: true,
        ..Attributes::default()
    };
    matches!(ctx.api.authorizer.decide(&asked).await, Decision::Allow(_))
}

fn confirm(ctx: &Ctx, target: &Target, value: &Value, wanted: &[Rule]) -> Result<(), StatusError> {
    let policy = ctx.api.authorizer.policy();
    escalation::confirm_no_escalation(&policy, &ctx.user, &target.namespace, wanted).map_err(|why| forbidden(target, value, &why))
}

fn forbidden(target: &Target, value: &Value, why: &str) -> StatusError {
    StatusError::forbidden(&target.resource.group_resource(), object::name(value), why)
}
