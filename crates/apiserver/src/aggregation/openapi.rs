//! OpenAPI of groups that other servers serve: version 3 documents are fetched from them when asked for, version 2 is merged
//! into ours (upstream's `aggregator.MergeSpecsIgnorePathConflictRenamingDefinitions`).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::backend;
use super::routes::Route;
use crate::state::Api;

const V3: &str = "/openapi/v3";

/// Adds other servers' documents to the `paths` of the version 3 index.
pub fn add_to_index(api: &Api, paths: &mut Map<String, Value>) {
    for route in api.aggregation.remote() {
        let name = route.root().trim_start_matches('/').to_owned();
        let Some(documents) = api.aggregation.documents(&route.name).filter(|d| !d.openapi_v3.is_empty()) else {
            continue;
        };
        // Whatever place the server gives, its hash is what clients keep the document by.
        let hash = documents.openapi_v3.split_once("hash=").map_or("", |(_, hash)| hash);
        paths.insert(name.clone(), json!({"serverRelativeURL": format!("{V3}/{name}?hash={hash}")}));
    }
}

/// Whose version 3 document a path is, if another server's.
pub fn route_of(api: &Api, path: &str) -> Option<Arc<Route>> {
    let name = path.strip_prefix(V3)?.trim_matches('/');
    api.aggregation.remote().into_iter().find(|r| r.root().trim_start_matches('/') == name)
}

/// The document itself.
pub async fn document(api: &Arc<Api>, route: &Route) -> Option<bytes::Bytes> {
    if !route.available {
        return None;
    }
    let path = format!("{V3}{}", route.root());
    match backend::read(api, route, &path, "application/json").await {
        Ok(document) if document.code == 200 => Some(document.bytes),
        Ok(document) => {
            tracing::warn!(apiservice = route.name, code = document.code, "an OpenAPI document was refused");
            None
        }
        Err(error) => {
            tracing::warn!(apiservice = route.name, error, "an OpenAPI document could not be read");
            None
        }
    }
}

/// The version 2 documents of other servers with the root of the paths that count of each.
pub fn parts(api: &Api) -> Vec<(String, Arc<Value>)> {
    let routes = api.aggregation.remote().into_iter();
    let known = routes.filter_map(|r| Some((r.root(), api.aggregation.documents(&r.name)?.openapi_v2.clone())));
    known.filter(|(_, document)| document.is_object()).collect()
}

/// Adds a server's paths below `root`, with the definitions they need, to our document. Paths that are there stay; a definition
/// that differs from one of the same name gets another name.
pub fn merge(ours: &mut Value, root: &str, theirs: &Value) {
    let below = |path: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let group = root.rsplit_once('/').map_or(root, |(group, _)| group);
    let wanted = |path: &str| below(path) || path.trim_end_matches('/') == group;
    let paths = theirs["paths"].as_object().into_iter().flatten().filter(|(path, _)| wanted(path));
    let mut paths: Map<String, Value> = paths.map(|(k, v)| (k.clone(), v.clone())).collect();
    paths.retain(|path, _| ours["paths"].get(path).is_none());
    let mut needed = Map::new();
    let mut open = Vec::new();
    refs(&Value::Object(paths.clone()), &mut open);
    while let Some(name) = open.pop() {
        if needed.contains_key(&name) {
            continue;
        }
        let Some(definition) = theirs["definitions"].get(&name) else { continue };
        refs(definition, &mut open);
        needed.insert(name, definition.clone());
    }
    let renamed: Vec<(String, String)> = needed
        .iter()
        .filter(|(name, definition)| ours["definitions"].get(*name).is_some_and(|own| own != *definition))
        .map(|(name, _)| (name.clone(), free_name(ours, name)))
        .collect();
    let mut paths = Value::Object(paths);
    rename(&mut paths, &renamed);
    for (name, mut definition) in needed {
        rename(&mut definition, &renamed);
        let name = renamed.iter().find(|(from, _)| *from == name).map_or(name, |(_, to)| to.clone());
        ours["definitions"][&name] = definition;
    }
    for (path, item) in paths.as_object().into_iter().flatten() {
        ours["paths"][path] = item.clone();
    }
}

const REF: &str = "#/definitions/";

/// The names of the definitions a tree refers to.
fn refs(tree: &Value, out: &mut Vec<String>) {
    match tree {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(REF)) {
                out.push(name.to_owned());
            }
            map.values().for_each(|v| refs(v, out));
        }
        Value::Array(list) => list.iter().for_each(|v| refs(v, out)),
        _ => {}
    }
}

fn rename(tree: &mut Value, names: &[(String, String)]) {
    match tree {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("$ref")
                && let Some((_, to)) = names.iter().find(|(from, _)| text.strip_prefix(REF) == Some(from))
            {
                *text = format!("{REF}{to}");
            }
            map.values_mut().for_each(|v| rename(v, names));
        }
        Value::Array(list) => list.iter_mut().for_each(|v| rename(v, names)),
        _ => {}
    }
}

fn free_name(ours: &Value, name: &str) -> String {
    let taken = |name: &str| ours["definitions"].get(name).is_some();
    (2..).map(|n| format!("{name}_v{n}")).find(|name| !taken(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_merged_without_taking_anything_from_ours() {
        let get = |name: &str| json!({"get": {"responses": {"200": {"schema": {"$ref": format!("{REF}{name}")}}}}});
        let mut ours =
            json!({"paths": {"/api/v1/pods": get("Pod")}, "definitions": {"Pod": {"type": "object"}, "Meta": {"a": 1}, "Same": {}}});
        let theirs = json!({
            "paths": {"/apis/g.io/v1/things": get("Thing"), "/apis/g.io/v2/things": get("Other"), "/apis/g.io/": get("Group"), "/api/v1/pods": get("Thing")},
            "definitions": {"Thing": {"p": {"$ref": format!("{REF}Meta")}, "q": {"$ref": format!("{REF}Same")}}, "Meta": {"a": 2}, "Same": {},
                            "Other": {}, "Group": {}, "Unused": {}},
        });
        merge(&mut ours, "/apis/g.io/v1", &theirs);
        let keys = |of: &Value| of.as_object().map(|m| m.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        assert_eq!(keys(&ours["paths"]), ["/api/v1/pods", "/apis/g.io/", "/apis/g.io/v1/things"]);
        assert_eq!(keys(&ours["definitions"]), ["Group", "Meta", "Meta_v2", "Pod", "Same", "Thing"]);
        assert_eq!(ours["paths"]["/api/v1/pods"], get("Pod"));
        assert_eq!(ours["definitions"]["Thing"]["p"]["$ref"], "#/definitions/Meta_v2");
        assert_eq!(ours["definitions"]["Thing"]["q"]["$ref"], "#/definitions/Same");
    }
}
