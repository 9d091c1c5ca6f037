//! Roles and bindings. Escalation checks are the API server's; these are the rules of form.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use crate::columns::{age, name};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::go;
use crate::validate::rules::{dns_subdomain, named, one_of};
use crate::validate::selector::label_selector;
use crate::validate::tree::{is_empty, list, list_mut, opt, s, same, set_default};

const GROUP: &str = "rbac.authorization.k8s.io";
static NULL: Value = Value::Null;

/// Roles (`cluster` false) and ClusterRoles.
pub struct Roles {
    pub cluster: bool,
}

impl Strategy for Roles {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: true, ..MetaRules::default() }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let (mut e, p) = (ErrorList::new(), Path::new("rules"));
        for (i, rule) in list(object, "rules").iter().enumerate() {
            policy_rule(rule, !self.cluster, &p.index(i), &mut e);
        }
        let Some(aggregation) = opt(object, "aggregationRule").filter(|_| self.cluster) else { return e };
        let root = Path::new("aggregationRule");
        let at = root.child("clusterRoleSelectors");
        if is_empty(aggregation, "clusterRoleSelectors") {
            e.push(Error::required(&at, "at least one clusterRoleSelector required if aggregationRule is non-nil"));
        }
        for (i, selector) in list(aggregation, "clusterRoleSelectors").iter().enumerate() {
            let at = at.index(i);
            let before = e.len();
            label_selector(selector, &at, &mut e);
            if e.len() != before {
                e.push(Error::invalid(&at, &NULL, "invalid label selector."));
            }
        }
        e
    }

    fn cells(&self, o: &Value, _now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), crate::columns::created_at(o)])
    }
}

fn policy_rule(rule: &Value, namespaced: bool, p: &Path<'_>, e: &mut ErrorList) {
    if is_empty(rule, "verbs") {
        e.push(Error::required(&p.child("verbs"), "verbs must contain at least one value"));
    }
    if !is_empty(rule, "nonResourceURLs") {
        let at = p.child("nonResourceURLs");
        if namespaced {
            e.push(Error::invalid(&at, &rule["nonResourceURLs"], "namespaced rules cannot apply to non-resource URLs"));
        }
        let resources = ["apiGroups", "resources", "resourceNames"].iter().any(|key| !is_empty(rule, key));
        if resources {
            e.push(Error::invalid(&at, &rule["nonResourceURLs"], "rules cannot apply to both regular resources and non-resource URLs"));
        }
        return;
    }
    if is_empty(rule, "apiGroups") {
        e.push(Error::required(&p.child("apiGroups"), "resource rules must supply at least one api group"));
    }
    if is_empty(rule, "resources") {
        e.push(Error::required(&p.child("resources"), "resource rules must supply at least one resource"));
    }
}

/// RoleBindings (`cluster` false) and ClusterRoleBindings.
pub struct Bindings {
    pub cluster: bool,
}

impl Strategy for Bindings {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { create_on_update: true, ..MetaRules::default() }
    }

    fn default(&self, _ctx: &Context, object: &mut Value) {
        if let Some(role) = object.get_mut("roleRef").filter(|r| r.is_object()) {
            set_default(role, "apiGroup", GROUP);
        }
        for subject in list_mut(object, "subjects") {
            if matches!(s(subject, "kind"), "User" | "Group") {
                set_default(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        let (p, empty) = (Path::new("roleRef"), json!({}));
        let role = opt(object, "roleRef").unwrap_or(&empty);
        one_of(&p.child("apiGroup"), s(role, "apiGroup"), &[GROUP], &mut e);
        let kinds: &[&str] = if self.cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
        one_of(&p.child("kind"), s(role, "kind"), kinds, &mut e);
        match s(role, "name") {
            "" => e.push(Error::required(&p.child("name"), "")),
            name => named(&p.child("name"), name, names::path_segment(name, false), &mut e),
        }
        let p = Path::new("subjects");
        for (i, subject) in list(object, "subjects").iter().enumerate() {
            subject_rule(subject, !self.cluster, &p.index(i), &mut e);
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = self.validate(ctx, new);
        if !same(opt(new, "roleRef"), opt(old, "roleRef")) {
            let role = opt(new, "roleRef").unwrap_or(&NULL);
            e.push(go::invalid(&Path::new("roleRef"), role, "rbac.v1.RoleRef", "cannot change roleRef"));
        }
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        let role = opt(o, "roleRef").unwrap_or(&NULL);
        let of = |kind: &str| {
            let names: Vec<String> = list(o, "subjects")
                .iter()
                .filter(|x| s(x, "kind") == kind)
                .map(|x| if kind == "ServiceAccount" { format!("{}/{}", s(x, "namespace"), s(x, "name")) } else { s(x, "name").to_owned() })
                .collect();
            json!(names.join(", "))
        };
        Some(vec![
            name(o),
            json!(format!("{}/{}", s(role, "kind"), s(role, "name"))),
            age(o, now),
            of("User"),
            of("Group"),
            of("ServiceAccount"),
        ])
    }
}

fn subject_rule(v: &Value, namespaced: bool, p: &Path<'_>, e: &mut ErrorList) {
    if s(v, "name").is_empty() {
        e.push(Error::required(&p.child("name"), ""));
    }
    match s(v, "kind") {
        "ServiceAccount" => {
            if !s(v, "name").is_empty() {
                dns_subdomain(&p.child("name"), s(v, "name"), e);
            }
            if !s(v, "apiGroup").is_empty() {
                one_of(&p.child("apiGroup"), s(v, "apiGroup"), &[""], e);
            }
            if !namespaced && s(v, "namespace").is_empty() {
                e.push(Error::required(&p.child("namespace"), ""));
            }
        }
        "User" | "Group" => one_of(&p.child("apiGroup"), s(v, "apiGroup"), &[GROUP], e),
        other => e.push(Error::not_supported(&p.child("kind"), &json!(other), &["ServiceAccount", "User", "Group"])),
    }
}
