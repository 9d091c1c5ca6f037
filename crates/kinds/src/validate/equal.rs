//! Equality as Go sees two decoded objects of a type: `apiequality.Semantic.DeepEqual`, to which an empty list is nil and `1Gi`
//! is `1024Mi`, but a pointer to an empty struct is not nil. Called by immutability rules and by what counts generations.

use machinery::schema::{Field, Scalar, Struct, Type, TypeId, Types};
use serde_json::Value;

use crate::resource::Resource;
use crate::types::types;

/// How nil and empty lists and maps compare.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// `apiequality.Semantic.DeepEqual`: they are the same.
    Semantic,
    /// `reflect.DeepEqual`: they are not.
    Exact,
}

/// Kinds whose strategies count generations with `reflect.DeepEqual`.
const EXACT: [(&str, &str); 3] = [
    ("networking.k8s.io", "networkpolicies"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
];

/// Two values of a named type (`core.v1.PodSpec`), each absent or behind a pointer.
pub fn semantic(a: Option<&Value>, b: Option<&Value>, ty: &str) -> bool {
    let name = if ty.starts_with("meta.") { format!("io.k8s.apimachinery.pkg.apis.{ty}") } else { format!("io.k8s.api.{ty}") };
    match types().named(&name) {
        Some(id) => same(types(), id, given(a), given(b), true, Mode::Semantic),
        None => given(a) == given(b),
    }
}

/// Everything of two objects but metadata and status.
pub fn content(resource: &Resource, a: &Value, b: &Value) -> bool {
    let exact = EXACT.contains(&(resource.group.as_str(), resource.resource.as_str()));
    let mode = if exact { Mode::Exact } else { Mode::Semantic };
    let Type::Struct(s) = resource.types.get(resource.ty) else { return a == b };
    let skipped = |f: &&Field| !matches!(f.name.as_str(), "metadata" | "status" | "kind" | "apiVersion");
    s.fields.iter().filter(skipped).all(|f| field(&resource.types, f, a, b, mode))
}

fn given(v: Option<&Value>) -> Option<&Value> {
    v.filter(|v| !v.is_null())
}

fn field(types: &Types, f: &Field, a: &Value, b: &Value, mode: Mode) -> bool {
    same(types, f.ty, given(a.get(&f.name)), given(b.get(&f.name)), f.pointer, mode)
}

fn same(types: &Types, ty: TypeId, a: Option<&Value>, b: Option<&Value>, pointer: bool, mode: Mode) -> bool {
    match types.get(ty) {
        Type::Struct(s) => match (a, b) {
            (None, None) => true,
            (None, Some(_)) | (Some(_), None) if pointer => false,
            (a, b) => structure(types, s, a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null), mode),
        },
        Type::List(list) => {
            if mode == Mode::Exact && a.is_some() != b.is_some() {
                return false;
            }
            let items = |v: Option<&'_ Value>| v.and_then(Value::as_array).map_or(0, Vec::len);
            items(a) == items(b)
                && a.and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .zip(b.and_then(Value::as_array).into_iter().flatten())
                    .all(|(x, y)| same(types, list.elem, given(Some(x)), given(Some(y)), false, mode))
        }
        Type::Map(map) => {
            if mode == Mode::Exact && a.is_some() != b.is_some() {
                return false;
            }
            let (x, y) = (a.and_then(Value::as_object), b.and_then(Value::as_object));
            x.map_or(0, serde_json::Map::len) == y.map_or(0, serde_json::Map::len)
                && x.into_iter().flatten().all(|(key, v)| {
                    let other = y.and_then(|y| y.get(key));
                    other.is_some() && same(types, map.elem, given(Some(v)), given(other), false, mode)
                })
        }
        Type::Scalar(scalar) => match (a, b) {
            (Some(a), Some(b)) => a == b || (*scalar == Scalar::Quantity && same_quantity(a, b)),
            (None, None) => true,
            (Some(v), None) | (None, Some(v)) => !pointer && is_zero(*scalar, v),
        },
        Type::Any | Type::Either(_) => a == b,
    }
}

fn structure(types: &Types, s: &Struct, a: &Value, b: &Value, mode: Mode) -> bool {
    s.fields.iter().all(|f| field(types, f, a, b, mode))
}

fn same_quantity(a: &Value, b: &Value) -> bool {
    match (super::rules::quantity(a), super::rules::quantity(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn is_zero(scalar: Scalar, v: &Value) -> bool {
    match v {
        Value::String(text) => {
            text.is_empty() || (scalar == Scalar::Quantity && text == "0") || (scalar == Scalar::Duration && text == "0s")
        }
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Bool(flag) => !flag,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pointers_lists_and_quantities_compare_as_in_go() {
        for (a, b, wanted) in [
            (json!({"affinity": {}}), json!({}), false),
            (json!({"nodeSelector": {}}), json!({}), true),
            (json!({"volumes": []}), json!({}), true),
            (json!({"overhead": {"cpu": "1000m"}}), json!({"overhead": {"cpu": "1"}}), true),
            (json!({"overhead": {"cpu": "1"}}), json!({"overhead": {"cpu": "2"}}), false),
            (json!({"runtimeClassName": ""}), json!({}), false),
            (json!({"hostname": ""}), json!({}), true),
            (json!({"containers": [{"name": "a"}]}), json!({"containers": [{"name": "a", "resources": {}}]}), true),
        ] {
            assert_eq!(semantic(Some(&a), Some(&b), "core.v1.PodSpec"), wanted, "{a} {b}");
        }
    }
}
