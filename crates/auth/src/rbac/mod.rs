//! RBAC: the policy compiled from Role, ClusterRole and binding objects, and what it decides. Escalation is in `escalation`.

pub mod escalation;
mod rule;

use std::collections::HashMap;
use std::sync::Arc;

pub use rule::Rule;
use serde::Deserialize;
use serde_json::Value;

use crate::attributes::{Attributes, Decision};
use crate::user::User;

/// Who a binding binds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Subject {
    pub kind: String,
    pub api_group: String,
    pub name: String,
    pub namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoleRef {
    pub api_group: String,
    pub kind: String,
    pub name: String,
}

#[derive(Clone, Debug)]
struct Binding {
    name: String,
    namespace: String,
    subjects: Vec<Subject>,
    role: RoleRef,
}

/// The RBAC objects of a cluster, indexed. Rebuilt by the API server when one of them changes.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    cluster_roles: HashMap<String, Arc<Vec<Rule>>>,
    roles: HashMap<(String, String), Arc<Vec<Rule>>>,
    cluster_bindings: Vec<Binding>,
    bindings: HashMap<String, Vec<Binding>>,
}

/// A set of rules that applies to a user, with why.
struct Grant<'a> {
    binding: &'a Binding,
    subject: &'a Subject,
    rules: Option<&'a Arc<Vec<Rule>>>,
}

impl Policy {
    /// From the four kinds of objects; aggregated ClusterRoles get the rules of those they select.
    pub fn new<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut policy = Self::default();
        let mut aggregated: Vec<&Value> = Vec::new();
        let mut cluster_roles: Vec<&Value> = Vec::new();
        for object in objects {
            let name = machinery::object::name(object).to_owned();
            let namespace = machinery::object::namespace(object).to_owned();
            match machinery::object::str_at(object, "kind") {
                "ClusterRole" => {
                    cluster_roles.push(object);
                    if object.get("aggregationRule").is_some_and(|a| !a.is_null()) {
                        aggregated.push(object);
                    }
                    policy.cluster_roles.insert(name, Arc::new(rules_of(object)));
                }
                "Role" => {
                    policy.roles.insert((namespace, name), Arc::new(rules_of(object)));
                }
                "ClusterRoleBinding" => policy.cluster_bindings.extend(binding_of(object)),
                "RoleBinding" => policy.bindings.entry(namespace).or_default().extend(binding_of(object)),
                _ => {}
            }
        }
        policy.aggregate(&aggregated, &cluster_roles);
        policy
    }

    fn aggregate(&mut self, aggregated: &[&Value], all: &[&Value]) {
        // Twice: `admin` selects `edit`, which itself selects.
        for _ in 0..3 {
            for role in aggregated {
                let mut rules: Vec<Rule> = Vec::new();
                for other in all.iter().filter(|o| aggregates(role, o)) {
                    if let Some(more) = self.cluster_roles.get(machinery::object::name(other)) {
                        for rule in more.iter().filter(|r| !rules.contains(r)).cloned().collect::<Vec<_>>() {
                            rules.push(rule);
                        }
                    }
                }
                self.cluster_roles.insert(machinery::object::name(role).to_owned(), Arc::new(rules));
            }
        }
    }

    /// The rules of a role a binding names: a `ClusterRole`, or a `Role` in `namespace`.
    pub fn rules(&self, role: &RoleRef, namespace: &str) -> Option<&Arc<Vec<Rule>>> {
        match role.kind.as_str() {
            "ClusterRole" => self.cluster_roles.get(&role.name),
            "Role" => self.roles.get(&(namespace.to_owned(), role.name.clone())),
            _ => None,
        }
    }

    fn grants<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = Grant<'a>> {
        let cluster = self.cluster_bindings.iter();
        let local = self.bindings.get(namespace).filter(|_| !namespace.is_empty()).into_iter().flatten();
        cluster.chain(local).filter_map(move |binding| {
            let subject = binding.subjects.iter().find(|s| applies(s, user, &binding.namespace))?;
            Some(Grant { binding, subject, rules: self.rules(&binding.role, namespace) })
        })
    }

    /// RBAC never denies: it allows or has no opinion. The texts are upstream's.
    pub fn authorize(&self, asked: &Attributes) -> Decision {
        let mut missing: Vec<String> = Vec::new();
        for grant in self.grants(&asked.user, &asked.namespace) {
            match grant.rules {
                Some(rules) if rules.iter().any(|r| r.allows(asked)) => return Decision::Allow(grant.reason()),
                Some(_) => {}
                None => missing.push(not_found(&grant.binding.role)),
            }
        }
        let reason = match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        };
        Decision::NoOpinion(reason)
    }

    /// Every rule that applies to a user in a namespace, and what could not be resolved.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let mut rules = Vec::new();
        let mut errors = Vec::new();
        for grant in self.grants(user, namespace) {
            match grant.rules {
                Some(more) => rules.extend(more.iter().cloned()),
                None => errors.push(not_found(&grant.binding.role)),
            }
        }
        (rules, errors)
    }
}

