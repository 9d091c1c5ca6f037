//! Which requests a webhook or a policy is about: rules, scope, selectors of the namespace and of the object, and other
//! versions of what was asked for (upstream's `rules.Matcher`, `namespace.Matcher`, `object.Matcher`).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use kinds::Resource;
use machinery::gvk::{GroupVersionKind, GroupVersionResource};
use machinery::labels::Selector;
use machinery::object::str_at;
use machinery::status::StatusError;
use serde_json::Value;

use super::{Operation, Request};
use crate::registry::Registry;
use crate::state::Api;
use crate::{conversion, custom};

/// Configurations of admission are admitted by nobody's webhook or policy, so that a bad one can always be taken back.
const EXEMPT_GROUP: &str = "admissionregistration.k8s.io";
const EXEMPT: [&str; 6] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

pub fn is_exempt(request: &Request<'_>) -> bool {
    request.resource.group == EXEMPT_GROUP && EXEMPT.contains(&request.resource.kind.as_str())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Cluster,
    Namespaced,
}

/// `RuleWithOperations`, and the `resourceNames` of policies.
#[derive(Clone, Debug)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    names: Vec<String>,
    scope: Scope,
}

fn any(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl Rule {
    pub fn parse(rule: &Value) -> Self {
        let list = |key: &str| -> Vec<String> {
            rule.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let split = |text: &String| text.split_once('/').map_or((text.clone(), String::new()), |(r, s)| (r.to_owned(), s.to_owned()));
        Self {
            operations: list("operations"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            resources: list("resources").iter().map(split).collect(),
            names: list("resourceNames"),
            scope: match str_at(rule, "scope") {
                "Cluster" => Scope::Cluster,
                "Namespaced" => Scope::Namespaced,
                _ => Scope::All,
            },
        }
    }

    /// Whether the request is one of the rule's, if it were for this resource.
    fn matches(&self, request: &Request<'_>, resource: &Resource) -> bool {
        self.in_scope(request, resource)
            && any(&self.operations, request.operation.name())
            && any(&self.groups, &resource.group)
            && any(&self.versions, &resource.version)
            && self.resources.iter().any(|(r, s)| (r == "*" || *r == resource.resource) && (s == "*" || s == request.subresource))
            && (self.names.is_empty() || self.names.iter().any(|n| n == request.name))
    }

    fn in_scope(&self, request: &Request<'_>, resource: &Resource) -> bool {
        let is_namespace = resource.group.is_empty() && resource.version == "v1" && resource.resource == "namespaces";
        let cluster = is_namespace || request.namespace.is_empty();
        match self.scope {
            Scope::All => true,
            Scope::Cluster => cluster,
            Scope::Namespaced => !cluster,
        }
    }
}

/// The resource a rule was found for: that of the request, or another version of it, which the object is then shown in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    pub resource: GroupVersionResource,
    pub kind: GroupVersionKind,
    /// The kind differs from the request's.
    pub converted: bool,
}

impl Matched {
    fn of(request: &Request<'_>, row: &Resource) -> Self {
        let kind = row.subresource(request.subresource).map_or_else(|| row.gvk(), |sub| sub.kind.clone());
        Self { resource: row.gvr(), converted: kind != request.kind, kind }
    }
}

/// The place of the first rule that takes the request; with `equivalent` also by other versions of the resource.
pub fn find(rules: &[Rule], equivalent: bool, request: &Request<'_>) -> Option<Matched> {
    if rules.iter().any(|rule| rule.matches(request, request.resource)) {
        return Some(Matched { resource: request.resource.gvr(), kind: request.kind.clone(), converted: false });
    }
    if !equivalent {
        return None;
    }
    let others = equivalents(&request.api.registry, request.resource);
    let others: Vec<&Arc<Resource>> =
        others.iter().filter(|row| request.subresource.is_empty() || row.subresource(request.subresource).is_some()).collect();
    rules.iter().find_map(|rule| others.iter().find(|row| rule.matches(request, row)).map(|row| Matched::of(request, row)))
}

/// The other rows that show the same stored objects.
fn equivalents(registry: &Registry, resource: &Resource) -> Vec<Arc<Resource>> {
    static BUILT_IN: LazyLock<HashMap<&'static str, Vec<Arc<Resource>>>> = LazyLock::new(|| {
        let mut out: HashMap<&'static str, Vec<Arc<Resource>>> = HashMap::new();
        for row in kinds::table().resources().iter().filter(|r| !r.storage_prefix.is_empty()) {
            out.entry(&row.storage_prefix).or_default().push(row.clone());
        }
        out.retain(|_, rows| rows.len() > 1);
        out
    });
    let other = |row: &&Arc<Resource>| row.storage_prefix == resource.storage_prefix && row.gvr() != resource.gvr();
    if kinds::table().by_resource(&resource.gvr()).is_some() {
        return BUILT_IN.get(resource.storage_prefix.as_str()).into_iter().flatten().filter(other).cloned().collect();
    }
    registry.snapshot().resources().filter(|r| r.group == resource.group).filter(other).cloned().collect()
}

/// Whether the selectors take the request: of its namespace's labels, and of the object's, as it is or as it was.
pub async fn selected(
    request: &Request<'_>,
    namespaces: &Selector,
    objects: &Selector,
    value: &Value,
    old: Option<&Value>,
) -> Result<bool, StatusError> {
    if !objects.is_everything() {
        let takes =
            |object: &Value| object.is_object() && object.get("metadata").is_some_and(Value::is_object) && objects.matches_object(object);
        if !takes(value) && !old.is_some_and(takes) {
            return Ok(false);
        }
    }
    if namespaces.is_everything() {
        return Ok(true);
    }
    let own = request.resource.group.is_empty() && request.resource.resource == "namespaces";
    if request.namespace.is_empty() && !own {
        return Ok(true);
    }
    if own && request.subresource.is_empty() && matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(namespaces.matches_object(value));
    }
    let found = request.api.read_kind("", "Namespace", "", request.namespace).await?;
    let missing = || StatusError::not_found(&machinery::gvk::GroupResource::new("", "namespaces"), request.namespace);
    Ok(namespaces.matches_object(&found.ok_or_else(missing)?))
}

/// The object as the matched version shows it.
pub async fn shown(request: &Request<'_>, matched: &Matched, object: &Value) -> Result<Value, StatusError> {
    if !matched.converted || object.is_null() {
        return Ok(object.clone());
    }
    converted(request.api, request.resource, &*row(request, matched)?, object.clone()).await
}

/// An object of the matched version as the request's shows it.
pub async fn taken_back(request: &Request<'_>, matched: &Matched, object: Value) -> Result<Value, StatusError> {
    if !matched.converted {
        return Ok(object);
    }
    converted(request.api, &*row(request, matched)?, request.resource, object).await
}

async fn converted(api: &Arc<Api>, from: &Resource, to: &Resource, object: Value) -> Result<Value, StatusError> {
    let Some(custom) = &to.custom else {
        return Ok(conversion::from_storage(to, conversion::to_storage(from, object)));
    };
    let mut all = custom::convert::served(api, to, custom, vec![object]).await?;
    all.pop().ok_or_else(|| StatusError::internal("conversion lost an object"))
}

fn row(request: &Request<'_>, matched: &Matched) -> Result<Arc<Resource>, StatusError> {
    let gvr = &matched.resource;
    let row = request.api.registry.resource(&gvr.group, &gvr.version, &gvr.resource);
    row.ok_or_else(|| StatusError::internal(format!("unable to convert to {gvr}: unknown kind")))
}
