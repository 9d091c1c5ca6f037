//! One operation: its identifier and tag by upstream's rules (clients are generated from them), what it takes and answers.

use kinds::Resource;
use machinery::gvk::{GroupVersion, GroupVersionKind};
use serde_json::{Map, Value, json};

use super::parameters;
use super::paths::Dialect;
use super::schemas::Schemas;

const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Where an operation is.
pub struct Place<'a> {
    pub row: &'a Resource,
    /// `core`, `apps`, `rbacAuthorization`, with the version: `core_v1`.
    pub tag: &'a str,
    /// As in identifiers: `CoreV1`.
    pub prefix: &'a str,
    /// The path names the namespace.
    pub namespaced: bool,
    /// The path names the object.
    pub named: bool,
    /// A list of a namespaced resource across all namespaces.
    pub everywhere: bool,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// The path goes on behind the subresource.
    pub with_path: bool,
    /// What a subresource speaks, or the resource's own kind.
    pub kind: GroupVersionKind,
}

/// `CoreV1` and `core_v1`, `RbacAuthorizationV1` and `rbacAuthorization_v1`.
pub fn names(gv: &GroupVersion) -> (String, String) {
    let group = group_name(&gv.group);
    let capital = capitalised(&group);
    (format!("{capital}{}", capitalised(&gv.version)), format!("{group}_{}", gv.version))
}

/// `core`, `apps`, `rbacAuthorization`.
pub fn group_name(group: &str) -> String {
    if group.is_empty() {
        return "core".to_owned();
    }
    let words: Vec<&str> = group.trim_end_matches(".k8s.io").split(|c: char| !c.is_ascii_alphanumeric()).collect();
    words.iter().enumerate().map(|(n, word)| if n == 0 { (*word).to_owned() } else { capitalised(word) }).collect()
}

pub fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// The operation of a verb, without parameters.
pub fn of(verb: &str, place: &Place<'_>, schemas: &mut Schemas) -> Value {
    let kind = &place.kind;
    let mut operation = json!({
        "description": description(verb, place),
        "operationId": identifier(verb, place),
        "tags": [place.tag],
        "x-kubernetes-action": action(verb),
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
    });
    let custom = place.row.custom.is_some();
    let status = schemas.named(&super::custom::meta("Status"));
    let schema = match verb {
        "list" => schemas.kind(&GroupVersionKind { kind: place.row.list_kind(), ..kind.clone() }),
        "watch" | "watchlist" => schemas.named(&super::custom::meta("WatchEvent")),
        "delete" if place.row.returns_deleted_object => schemas.kind(kind),
        "delete" | "deletecollection" => status,
        _ if place.subresource == "log" => json!({"type": "string"}),
        connect if connect.starts_with("connect") => json!({"type": "string"}),
        _ => schemas.kind(kind),
    };
    let answers: &[(&str, &str)] = match verb {
        "create" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
        "update" | "patch" => &[("200", "OK"), ("201", "Created")],
        "delete" => &[("200", "OK"), ("202", "Accepted")],
        _ => &[("200", "OK")],
    };
    let produced = produced(verb, place.subresource, custom);
    let mut responses = Map::new();
    for (code, text) in answers {
        let answer = match schemas.dialect() {
            Dialect::V2 => json!({"description": text, "schema": schema}),
            Dialect::V3 => json!({"description": text, "content": content(&produced, &schema)}),
        };
        responses.insert((*code).to_owned(), answer);
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    operation["responses"] = Value::Object(responses);
    if schemas.dialect() == Dialect::V2 {
        operation["produces"] = json!(produced);
        operation["schemes"] = json!(["https"]);
        operation["consumes"] = json!(["*/*"]);
    }
    body(verb, place, schemas, &mut operation);
    operation
}

fn content(types: &[&str], schema: &Value) -> Value {
    Value::Object(types.iter().map(|kind| ((*kind).to_owned(), json!({"schema": schema}))).collect())
}

fn produced(verb: &str, subresource: &str, custom: bool) -> Vec<&'static str> {
    let mut out = vec!["application/json", "application/yaml"];
    if verb.starts_with("connect") {
        return vec!["*/*"];
    }
    if !custom {
        out.push("application/vnd.kubernetes.protobuf");
    }
    if subresource == "log" {
        out.push("text/plain");
    }
    if !custom && matches!(verb, "list" | "watch" | "watchlist") {
        out.extend(["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"]);
    }
    out
}

fn body(verb: &str, place: &Place<'_>, schemas: &mut Schemas, operation: &mut Value) {
    let (schema, kinds, required) = match verb {
        "create" | "update" => (schemas.kind(&place.kind), vec!["*/*"], true),
        "delete" | "deletecollection" => (schemas.named(&super::custom::meta("DeleteOptions")), vec!["*/*"], false),
        "patch" => (schemas.named(&super::custom::meta("Patch")), patch_types(place.row.custom.is_some()), true),
        _ => return,
    };
    match schemas.dialect() {
        Dialect::V2 => {
            let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
            if required {
                parameter["required"] = json!(true);
            }
            operation["parameters"] = json!([parameter]);
            operation["consumes"] = json!(kinds);
        }
        Dialect::V3 => {
            operation["requestBody"] = json!({"content": content(&kinds, &schema)});
            if required {
                operation["requestBody"]["required"] = json!(true);
            }
        }
    }
}

