//! Apply configurations of mutating admission policies: merged into an object without managers or conflicts, and without
//! touching what is atomic (upstream's `patch.ApplyStructuredMergeDiff`).

use serde_json::Value;

use super::typed::{Atom, Ty, atom, below, item_element, validate};
use super::{ApplyError, merge};
use crate::schema::{TypeId, Types};

/// `config` over `live`, or why not, in upstream's words.
pub fn apply_configuration(types: &Types, ty: TypeId, live: &Value, config: &Value) -> Result<Value, String> {
    let typed = |error: ApplyError| format!("failed to convert patch object to typed object: {error}");
    validate(types, ty, config).map_err(typed)?;
    let mut atomics = Vec::new();
    find(types, Some(ty), config, "", &mut atomics);
    if !atomics.is_empty() {
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}", atomics.join(", ")));
    }
    merge::merge(types, ty, live, config).map_err(|error| format!("failed to merge patch: {error}"))
}

fn find(types: &Types, ty: Ty, value: &Value, path: &str, out: &mut Vec<String>) {
    let atom = atom(types, ty, Some(value));
    match (&atom, value) {
        (Atom::AtomicMap, Value::Object(_)) => out.push(path.to_owned()),
        (Atom::AtomicList, Value::Array(_)) if ty.is_some() => out.push(path.to_owned()),
        (Atom::Struct(_) | Atom::Map(_), Value::Object(map)) => {
            for (key, inner) in map {
                find(types, below(&atom, key), inner, &format!("{path}.{key}"), out);
            }
        }
        (Atom::List(list), Value::Array(items)) => {
            for item in items {
                let name = item_element(types, list, item).unwrap_or_default();
                let name = name.split_once(':').map_or("", |(_, n)| n).to_owned();
                find(types, Some(list.elem), item, &format!("{path}[{name}]"), out);
            }
        }
        _ => {}
    }
}
