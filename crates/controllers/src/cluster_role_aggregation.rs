//! ClusterRoles that are the sum of others, chosen by label. Upstream's `clusterroleaggregation`.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::json;

use crate::action::{Action, Outcome, Target, to_value};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, selector};

/// Who owns the rules of a sum.
const MANAGER: &str = "clusterrole-aggregation-controller";

pub const CONTROLLER: Controller =
    Controller { name: MANAGER, identity: MANAGER, component: MANAGER, watches: &[Watch::ClusterRoles(sums)], reconcile };

/// Every sum: which roles it adds up may have changed either way.
fn sums(view: &View<'_>, _role: &ClusterRole) -> Vec<Key> {
    let all = view.cluster_roles.list();
    all.iter().filter(|role| role.aggregation_rule.is_some()).map(|role| meta::key(&**role)).collect()
}

pub fn reconcile(view: &View<'_>, key: &Key, _context: &Context<'_>) -> Outcome {
    let Some(sum) = view.cluster_roles.get("", &key.name) else { return Outcome::nothing() };
    let Some(rule) = &sum.aggregation_rule else { return Outcome::nothing() };
    let mut rules: Vec<PolicyRule> = Vec::new();
    let all = view.cluster_roles.list();
    for wanted in rule.cluster_role_selectors.iter().flatten() {
        let chosen = all.iter().filter(|role| selector::matches(wanted, role.metadata.labels.as_ref()) && meta::name(&***role) != key.name);
        for one in chosen.flat_map(|role| role.rules.iter().flatten()) {
            if !rules.contains(one) {
                rules.push(one.clone());
            }
        }
    }
    if sum.rules.as_deref().unwrap_or_default() == rules {
        return Outcome::nothing();
    }
    let target = Target::of(&*sum);
    let object = json!({
        "apiVersion": target.api_version, "kind": target.kind, "metadata": {"name": key.name}, "rules": to_value(&rules),
    });
    vec![Action::Apply { target, manager: MANAGER, object }].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use serde_json::Value;

    fn role(name: &str, labels: &Value, resource: &str) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name, "labels": labels},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]})
    }

    #[test]
    fn sums_follow_their_parts() {
        let mut model = Model::new(&[
            role("b", &json!({"to-view": "true"}), "b"),
            role("a", &json!({"to-view": "true"}), "a"),
            role("c", &json!({}), "c"),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "view"},
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]}}),
        ]);
        let resources = |model: &Model| {
            let rules = model.get::<ClusterRole>("", "view")["rules"].as_array().cloned().unwrap_or_default();
            rules.iter().map(|rule| rule["resources"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let view = Key::cluster("view");
        model.settle(&CONTROLLER, &view);
        assert_eq!(resources(&model), ["a", "b"]);
        model.merge::<ClusterRole>("", "a", &json!({"metadata": {"labels": {"to-view": null}}}));
        model.settle(&CONTROLLER, &view);
        assert_eq!(resources(&model), ["b"]);
    }
}
