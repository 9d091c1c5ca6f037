//! Type checking of ValidatingAdmissionPolicies against the kinds they are about: what their status warns of (upstream's
//! `validating.TypeChecker`). Called by the controller of policies' status.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::{Env, ObjectType, Type};
use machinery::gvk::{GroupVersionKind, GroupVersionResource};
use machinery::schema::{Scalar, Struct, Type as Fact, TypeId, Types};
use machinery::structural::Schema;
use serde_json::Value;

use crate::apiextensions::rules::declare::Decl;
use crate::expressions::{self, Scope};
use crate::table;
use crate::validate::tree::{list, opt, s, strings};

/// Kinds beyond these are not checked.
const KINDS_MAX: usize = 10;

/// Where an expression is, and what is wrong with it, kind by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub field: String,
    pub text: String,
}

/// A version of a custom resource, as its definition has it.
#[derive(Clone, Debug)]
pub struct CustomKind {
    pub kind: GroupVersionKind,
    /// Plural.
    pub resource: String,
    /// `openAPIV3Schema`
    pub schema: Value,
}

/// The custom resources of a group.
pub type CustomKinds<'a> = &'a dyn Fn(&str) -> Vec<CustomKind>;

/// What the expressions of a policy get wrong about the kinds that its rules name. Kinds that are not known are not checked.
pub fn check(spec: &Value, custom: CustomKinds<'_>) -> Vec<Warning> {
    let params = opt(spec, "paramKind").and_then(|kind| declared(&gvk(s(kind, "apiVersion"), s(kind, "kind")), custom));
    let kinds: Vec<(GroupVersionKind, Env)> = kinds(spec, custom)
        .into_iter()
        .filter_map(|kind| Some((kind.clone(), environment(spec, &declared(&kind, custom)?, params.as_ref()))))
        .collect();
    let mut out = Vec::new();
    for (i, validation) in list(spec, "validations").iter().enumerate() {
        for key in ["expression", "messageExpression"] {
            let text = s(validation, key);
            if text.is_empty() {
                continue;
            }
            let problems: Vec<String> =
                kinds.iter().filter_map(|(kind, env)| Some(format!("{kind}: {}\n", env.compile(text).err()?.issues))).collect();
            if !problems.is_empty() {
                out.push(Warning { field: format!("spec.validations[{i}].{key}"), text: problems.join("\n") });
            }
        }
    }
    out
}

fn gvk(api_version: &str, kind: &str) -> GroupVersionKind {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    GroupVersionKind::new(group, version, kind)
}

/// The kinds the rules spell out, in order.
fn kinds(spec: &Value, custom: CustomKinds<'_>) -> Vec<GroupVersionKind> {
    let mut out = BTreeSet::new();
    for rule in opt(spec, "matchConstraints").map_or(&[][..], |m| list(m, "resourceRules")) {
        let plain = |key: &str| strings(rule, key).filter(|t| !t.contains(['*', '/'])).map(str::to_owned).collect::<BTreeSet<_>>();
        let starred = ["apiGroups", "apiVersions"].iter().any(|key| strings(rule, key).any(|t| t.contains('*')));
        if starred {
            continue;
        }
        for group in plain("apiGroups") {
            let others = custom(&group);
            for version in plain("apiVersions") {
                for resource in plain("resources") {
                    let other = others.iter().find(|c| c.kind.version == version && c.resource == resource).map(|c| c.kind.kind.clone());
                    let gvr = GroupVersionResource::new(group.clone(), version.clone(), resource);
                    let kind = table().by_resource(&gvr).map(|row| row.kind.clone()).or(other);
                    out.extend(kind.map(|kind| (group.clone(), version.clone(), kind)));
                }
            }
        }
    }
    out.into_iter().take(KINDS_MAX).map(|(group, version, kind)| GroupVersionKind::new(group, version, kind)).collect()
}

/// What expressions may speak of, were the object of this type.
fn environment(spec: &Value, object: &Type, params: Option<&Type>) -> Env {
    let mut base = expressions::admission(Scope { authorizer: true, params: params.is_some(), patches: false })
        .variable("object", object.clone())
        .variable("oldObject", object.clone());
    if let Some(params) = params {
        base = base.variable("params", params.clone());
    }
    expressions::declare(base, list(spec, "variables")).0
}

/// The type of a kind.
fn declared(kind: &GroupVersionKind, custom: CustomKinds<'_>) -> Option<Type> {
    if let Some(ty) = table().type_of(kind) {
        return Some(type_of(crate::types(), ty, &kind.kind, &mut Vec::new()));
    }
    let found = custom(&kind.group).into_iter().find(|c| c.kind == *kind)?;
    let schema = Schema::parse(&found.schema).ok()?;
    let Type::Object(of) = Decl::of(&schema, true)?.of else { return None };
    let mut of = ObjectType::clone(&of);
    // What is published of a custom resource has all metadata.
    let meta = crate::types().named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")?;
    of.add("metadata", type_of(crate::types(), meta, &format!("{}.metadata", kind.kind), &mut Vec::new()));
    Some(Type::Object(Arc::new(of)))
}

