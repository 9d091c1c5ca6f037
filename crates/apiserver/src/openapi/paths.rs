//! The paths of a group version: per resource its collection, its objects and its subresources, with the parameters clients
//! look for.

use kinds::Resource;
use machinery::gvk::{GroupVersion, GroupVersionKind};
use serde_json::{Map, Value, json};

use super::schemas::Schemas;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// What references to definitions begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }
}

const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

pub fn of(gv: &GroupVersion, schemas: &mut Schemas, dialect: Dialect) -> Value {
    let rows: Vec<&Resource> = kinds::table().of(gv).map(|r| &**r).collect();
    of_rows(gv, &rows, schemas, dialect)
}

pub fn of_rows(gv: &GroupVersion, rows: &[&Resource], schemas: &mut Schemas, dialect: Dialect) -> Value {
    let base = if gv.group.is_empty() { format!("/api/{}", gv.version) } else { format!("/apis/{gv}") };
    let mut paths = Map::new();
    for row in rows {
        let root =
            if row.namespaced { format!("{base}/namespaces/{{namespace}}/{}", row.resource) } else { format!("{base}/{}", row.resource) };
        let gvk = row.gvk();
        let list = GroupVersionKind { kind: row.list_kind(), ..gvk.clone() };
        add(&mut paths, &root, row, &["list", "create", "deletecollection"], &gvk, &list, schemas, dialect);
        add(&mut paths, &format!("{root}/{{name}}"), row, &["get", "update", "patch", "delete"], &gvk, &gvk, schemas, dialect);
        if row.namespaced && row.verbs.iter().any(|v| v == "list") {
            add(&mut paths, &format!("{base}/{}", row.resource), row, &["list"], &gvk, &list, schemas, dialect);
        }
        for sub in &row.subresources {
            let mut item = Map::new();
            for verb in &sub.verbs {
                item.insert(method(verb).into(), operation(verb, &sub.kind, &sub.kind, schemas, dialect));
            }
            paths.insert(format!("{root}/{{name}}/{}", sub.name), parameters(item, row, true, dialect));
        }
    }
    Value::Object(paths)
}

#[expect(clippy::too_many_arguments, reason = "one private helper that writes one path")]
fn add(
    paths: &mut Map<String, Value>,
    path: &str,
    row: &Resource,
    verbs: &[&str],
    gvk: &GroupVersionKind,
    answer: &GroupVersionKind,
    schemas: &mut Schemas,
    dialect: Dialect,
) {
    let mut item = Map::new();
    for verb in verbs.iter().filter(|v| row.verbs.iter().any(|w| w == *v)) {
        let answer = if *verb == "create" { gvk } else { answer };
        item.insert(method(verb).into(), operation(verb, gvk, answer, schemas, dialect));
    }
    if !item.is_empty() {
        paths.insert(path.to_owned(), parameters(item, row, path.contains("{name}"), dialect));
    }
}

fn meta(name: &str) -> String {
    format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}")
}

fn method(verb: &str) -> &'static str {
    match verb {
        "create" => "post",
        "update" => "put",
        "patch" => "patch",
        "delete" | "deletecollection" => "delete",
        _ => "get",
    }
}

fn query(name: &str, kind: &str, dialect: Dialect) -> Value {
    match dialect {
        Dialect::V2 => json!({"name": name, "in": "query", "type": kind, "uniqueItems": true}),
        Dialect::V3 => json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}}),
    }
}

fn parameters(mut item: Map<String, Value>, row: &Resource, named: bool, dialect: Dialect) -> Value {
    let path = |name: &str| match dialect {
        Dialect::V2 => json!({"name": name, "in": "path", "required": true, "type": "string", "uniqueItems": true}),
        Dialect::V3 => json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}}),
    };
    let mut list = Vec::new();
    if named {
        list.push(path("name"));
    }
    if row.namespaced {
        list.push(path("namespace"));
    }
    list.push(query("pretty", "string", dialect));
    item.insert("parameters".into(), json!(list));
    Value::Object(item)
}

fn operation(verb: &str, gvk: &GroupVersionKind, answer: &GroupVersionKind, schemas: &mut Schemas, dialect: Dialect) -> Value {
    let mut params: Vec<Value> = Vec::new();
    let names: &[(&str, &str)] = match verb {
        "create" | "update" => &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")],
        "patch" => &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")],
        "delete" => &[("dryRun", "string"), ("gracePeriodSeconds", "integer"), ("propagationPolicy", "string")],
        "list" | "deletecollection" => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        _ => &[],
    };
    params.extend(names.iter().map(|(name, kind)| query(name, kind, dialect)));
    let action = match verb {
        "create" => "post",
        "update" => "put",
        other => other,
    };
    let schema = if matches!(verb, "delete" | "deletecollection") { schemas.named(&meta("Status")) } else { schemas.kind(answer) };
    let mut operation = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": gvk.group, "version": gvk.version, "kind": gvk.kind},
    });
    let body = match verb {
        "create" | "update" => Some((schemas.kind(gvk), vec!["*/*"])),
        "delete" | "deletecollection" => Some((schemas.named(&meta("DeleteOptions")), vec!["*/*"])),
        "patch" => Some((schemas.named(&meta("Patch")), patch_types(gvk))),
        _ => None,
    };
    if let Some((schema, kinds)) = body {
        let required = !matches!(verb, "delete" | "deletecollection");
        match dialect {
            Dialect::V2 => {
                params.push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
                operation["consumes"] = json!(kinds);
            }
            Dialect::V3 => {
                let content: Map<String, Value> = kinds.iter().map(|k| ((*k).to_owned(), json!({"schema": schema}))).collect();
                operation["requestBody"] = json!({"required": required, "content": content});
            }
        }
    }
    let ok = match dialect {
        Dialect::V2 => json!({"description": "OK", "schema": schema}),
        Dialect::V3 => json!({"description": "OK", "content": {
            "application/json": {"schema": schema}, "application/yaml": {"schema": schema}, "application/vnd.kubernetes.protobuf": {"schema": schema}}}),
    };
    operation["responses"] = json!({"200": ok, "401": {"description": "Unauthorized"}});
    operation["parameters"] = json!(params);
    operation
}

/// Custom resources have no strategic merge.
fn patch_types(gvk: &GroupVersionKind) -> Vec<&'static str> {
    let custom = kinds::table().type_of(gvk).is_none();
    PATCH_TYPES.into_iter().filter(|kind| !(custom && kind.contains("strategic"))).collect()
}