/// Custom resources have no strategic merge.
fn patch_types(custom: bool) -> Vec<&'static str> {
    PATCH_TYPES.into_iter().filter(|kind| !(custom && kind.contains("strategic"))).collect()
}

/// What stands in `x-kubernetes-action`.
fn action(verb: &str) -> &str {
    match verb {
        "create" => "post",
        "update" => "put",
        connect if connect.starts_with("connect") => "connect",
        other => other,
    }
}

/// `readCoreV1NamespacedPodLog`, `connectCoreV1GetNamespacedPodProxyWithPath`.
fn identifier(verb: &str, place: &Place<'_>) -> String {
    let (before, between) = match verb {
        "get" => ("read", String::new()),
        "create" => ("create", String::new()),
        "update" => ("replace", String::new()),
        "deletecollection" => ("delete", "Collection".to_owned()),
        "watch" | "watchlist" => ("watch", String::new()),
        other => match other.strip_prefix("connect ") {
            Some(method) => ("connect", capitalised(&method.to_ascii_lowercase())),
            None => (other, String::new()),
        },
    };
    let namespaced = if place.namespaced { "Namespaced" } else { "" };
    let list = if verb == "watchlist" { "List" } else { "" };
    let everywhere = if place.everywhere { "ForAllNamespaces" } else { "" };
    let with_path = if place.with_path { "WithPath" } else { "" };
    format!(
        "{before}{}{between}{namespaced}{}{}{with_path}{list}{everywhere}",
        place.prefix,
        place.row.kind,
        capitalised(place.subresource)
    )
}

fn description(verb: &str, place: &Place<'_>) -> String {
    let (kind, sub) = (&place.row.kind, place.subresource);
    let of_sub = if sub.is_empty() { String::new() } else { format!("{sub} of ") };
    let article = match kind.as_str() {
        // Plurals have none.
        plural if plural.ends_with('s') && !plural.ends_with("ss") => "",
        vowel if vowel.starts_with(['A', 'E', 'I', 'O', 'U']) => "an ",
        _ => "a ",
    };
    match verb {
        "get" => format!("read {of_sub}the specified {kind}"),
        "list" if place.row.verbs.iter().any(|v| v == "watch") => format!("list or watch objects of kind {kind}"),
        "list" => format!("list objects of kind {kind}"),
        "create" => format!("create {of_sub}{article}{kind}"),
        "update" => format!("replace {of_sub}the specified {kind}"),
        "patch" => format!("partially update {of_sub}the specified {kind}"),
        "delete" => format!("delete {of_sub}{article}{kind}"),
        "deletecollection" => format!("delete collection of {kind}"),
        "watch" => format!("watch one {kind}. deprecated: list with 'watch' and a 'fieldSelector' on the name"),
        "watchlist" => format!("watch every {kind}. deprecated: list with 'watch'"),
        other => format!("{} requests to {of_sub}{kind}", other),
    }
}

/// The parameters a verb takes beside its body.
pub fn parameters(verb: &str, place: &Place<'_>, schemas: &Schemas) -> Vec<Value> {
    let connects = verb.starts_with("connect");
    let shown = if connects { &place.kind.kind } else { &place.row.kind };
    let mut out = if connects {
        parameters::of_options(&place.kind, schemas)
    } else {
        parameters::of_verb(verb, place.subresource).into_iter().map(|name| parameters::query(name, schemas)).collect()
    };
    if place.named {
        out.push(parameters::path("name", shown, schemas));
    }
    if place.namespaced {
        out.push(parameters::path("namespace", shown, schemas));
    }
    if place.with_path {
        out.push(parameters::path("path", shown, schemas));
    }
    out.sort_by_key(|p| (p["name"].to_string(), p["in"].to_string()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_upstreams_names_in_identifiers() {
        for (group, version, prefix, tag) in [
            ("", "v1", "CoreV1", "core_v1"),
            ("apps", "v1", "AppsV1", "apps_v1"),
            ("rbac.authorization.k8s.io", "v1", "RbacAuthorizationV1", "rbacAuthorization_v1"),
            ("flowcontrol.apiserver.k8s.io", "v1beta3", "FlowcontrolApiserverV1beta3", "flowcontrolApiserver_v1beta3"),
            ("stable.example.com", "v1", "StableExampleComV1", "stableExampleCom_v1"),
        ] {
            let gv = GroupVersion { group: group.to_owned(), version: version.to_owned() };
            assert_eq!(names(&gv), (prefix.to_owned(), tag.to_owned()));
        }
    }
}