fn type_of(types: &Types, ty: TypeId, name: &str, above: &mut Vec<TypeId>) -> Type {
    match types.get(ty) {
        // A type within itself is checked no deeper.
        _ if above.contains(&ty) => Type::Dyn,
        Fact::Scalar(scalar) => match scalar {
            Scalar::String | Scalar::Quantity | Scalar::Duration => Type::String,
            Scalar::Bytes => Type::Bytes,
            Scalar::Bool => Type::Bool,
            Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64 => Type::Int,
            Scalar::Float32 | Scalar::Float64 => Type::Double,
            Scalar::Time | Scalar::MicroTime => Type::Timestamp,
            Scalar::IntOrString | Scalar::FieldsV1 => Type::Dyn,
        },
        Fact::List(l) => Type::list(type_of(types, l.elem, &format!("{name}.@idx"), above)),
        Fact::Map(m) => Type::map(Type::String, type_of(types, m.elem, &format!("{name}.@elem"), above)),
        Fact::Struct(of) => {
            above.push(ty);
            let out = object_of(types, of, name, above);
            above.pop();
            out
        }
        Fact::Any | Fact::Either(_) => Type::Dyn,
    }
}

fn object_of(types: &Types, of: &Struct, name: &str, above: &mut Vec<TypeId>) -> Type {
    let mut out = ObjectType::new(name);
    for field in &of.fields {
        out.add(&field.name, type_of(types, field.ty, &format!("{name}.{}", field.name), above));
    }
    if name.contains('.') {
        return Type::Object(Arc::new(out));
    }
    out.add("apiVersion", Type::String);
    out.add("kind", Type::String);
    Type::Object(Arc::new(out))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn widgets(group: &str) -> Vec<CustomKind> {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}});
        let widget = CustomKind { kind: GroupVersionKind::new("g.io", "v1", "Widget"), resource: "widgets".to_owned(), schema };
        if group == "g.io" { vec![widget] } else { Vec::new() }
    }

    fn warnings(group: &str, resources: &[&str], expression: &str) -> Vec<Warning> {
        let spec = json!({
            "matchConstraints": {"resourceRules": [{"apiGroups": [group], "apiVersions": ["v1"], "operations": ["*"], "resources": resources}]},
            "variables": [{"name": "spec", "expression": "object.spec"}],
            "validations": [{"expression": expression}],
        });
        check(&spec, &widgets)
    }

    #[test]
    fn expressions_are_checked_against_each_kind() {
        for right in [
            "object.spec.replicas > 1 && object.metadata.labels['a'] == 'b' && object.kind == 'Deployment'",
            "object.spec.template.spec.containers.all(c, c.resources.limits['cpu'] != '1' && c.ports.all(p, p.containerPort > 0))",
            "variables.spec.replicas == 1 || oldObject == null || object.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z')",
        ] {
            assert_eq!(warnings("apps", &["deployments"], right), [], "{right}");
        }
        let wrong = warnings("apps", &["deployments", "replicasets", "deployments/status"], "object.replicas > 1");
        let text = |kind: &str| {
            format!("apps/v1, Kind={kind}: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^\n")
        };
        let both = format!("{}\n{}", text("Deployment"), text("ReplicaSet"));
        assert_eq!(wrong, [Warning { field: "spec.validations[0].expression".to_owned(), text: both }]);
        assert_eq!(warnings("apps", &["*"], "object.nothing"), []);
        assert_eq!(warnings("apps", &["unknown"], "object.nothing"), []);
        assert_eq!(warnings("", &["pods"], "variables.spec.nodeName == 1").len(), 1);
    }

    #[test]
    fn custom_resources_are_checked_by_their_schema() {
        let right = "object.spec.size > 1 && object.metadata.labels['a'] == 'b' && object.kind == 'Widget'";
        assert_eq!(warnings("g.io", &["widgets"], right), []);
        let wrong = warnings("g.io", &["widgets"], "object.spec.sise > 1");
        assert!(wrong[0].text.starts_with("g.io/v1, Kind=Widget: ERROR: <input>:1:12: undefined field 'sise'"), "{wrong:?}");
        let spec = json!({
            "paramKind": {"apiVersion": "g.io/v1", "kind": "Widget"},
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]}]},
            "validations": [{"expression": "object.spec.replicas < params.spec.size", "messageExpression": "params.spec.nothing"}],
        });
        let found = check(&spec, &widgets);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].field, "spec.validations[0].messageExpression");
    }

    #[test]
    fn recursive_types_end() {
        assert!(declared(&gvk("apiextensions.k8s.io/v1", "CustomResourceDefinition"), &widgets).is_some());
        assert!(declared(&gvk("v1", "Pod"), &widgets).is_some());
        assert!(declared(&gvk("v1", "Nothing"), &widgets).is_none());
    }
}
