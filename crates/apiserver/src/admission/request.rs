//! What is to be admitted: upstream's `admission.Attributes`. Made by the verbs and subresources, read by every plugin.

use std::sync::Arc;

use auth::User;
use kinds::Resource;
use machinery::gvk::{GroupVersionKind, GroupVersionResource};
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::notes::Notes;
use super::reinvocation::Reinvocation;
use crate::chain::Call;
use crate::state::Api;
use crate::verbs::Target;
use crate::verbs::delete::DeleteOptions;
use crate::verbs::options::WriteOptions;
use crate::verbs::write::Ctx;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// exec, attach, portforward, proxy: the object is their options.
    Connect,
}

impl Operation {
    /// As in rules and reviews.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// The options object of a request.
#[derive(Clone, Copy)]
enum Options<'a> {
    Write(&'a WriteOptions),
    Delete(&'a DeleteOptions),
    /// Connecting has none.
    None,
}

/// What is to be admitted.
pub struct Request<'a> {
    pub api: &'a Arc<Api>,
    pub operation: Operation,
    /// What the URL names, without its subresource.
    pub resource: &'a Resource,
    pub subresource: &'a str,
    /// Of the object that is admitted: that of the subresource where it has one of its own (Scale, Eviction, PodExecOptions).
    pub kind: GroupVersionKind,
    /// Of a Namespace, its own name.
    pub namespace: &'a str,
    /// Empty for a create whose name is still to be generated, and for a collection.
    pub name: &'a str,
    pub user: &'a User,
    pub dry_run: bool,
    /// Whether plugins are asked again because a webhook or a policy changed the object.
    pub reinvocation: Reinvocation,
    /// Warnings for the client, and audit annotations.
    pub notes: &'a Notes,
    options: Options<'a>,
}

impl<'a> Request<'a> {
    /// A create or an update; of a create the target has the object's own name, where it has one yet.
    pub fn new(ctx: &'a Ctx, target: &'a Target, operation: Operation) -> Self {
        let base = Self::base(&ctx.api, &ctx.user, &ctx.notes, target, operation);
        Self { dry_run: ctx.options.dry_run, options: Options::Write(&ctx.options), ..base }
    }

    pub fn delete(ctx: &'a Ctx, target: &'a Target, options: &'a DeleteOptions) -> Self {
        let base = Self::base(&ctx.api, &ctx.user, &ctx.notes, target, Operation::Delete);
        Self { dry_run: ctx.options.dry_run, options: Options::Delete(options), ..base }
    }

    pub fn connect(call: &'a Call, target: &'a Target) -> Self {
        Self::base(&call.api, &call.user, &call.notes, target, Operation::Connect)
    }

    fn base(api: &'a Arc<Api>, user: &'a User, notes: &'a Notes, target: &'a Target, operation: Operation) -> Self {
        let resource = &*target.resource;
        let own_namespace = resource.group.is_empty() && resource.kind == "Namespace";
        Self {
            api,
            operation,
            resource,
            subresource: &target.subresource,
            kind: resource.subresource(&target.subresource).map_or_else(|| resource.gvk(), |sub| sub.kind.clone()),
            namespace: if own_namespace { &target.name } else { &target.namespace },
            name: &target.name,
            user,
            dry_run: false,
            reinvocation: Reinvocation::default(),
            notes,
            options: Options::None,
        }
    }

    /// Deleting a collection names no object, only its namespace.
    pub fn of_collection(self) -> Self {
        Self { name: "", ..self }
    }

    /// Whether it is about objects of a kind themselves, not a subresource.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.subresource.is_empty() && self.resource.group == group && self.resource.kind == kind
    }

    /// The resource the request named.
    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(self.resource.group.clone(), self.resource.version.clone(), self.resource.resource.clone())
    }

    /// The options as an object of `meta.k8s.io/v1`; null for connecting.
    pub fn options(&self) -> Value {
        match self.options {
            Options::Write(options) => options.to_object(self.operation == Operation::Create),
            Options::Delete(options) => options.to_object(),
            Options::None => Value::Null,
        }
    }

    /// Adds to the audit event; keys are `plugin.domain/key`. What is there already stays, as upstream has it.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        self.notes.annotate(key, value);
    }

    /// Warns the client.
    pub fn warn(&self, text: impl Into<String>) {
        self.notes.warn(text);
    }

    /// Upstream's `admission.NewForbidden`.
    pub fn forbidden(&self, value: &Value, why: &str) -> StatusError {
        let own = machinery::object::name(value);
        let name = match (own.is_empty(), self.name.is_empty()) {
            (false, _) if self.name.is_empty() => own,
            (_, false) => self.name,
            _ if machinery::object::str_at(value, "metadata.generateName").is_empty() => "Unknown",
            _ => machinery::object::str_at(value, "metadata.generateName"),
        };
        StatusError::forbidden(&self.resource.group_resource(), name, why)
    }
}

impl WriteOptions {
    /// What the client asked, as upstream hands it to plugins. A patch or an update may become a creation.
    fn to_object(&self, creating: bool) -> Value {
        let kind = if creating || self.given.kind.is_empty() { "CreateOptions" } else { self.given.kind };
        let mut out = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            out["dryRun"] = json!(["All"]);
        }
        for (key, text) in [("fieldManager", &self.given.manager), ("fieldValidation", &self.given.validation)] {
            if !text.is_empty() {
                out[key] = json!(text);
            }
        }
        if kind == "PatchOptions" && self.given.force {
            out["force"] = json!(self.force);
        }
        out
    }
}

impl DeleteOptions {
    fn to_object(&self) -> Value {
        let mut out = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                out[key] = value;
            }
        };
        set("gracePeriodSeconds", self.grace_seconds.map(|s| json!(s)));
        set("orphanDependents", self.orphan_dependents.map(|o| json!(o)));
        set("propagationPolicy", self.propagation.as_ref().map(|p| json!(p)));
        set("dryRun", (!self.dry_run.is_empty()).then(|| json!(self.dry_run)));
        let mut preconditions = serde_json::Map::new();
        for (key, value) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(value) = value {
                preconditions.insert(key.to_owned(), json!(value));
            }
        }
        set("preconditions", (!preconditions.is_empty()).then_some(Value::Object(preconditions)));
        out
    }
}