impl Grant<'_> {
    fn reason(&self) -> String {
        let Binding { name, namespace, role, .. } = self.binding;
        let subject = match self.subject.kind.as_str() {
            "ServiceAccount" => format!("ServiceAccount {:?}", format!("{}/{}", self.subject.name, self.subject.namespace)),
            kind => format!("{kind} {:?}", self.subject.name),
        };
        if namespace.is_empty() {
            format!("RBAC: allowed by ClusterRoleBinding {name:?} of {} {:?} to {subject}", role.kind, role.name)
        } else {
            format!("RBAC: allowed by RoleBinding {:?} of {} {:?} to {subject}", format!("{name}/{namespace}"), role.kind, role.name)
        }
    }
}

fn not_found(role: &RoleRef) -> String {
    let resource = if role.kind == "ClusterRole" { "clusterrole" } else { "role" };
    format!("{resource}.rbac.authorization.k8s.io {:?} not found", role.name)
}

/// The rules of a Role or ClusterRole object; a rule that does not parse grants nothing.
pub fn rules_of(object: &Value) -> Vec<Rule> {
    let rules = object.get("rules").and_then(Value::as_array);
    rules.into_iter().flatten().filter_map(|r| Rule::deserialize(r).ok()).collect()
}

fn binding_of(object: &Value) -> Option<Binding> {
    let role = RoleRef::deserialize(object.get("roleRef")?).ok()?;
    let subjects = object.get("subjects").and_then(Value::as_array);
    let subjects = subjects.into_iter().flatten().filter_map(|s| Subject::deserialize(s).ok()).collect();
    let name = machinery::object::name(object).to_owned();
    Some(Binding { name, namespace: machinery::object::namespace(object).to_owned(), subjects, role })
}

fn applies(subject: &Subject, user: &User, binding_namespace: &str) -> bool {
    match subject.kind.as_str() {
        "User" => subject.name == user.name,
        "Group" => user.in_group(&subject.name),
        "ServiceAccount" => {
            let namespace = if subject.namespace.is_empty() { binding_namespace } else { &subject.namespace };
            !namespace.is_empty() && user.as_service_account() == Some((namespace, subject.name.as_str()))
        }
        _ => false,
    }
}

/// Whether an aggregated ClusterRole takes in the rules of another.
fn aggregates(role: &Value, other: &Value) -> bool {
    if machinery::object::name(role) == machinery::object::name(other) {
        return false;
    }
    let selectors = machinery::object::at(role, "aggregationRule.clusterRoleSelectors").and_then(Value::as_array);
    selectors.into_iter().flatten().any(|s| selects(s, other))
}

fn selects(selector: &Value, other: &Value) -> bool {
    machinery::labels::from_label_selector(Some(selector)).is_ok_and(|selector| selector.matches_object(other))
}

#[cfg(test)]
mod tests;
