//! Says in the status of a ValidatingAdmissionPolicy what its expressions get wrong about the kinds it is for. Upstream's
//! `validatingadmissionpolicystatus`.

use k8s_openapi::api::admissionregistration::v1::{ExpressionWarning, TypeChecking};

use crate::action::{Action, Outcome, to_value};
use crate::k8s::ValidatingAdmissionPolicy;
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

const NAME: &str = "validatingadmissionpolicy-status-controller";

pub const CONTROLLER: Controller =
    Controller { name: NAME, identity: NAME, component: NAME, watches: &[Watch::ValidatingAdmissionPolicies(own)], reconcile };

fn own(_view: &View<'_>, policy: &ValidatingAdmissionPolicy) -> Vec<Key> {
    vec![meta::key(policy)]
}

pub fn reconcile(view: &View<'_>, key: &Key, _context: &Context<'_>) -> Outcome {
    let Some(policy) = view.validating_admission_policies.get("", &key.name) else { return Outcome::nothing() };
    let old = policy.status.clone().unwrap_or_default();
    // Checked once for each generation of the policy.
    if old.observed_generation.is_some_and(|seen| Some(seen) >= policy.metadata.generation) {
        return Outcome::nothing();
    }
    let spec = to_value(&policy.spec);
    let custom = |group: &str| crate::definitions::kinds_of(view, group);
    let warnings: Vec<ExpressionWarning> = kinds::type_checking::check(&spec, &custom)
        .into_iter()
        .map(|warning| ExpressionWarning { field_ref: warning.field, warning: warning.text })
        .collect();
    let mut status = old;
    status.observed_generation = policy.metadata.generation;
    status.type_checking = Some(TypeChecking { expression_warnings: (!warnings.is_empty()).then_some(warnings) });
    Action::update_status(&*policy, &policy.status, &status).into_iter().collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Model;

    fn policy(generation: i64, expression: &str) -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "p", "generation": generation},
            "spec": {
                "matchConstraints": {"resourceRules": [
                    {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]},
                ]},
                "validations": [{"expression": expression}],
            },
        })
    }

    #[test]
    fn each_generation_is_checked_once() {
        let mut model = Model::new(&[policy(1, "object.replicas > 1")]);
        let key = Key::cluster("p");
        model.settle(&CONTROLLER, &key);
        let status = |model: &Model| model.get::<ValidatingAdmissionPolicy>("", "p")["status"].clone();
        let warnings = status(&model)["typeChecking"]["expressionWarnings"].clone();
        assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression");
        assert!(warnings[0]["warning"].as_str().is_some_and(|w| w.contains("undefined field 'replicas'")));
        assert_eq!(status(&model)["observedGeneration"], 1);

        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.g.io"},
            "spec": {"group": "g.io", "names": {"plural": "widgets", "kind": "Widget"}, "versions": [
                {"name": "v1", "served": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}},
                {"name": "v2", "served": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
            ]},
        });
        let mut about = policy(1, "object.spec.nothing == 1");
        about["spec"]["matchConstraints"]["resourceRules"][0] =
            json!({"apiGroups": ["g.io"], "apiVersions": ["v1", "v2"], "operations": ["CREATE"], "resources": ["widgets"]});
        let mut custom = Model::new(&[definition, about]);
        custom.settle(&CONTROLLER, &key);
        let warning = status(&custom)["typeChecking"]["expressionWarnings"][0]["warning"].clone();
        let text = "g.io/v1, Kind=Widget: ERROR: <input>:1:12: undefined field 'nothing'\n | object.spec.nothing == 1\n | ...........^\n";
        assert_eq!(warning, text);

        let right = json!({"metadata": {"generation": 2}, "spec": {"validations": [{"expression": "object.spec.replicas > 1"}]}});
        model.merge::<ValidatingAdmissionPolicy>("", "p", &right);
        model.settle(&CONTROLLER, &key);
        assert_eq!(status(&model), json!({"observedGeneration": 2, "typeChecking": {}}));
    }
}
