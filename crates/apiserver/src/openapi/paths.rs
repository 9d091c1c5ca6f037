//! The paths of a group version: per resource its collection, its objects, its subresources and their old watch paths. What all
//! operations of a path take stands at the path, as upstream's generator has it.

use kinds::Resource;
use kinds::resource::Subresource;
use machinery::gvk::GroupVersion;
use serde_json::{Map, Value, json};

use super::operations::{self, Place};
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

pub fn of(gv: &GroupVersion, schemas: &mut Schemas) -> Value {
    let rows: Vec<&Resource> = kinds::table().of(gv).map(|r| &**r).collect();
    of_rows(gv, &rows, schemas)
}

pub fn of_rows(gv: &GroupVersion, rows: &[&Resource], schemas: &mut Schemas) -> Value {
    let base = if gv.group.is_empty() { format!("/api/{}", gv.version) } else { format!("/apis/{gv}") };
    let (prefix, tag) = operations::names(gv);
    let mut writer = Writer { base: &base, prefix: &prefix, tag: &tag, schemas, paths: Map::new() };
    let list = super::custom::meta("APIResourceList");
    let root = writer.schemas.root("get available resources", &format!("get{prefix}APIResources"), &tag, &list);
    writer.paths.insert(format!("{base}/"), root);
    for row in rows {
        writer.resource(row);
        row.subresources.iter().for_each(|sub| writer.subresource(row, sub));
    }
    Value::Object(writer.paths)
}

struct Writer<'a> {
    base: &'a str,
    prefix: &'a str,
    tag: &'a str,
    schemas: &'a mut Schemas,
    paths: Map<String, Value>,
}

impl Writer<'_> {
    fn resource(&mut self, row: &Resource) {
        let within = if row.namespaced { "/namespaces/{namespace}" } else { "" };
        let (base, (prefix, tag)) = (self.base.to_owned(), (self.prefix.to_owned(), self.tag.to_owned()));
        let collection = format!("{within}/{}", row.resource);
        let place = |named: bool, everywhere: bool| Place {
            prefix: &prefix,
            tag: &tag,
            namespaced: row.namespaced && !everywhere,
            everywhere,
            row,
            named,
            subresource: "",
            with_path: false,
            kind: row.gvk(),
        };
        let has = |verb: &str| row.verbs.iter().any(|v| v == verb);
        let known = |verbs: &[&'static str]| verbs.iter().copied().filter(|v| has(v)).collect::<Vec<_>>();
        self.add(format!("{base}{collection}"), &place(false, false), &known(&["list", "create", "deletecollection"]));
        self.add(format!("{base}{collection}/{{name}}"), &place(true, false), &known(&["get", "update", "patch", "delete"]));
        if row.namespaced {
            self.add(format!("{base}/{}", row.resource), &place(false, true), &known(&["list"]));
        }
        // Custom resources have no such paths.
        if !has("watch") || row.custom.is_some() {
            return;
        }
        self.add(format!("{base}/watch{collection}"), &place(false, false), &["watchlist"]);
        self.add(format!("{base}/watch{collection}/{{name}}"), &place(true, false), &["watch"]);
        if row.namespaced {
            self.add(format!("{base}/watch/{}", row.resource), &place(false, true), &["watchlist"]);
        }
    }

    fn subresource(&mut self, row: &Resource, sub: &Subresource) {
        let within = if row.namespaced { "/namespaces/{namespace}" } else { "" };
        let path = format!("{}{within}/{}/{{name}}/{}", self.base, row.resource, sub.name);
        let (prefix, tag) = (self.prefix.to_owned(), self.tag.to_owned());
        let place = |with_path: bool| Place {
            prefix: &prefix,
            tag: &tag,
            named: true,
            subresource: &sub.name,
            with_path,
            kind: sub.kind.clone(),
            namespaced: row.namespaced,
            everywhere: false,
            row,
        };
        match sub.name.as_str() {
            "proxy" => {
                let verbs = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map(|m| format!("connect {m}"));
                let verbs: Vec<&str> = verbs.iter().map(String::as_str).collect();
                self.add(path.clone(), &place(false), &verbs);
                self.add(format!("{path}/{{path}}"), &place(true), &verbs);
            }
            "exec" | "attach" | "portforward" => self.add(path, &place(false), &["connect GET", "connect POST"]),
            _ => {
                let verbs: Vec<&str> = sub.verbs.iter().map(String::as_str).collect();
                self.add(path, &place(false), &verbs);
            }
        }
    }

    /// Writes one path. What all its operations take is said once.
    fn add(&mut self, path: String, place: &Place<'_>, verbs: &[&str]) {
        if verbs.is_empty() {
            return;
        }
        let taken: Vec<Vec<Value>> = verbs.iter().map(|verb| operations::parameters(verb, place, self.schemas)).collect();
        let common: Vec<Value> = taken[0].iter().filter(|p| taken.iter().all(|of_verb| of_verb.contains(p))).cloned().collect();
        let mut item = Map::new();
        for (verb, parameters) in verbs.iter().zip(taken) {
            let mut operation = operations::of(verb, place, self.schemas);
            let mut own: Vec<Value> = operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
            own.extend(parameters.into_iter().filter(|p| !common.contains(p)));
            if !own.is_empty() {
                operation["parameters"] = json!(own);
            }
            item.insert(method(verb), operation);
        }
        if !common.is_empty() {
            item.insert("parameters".to_owned(), json!(common));
        }
        self.paths.insert(path, Value::Object(item));
    }
}

fn method(verb: &str) -> String {
    match verb {
        "create" => "post".to_owned(),
        "update" => "put".to_owned(),
        "patch" => "patch".to_owned(),
        "delete" | "deletecollection" => "delete".to_owned(),
        other => other.strip_prefix("connect ").map_or("get".to_owned(), str::to_ascii_lowercase),
    }
}
