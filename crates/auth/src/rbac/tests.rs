//! Decisions over small policies, and over the bootstrap policy.

use serde_json::json;

use super::escalation::confirm_no_escalation;
use super::*;
use crate::bootstrap;

fn ask(user: &User, verb: &str, group: &str, resource: &str, namespace: &str) -> Attributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        user: user.clone(),
        verb: verb.into(),
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        is_resource: true,
        ..Attributes::default()
    }
}

fn allowed(policy: &Policy, asked: &Attributes) -> bool {
    matches!(policy.authorize(asked), Decision::Allow(_))
}

#[test]
fn the_bootstrap_policy_decides_as_upstream() {
    let objects = bootstrap::objects();
    let policy = Policy::new(&objects);
    let root = User::new("root", &["system:masters"]);
    let scheduler = User::new("system:kube-scheduler", &[]);
    let bob = User::new("bob", &[]);
    for (user, verb, group, resource, want) in [
        (&root, "delete", "apps", "deployments", true),
        (&scheduler, "create", "", "pods/binding", true),
        (&scheduler, "create", "", "pods", false),
        (&bob, "create", "authorization.k8s.io", "selfsubjectaccessreviews", true),
        (&bob, "get", "", "pods", false),
    ] {
        assert_eq!(allowed(&policy, &ask(user, verb, group, resource, "ns")), want, "{} {verb} {resource}", user.name);
    }
    let gc = User::service_account("kube-system", "generic-garbage-collector");
    assert!(allowed(&policy, &ask(&gc, "delete", "apps", "replicasets", "x")));
    let anonymous = Attributes { user: User::anonymous(), verb: "get".into(), path: "/version".into(), ..Attributes::default() };
    assert!(allowed(&policy, &anonymous));
}

#[test]
fn a_role_binding_to_admin_gets_the_aggregated_rules_in_its_namespace_only() {
    let mut objects = bootstrap::objects();
    objects.push(json!({"kind": "RoleBinding", "metadata": {"name": "b", "namespace": "a"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "User", "name": "bob"}]}));
    let policy = Policy::new(&objects);
    let bob = User::new("bob", &[]);
    assert!(allowed(&policy, &ask(&bob, "create", "apps", "deployments", "a")));
    assert!(allowed(&policy, &ask(&bob, "get", "", "pods", "a")));
    assert!(!allowed(&policy, &ask(&bob, "get", "", "pods", "b")));
    let Decision::Allow(reason) = policy.authorize(&ask(&bob, "get", "", "pods", "a")) else { unreachable!() };
    assert_eq!(reason, "RBAC: allowed by RoleBinding \"b/a\" of ClusterRole \"admin\" to User \"bob\"");
}

#[test]
fn one_cannot_grant_what_one_has_not() {
    let objects = [
        json!({"kind": "Role", "metadata": {"name": "r", "namespace": "a"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
        json!({"kind": "RoleBinding", "metadata": {"name": "b", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "Group", "name": "g"}]}),
    ];
    let policy = Policy::new(&objects);
    let bob = User::new("bob", &["g"]);
    let rule = |verbs: &[&str]| Rule {
        verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
        groups: vec![String::new()],
        resources: vec!["pods".into()],
        ..Rule::default()
    };
    assert!(confirm_no_escalation(&policy, &bob, "a", &[rule(&["get"])]).is_ok());
    let text = confirm_no_escalation(&policy, &bob, "a", &[rule(&["get", "list", "delete"])]).unwrap_err();
    assert_eq!(
        text,
        "user \"bob\" (groups=[\"g\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"delete\"]}"
    );
}
