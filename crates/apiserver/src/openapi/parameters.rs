//! The parameters of operations: which verb takes which, of what type, and a few words on each where upstream's are not at hand.

use machinery::gvk::GroupVersionKind;
use machinery::schema::{Scalar, Type};
use serde_json::{Value, json};

use super::paths::Dialect;
use super::schemas::Schemas;

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// Name, type and words. Those without words are described by the field of DeleteOptions.
const QUERY: [(&str, &str, &str); 31] = [
    ("allowWatchBookmarks", "boolean", "Whether a watch also sends events of type BOOKMARK, which carry only a resourceVersion."),
    ("container", "string", "The container; may be left out where the pod has only one."),
    ("continue", "string", "The token of the answer before, to get the next part of the list."),
    ("dryRun", "string", ""),
    ("fieldManager", "string", "The name under which the changes are noted in managed fields."),
    ("fieldSelector", "string", "Only objects whose fields are so."),
    ("fieldValidation", "string", "What becomes of unknown and repeated fields: Ignore, Warn or Strict."),
    ("follow", "boolean", "Whether to go on with what is logged from now on."),
    ("force", "boolean", "Whether an apply takes fields that others own."),
    ("gracePeriodSeconds", "integer", ""),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", ""),
    ("insecureSkipTLSVerifyBackend", "boolean", "Whether not to verify the certificate of the node."),
    ("labelSelector", "string", "Only objects whose labels are so."),
    ("limit", "integer", "The most objects in one answer; the rest follows with `continue`."),
    ("limitBytes", "integer", "The most bytes of the log."),
    ("orphanDependents", "boolean", ""),
    ("pretty", "string", "Whether to print with line breaks and spaces."),
    ("previous", "boolean", "Whether to show the log of the container before the last restart."),
    ("propagationPolicy", "string", ""),
    ("resourceVersion", "string", "The version the answer must at least, or exactly, show."),
    ("resourceVersionMatch", "string", "How the resourceVersion of a list is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with an event for each object there is."),
    ("shardSelector", "string", "Only the objects of a shard."),
    ("sinceSeconds", "integer", "How many seconds back to begin."),
    ("stream", "string", "Which stream of the container: All, Stdout or Stderr."),
    ("tailLines", "integer", "How many lines from the end."),
    ("timeoutSeconds", "integer", "How long a list or watch may take."),
    ("timestamps", "boolean", "Whether each line begins with its time."),
    ("watch", "boolean", "Whether to follow the changes instead of listing."),
    ("path", "string", "The path to ask the other side for."),
    ("ports", "integer", "The ports to forward."),
];

const LIST: [&str; 11] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];
const DELETE: [&str; 5] =
    ["dryRun", "gracePeriodSeconds", "ignoreStoreReadErrorWithClusterBreakingPotential", "orphanDependents", "propagationPolicy"];
const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
const LOG: [&str; 9] =
    ["container", "follow", "insecureSkipTLSVerifyBackend", "limitBytes", "previous", "sinceSeconds", "stream", "tailLines", "timestamps"];

/// The names of what a verb takes in the query.
pub fn of_verb(verb: &str, subresource: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = match verb {
        "list" | "watch" | "watchlist" => LIST.to_vec(),
        "deletecollection" => LIST.into_iter().filter(|n| !matches!(*n, "allowWatchBookmarks" | "watch")).chain(DELETE).collect(),
        "delete" => DELETE.to_vec(),
        "create" | "update" => WRITE.to_vec(),
        "patch" => [&WRITE[..], &["force"]].concat(),
        "get" if subresource == "log" => LOG.to_vec(),
        _ => Vec::new(),
    };
    names.push("pretty");
    names
}

/// One parameter of the query.
pub fn query(name: &str, schemas: &Schemas) -> Value {
    let (kind, words) = QUERY.iter().find(|(n, ..)| *n == name).map_or(("string", ""), |(_, kind, words)| (*kind, *words));
    let words = if words.is_empty() { schemas.words_of(DELETE_OPTIONS, name).unwrap_or_default() } else { words.to_owned() };
    parameter(name, "query", kind, &words, schemas.dialect())
}

/// One parameter of the path.
pub fn path(name: &str, kind: &str, schemas: &Schemas) -> Value {
    let words = match name {
        "name" => format!("name of the {kind}"),
        "namespace" => "the namespace of the object".to_owned(),
        _ => format!("{name} below the object"),
    };
    parameter(name, "path", "string", &words, schemas.dialect())
}

fn parameter(name: &str, place: &str, kind: &str, words: &str, dialect: Dialect) -> Value {
    let mut out = match dialect {
        Dialect::V2 => json!({"name": name, "in": place, "type": kind, "uniqueItems": true}),
        Dialect::V3 => json!({"name": name, "in": place, "schema": {"type": kind, "uniqueItems": true}}),
    };
    if !words.is_empty() {
        out["description"] = json!(words);
    }
    if place == "path" {
        out["required"] = json!(true);
    }
    out
}

/// The fields of the options that a connection takes: `PodExecOptions`.
pub fn of_options(gvk: &GroupVersionKind, schemas: &Schemas) -> Vec<Value> {
    let types = kinds::types();
    let Some(Type::Struct(options)) = kinds::table().type_of(gvk).map(|ty| types.get(ty)) else { return Vec::new() };
    let fields = options.fields.iter().filter(|f| !matches!(f.name.as_str(), "apiVersion" | "kind"));
    fields
        .map(|field| {
            let ty = match types.get(field.ty) {
                Type::List(list) => types.get(list.elem),
                other => other,
            };
            let kind = match ty {
                Type::Scalar(Scalar::Bool) => "boolean",
                Type::Scalar(Scalar::Int32 | Scalar::Int64) => "integer",
                _ => "string",
            };
            let words = QUERY.iter().find(|(n, ..)| *n == field.name).map_or("", |(.., words)| *words);
            parameter(&field.name, "query", kind, words, schemas.dialect())
        })
        .collect()
}
