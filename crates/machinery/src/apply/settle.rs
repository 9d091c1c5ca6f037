//! Field sets under a schema that has changed since they were written (upstream's `ReconcileFieldSetWithSchema`): who owned parts
//! of what is now atomic owns it whole. A definition that turns a list into a map of items needs nothing: the next apply does it.

use serde_json::{Map, Value};

use super::managed::Entry;
use super::set::{Set, has_children};
use super::typed::Ty;
use crate::schema::{Topology, Type, TypeId, Types};

/// Brings the sets of all owners into the form the type has now.
pub(super) fn settle(types: &Types, ty: TypeId, entries: &mut [Entry]) {
    for entry in entries.iter_mut().filter(|e| is_stale(types, Some(ty), &e.set)) {
        collapse(types, Some(ty), entry.set.make_mut());
    }
}

/// Whether a value of this type is owned whole.
fn is_whole(types: &Types, ty: Ty) -> bool {
    match ty.map(|ty| types.get(ty)) {
        Some(Type::Struct(s)) => s.atomic,
        Some(Type::Map(map)) => map.atomic,
        Some(Type::List(list)) => list.topology == Topology::Atomic,
        Some(Type::Any | Type::Either(_)) => true,
        // Nothing is known of what is deduced from the value, and scalars have no parts.
        Some(Type::Scalar(_)) | None => false,
    }
}

/// The type of what an element of a set names.
fn below(types: &Types, ty: Ty, element: &str) -> Ty {
    match types.get(ty?) {
        Type::Struct(s) => s.field(element.strip_prefix("f:")?).map(|field| field.ty),
        Type::Map(map) => Some(map.elem),
        Type::List(list) => Some(list.elem),
        _ => None,
    }
}

/// Most sets fit, so they are looked through before anything is copied.
pub(super) fn is_stale(types: &Types, ty: Ty, set: &Set) -> bool {
    set.iter().any(|(element, node)| {
        let ty = below(types, ty, element);
        ty.is_some() && has_children(node) && (is_whole(types, ty) || node.as_object().is_some_and(|set| is_stale(types, ty, set)))
    })
}

fn collapse(types: &Types, ty: Ty, set: &mut Set) {
    for (element, node) in set.iter_mut() {
        let ty = below(types, ty, element);
        if ty.is_none() || !has_children(node) {
            continue;
        }
        if is_whole(types, ty) {
            *node = Value::Object(Map::new());
        } else if let Some(set) = node.as_object_mut() {
            collapse(types, ty, set);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{Field, List, Map as MapType, Scalar, Struct};

    /// `spec.items`: a list of structs by name; `spec.tags`: a map.
    fn types(atomic: bool) -> (Types, TypeId) {
        let mut types = Types::default();
        let text = types.add(Type::Scalar(Scalar::String));
        let field = |name: &str, ty| Field { name: name.to_owned(), ty, ..Field::default() };
        let item = types.add(Type::Struct(Struct { fields: vec![field("name", text), field("value", text)], ..Struct::default() }));
        let topology = if atomic { Topology::Atomic } else { Topology::Map(vec!["name".to_owned()]) };
        let items = types.add(Type::List(List { elem: item, topology, wrapped: false }));
        let tags = types.add(Type::Map(MapType { elem: text, atomic }));
        let spec = types.add(Type::Struct(Struct { fields: vec![field("items", items), field("tags", tags)], ..Struct::default() }));
        let root = types.add(Type::Struct(Struct { fields: vec![field("spec", spec)], ..Struct::default() }));
        (types, root)
    }

    #[test]
    fn what_became_atomic_is_owned_whole() {
        let parts = json!({"f:spec": {
            "f:items": {".": {}, "k:{\"name\":\"a\"}": {".": {}, "f:value": {}}}, "f:tags": {"f:x": {}}, "f:gone": {"f:y": {}}}});
        let settled = |atomic: bool| {
            let (types, ty) = types(atomic);
            let set = parts.as_object().cloned().unwrap();
            let mut entries = [Entry {
                manager: "m".to_owned(),
                applied: true,
                api_version: "v1".to_owned(),
                subresource: String::new(),
                time: String::new(),
                set: set.into(),
            }];
            settle(&types, ty, &mut entries);
            Value::Object(entries[0].set.clone().into_set())
        };
        assert_eq!(settled(false), parts);
        // A field the schema lost stays owned: it may come back.
        assert_eq!(settled(true), json!({"f:spec": {"f:items": {}, "f:tags": {}, "f:gone": {"f:y": {}}}}));
    }
}
