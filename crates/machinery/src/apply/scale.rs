//! Who owns the replicas of an object, seen through its Scale, and back (upstream's `ScaleHandler`): an owner of the object's
//! replicas owns `spec.replicas` of the Scale, and who changes those there owns the object's after it.

use serde_json::{Map, Value, json};

use super::managed::{self, Entry};
use super::set::{Set, is_member};

/// Where a Scale has its replicas.
const IN_SCALE: &str = "spec.replicas";
const SCALE_VERSION: &str = "autoscaling/v1";

/// The set that holds one dotted path.
fn only(path: &str) -> Set {
    path.rsplit('.').fold(Set::new(), |below, name| Map::from_iter([(format!("f:{name}"), Value::Object(below))]))
}

fn has(set: &Set, path: &str) -> bool {
    let mut names = path.split('.');
    let first = names.next().and_then(|name| set.get(&format!("f:{name}")));
    names.try_fold(first, |node, name| Some(node?.get(format!("f:{name}")))).flatten().is_some_and(is_member)
}

/// The `managedFields` of an object's Scale. `path` is where the object has its replicas: `spec.replicas`.
pub fn to_scale(object: &Value, path: &str) -> Value {
    let entries = managed::read(object).unwrap_or_default();
    let owners = entries.into_iter().filter(|e| has(&e.set, path));
    let mut scale = json!({});
    managed::write(&mut scale, owners.map(|e| Entry { api_version: SCALE_VERSION.to_owned(), set: only(IN_SCALE).into(), ..e }).collect());
    scale["metadata"].get_mut("managedFields").map(Value::take).unwrap_or_default()
}

/// Gives the object, of `api_version`, the owners its changed Scale has.
pub fn to_object(object: &mut Value, scale: &Value, path: &str, api_version: &str) {
    let mut through = managed::read(scale).unwrap_or_default();
    let mut entries = Vec::new();
    for mut entry in managed::read(object).unwrap_or_default() {
        if has(&entry.set, path) {
            // Appliers are the same whatever their version; who updated shows up in the Scale's version, as another.
            let kept = entry.applied.then(|| through.iter().position(|s| s.same_manager(&entry))).flatten();
            match kept {
                Some(at) => drop(through.remove(at)),
                None => entry.set.subtract(&only(path)),
            }
        }
        if !entry.set.is_empty() {
            entries.push(entry);
        }
    }
    for owner in through.into_iter().filter(|e| has(&e.set, IN_SCALE)) {
        // Upstream looks for their times where they have none.
        let owner = Entry { api_version: api_version.to_owned(), set: only(path).into(), time: String::new(), ..owner };
        // Also beside an entry of the same owner, as upstream: the next reader takes the later of the two for the whole.
        entries.push(owner);
    }
    managed::write(object, entries);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, version: &str, subresource: &str, fields: Value) -> Value {
        let mut entry =
            json!({"manager": manager, "operation": operation, "apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": fields});
        if !subresource.is_empty() {
            entry["subresource"] = json!(subresource);
        }
        entry
    }

    #[test]
    fn replicas_change_hands_through_a_scale() {
        let mine = json!({"f:spec": {"f:replicas": {}, "f:paused": {}}});
        let mut object = json!({"metadata": {"managedFields": [
            entry("a", "Apply", "apps/v1", "", mine), entry("u", "Update", "apps/v1", "", json!({"f:spec": {"f:selector": {}}}))]}});
        let seen = to_scale(&object, "spec.replicas");
        assert_eq!(seen, json!([entry("a", "Apply", SCALE_VERSION, "", json!({"f:spec": {"f:replicas": {}}}))]));
        // Unchanged through the Scale, unchanged in the object.
        let before = object.clone();
        to_object(&mut object, &json!({"metadata": {"managedFields": seen}}), "spec.replicas", "apps/v1");
        assert_eq!(object, before);
        // Somebody else scales.
        let scale =
            json!({"metadata": {"managedFields": [entry("s", "Update", SCALE_VERSION, "scale", json!({"f:spec": {"f:replicas": {}}}))]}});
        to_object(&mut object, &scale, "spec.replicas", "apps/v1");
        let entries = object["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!(entries[0]["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
        assert!(entries.contains(&entry("s", "Update", "apps/v1", "scale", json!({"f:spec": {"f:replicas": {}}}))), "{entries:?}");
        assert_eq!(entries.len(), 3);
    }

    #[test]
    fn the_replicas_of_who_only_updates_get_an_entry_that_the_next_reader_drops() {
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        let mut object = json!({"metadata": {"managedFields": [
            entry("u", "Update", "apps/v1", "", json!({"f:spec": {"f:replicas": {}, "f:paused": {}}}))]}});
        let seen = to_scale(&object, "spec.replicas");
        to_object(&mut object, &json!({"metadata": {"managedFields": seen}}), "spec.replicas", "apps/v1");
        let paused = entry("u", "Update", "apps/v1", "", json!({"f:spec": {"f:paused": {}}}));
        assert_eq!(object["metadata"]["managedFields"], json!([paused.clone(), entry("u", "Update", "apps/v1", "", replicas)]));
        // With a time, which only the old entry has, the old one comes later and counts.
        let mut later = json!({"metadata": {"managedFields": [
            {"manager": "u", "operation": "Update", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
             "fieldsV1": {"f:spec": {"f:replicas": {}, "f:paused": {}}}}]}});
        let seen = to_scale(&later, "spec.replicas");
        to_object(&mut later, &json!({"metadata": {"managedFields": seen}}), "spec.replicas", "apps/v1");
        let read = managed::read(&later).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(Value::Object(read[0].set.clone().into_set()), json!({"f:spec": {"f:paused": {}}}));
    }

    #[test]
    fn a_custom_resource_has_its_replicas_anywhere() {
        let object =
            json!({"metadata": {"managedFields": [entry("a", "Apply", "x/v1", "", json!({"f:spec": {"f:pool": {"f:size": {}}}}))]}});
        assert_eq!(to_scale(&object, "spec.pool.size").as_array().map(Vec::len), Some(1));
        assert_eq!(to_scale(&object, "spec.pool"), Value::Null);
    }
}
