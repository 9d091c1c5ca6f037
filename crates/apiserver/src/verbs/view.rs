//! An object as a client asked to see it: as it is, as a Table, or its metadata alone; in JSON or YAML.

use bytes::BytesMut;
use kinds::Resource;
use machinery::object;
use machinery::status::StatusError;
use serde_json::{Value, json};
use store::Revision;

use super::write::Written;
use crate::cache::Entry;
use crate::chain::Call;
use crate::http::respond::{self, Answer};
use crate::http::{Encoding, Negotiated, View};

/// Whether objects of the resource can be written as protobuf.
pub fn has_protobuf(resource: &Resource) -> bool {
    crate::protobuf::has(resource)
}

/// Whether the bytes in the watch cache are what this version serves. Those of custom resources are: each version has a cache of
/// its own, filled with what it shows.
pub fn stored_as_served(resource: &Resource) -> bool {
    if resource.custom.is_some() {
        return true;
    }
    resource.storage_version.group == resource.group && resource.storage_version.version == resource.version
}

/// A stored object in the version of the row.
pub fn served(resource: &Resource, stored: Value) -> Value {
    if stored_as_served(resource) { stored } else { crate::conversion::from_storage(resource, stored) }
}

/// The answer that carries one object.
pub fn object(_call: &Call, negotiated: &Negotiated, resource: &Resource, code: u16, object: &Value) -> Result<Answer, StatusError> {
    let shown = match negotiated.view {
        View::Object => return Ok(respond::value(code, negotiated, object)),
        View::PartialObjectMetadata => partial(object),
        View::PartialObjectMetadataList => {
            return Err(StatusError::not_acceptable(format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list (*{})",
                go_type(resource)
            )));
        }
        View::Table => {
            let include = Include::parse(_call)?;
            // A dry run's object has no version.
            let version = object::resource_version(object);
            let metadata = if version.is_empty() { json!({}) } else { json!({"resourceVersion": version}) };
            table(resource, metadata, vec![row(resource, object, include)], true)
        }
    };
    Ok(respond::value(code, negotiated, &versioned(negotiated, shown)))
}

/// The answer to a write. The bytes just stored are sent as they are, where they are what was asked for.
pub fn written(call: &Call, negotiated: &Negotiated, resource: &Resource, code: u16, written: &Written) -> Result<Answer, StatusError> {
    let plain = negotiated.view == View::Object && negotiated.encoding == Encoding::Json && !negotiated.pretty;
    match &written.stored {
        Some(stored) if plain && resource.storage_version == resource.gvk().group_version() => {
            let mut out = BytesMut::with_capacity(stored.bytes.len() + 64);
            crate::codec::splice_into(&mut out, &stored.bytes, stored.revision);
            // As every JSON answer ends.
            out.extend_from_slice(b"\n");
            Ok(respond::bytes(code, Encoding::Json.content_type(), out.freeze()))
        }
        _ => object(call, negotiated, resource, code, &written.object.to_value()),
    }
}

/// A view under the version of `meta.k8s.io` that was asked for.
pub fn versioned(negotiated: &Negotiated, mut shown: Value) -> Value {
    if !negotiated.beta {
        return shown;
    }
    let rename = |object: &mut Value| {
        if object.get("apiVersion").is_some_and(|v| v == "meta.k8s.io/v1") {
            object["apiVersion"] = json!("meta.k8s.io/v1beta1");
        }
    };
    rename(&mut shown);
    let rows = shown.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten().filter_map(|r| r.get_mut("object"));
    rows.for_each(rename);
    shown.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(rename);
    shown
}

/// What upstream calls the kind's internal type.
pub fn go_type(resource: &Resource) -> String {
    if resource.custom.is_some() {
        return "unstructured.Unstructured".to_owned();
    }
    let package = match resource.group.split('.').next().unwrap_or_default() {
        "" | "events" => "core",
        "internal" => "apiserverinternal",
        first => first,
    };
    format!("{package}.{}", resource.kind)
}

/// What of the object a Table row carries: `?includeObject=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub fn parse(call: &Call) -> Result<Self, StatusError> {
        match call.query.text("includeObject") {
            "None" => Ok(Self::None),
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => Err(StatusError::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// `PartialObjectMetadata` of an object.
pub fn partial(object: &Value) -> Value {
    let mut metadata = object.get("metadata").cloned().unwrap_or_default();
    let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
    if annotations.is_some_and(|a| a.remove(SERVED_ANNOTATION).is_some() && a.is_empty())
        && let Some(map) = metadata.as_object_mut()
    {
        map.remove("annotations");
    }
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// Upstream keeps a field of DaemonSets in this annotation, which only whole objects show.
const SERVED_ANNOTATION: &str = "deprecated.daemonset.template.generation";

/// Puts the annotation into an object that never had it: of a bookmark.
pub fn served_annotation(resource: &Resource, object: &mut Value) {
    if resource.kind == "DaemonSet" {
        object::map_mut(object, "metadata.annotations").insert(SERVED_ANNOTATION.to_owned(), json!("0"));
    }
}

/// Whether the metadata of stored bytes is what views of the metadata alone show.
pub fn metadata_as_stored(resource: &Resource) -> bool {
    stored_as_served(resource) && resource.kind != "DaemonSet"
}

/// Appends the `PartialObjectMetadata` of a stored object that is served as it is stored.
pub fn append_partial(out: &mut BytesMut, entry: &Entry, revision: Revision) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    entry.append_metadata_json(out, revision);
    out.extend_from_slice(b"}");
}

pub fn row(resource: &Resource, object: &Value, include: Include) -> Value {
    let now = jiff::Timestamp::now().as_second();
    let cells = resource.strategy.cells(object, now).unwrap_or_else(|| plain_cells(resource, object, now));
    let mut row = json!({"cells": cells});
    match include {
        Include::None => row["object"] = Value::Null,
        Include::Metadata => row["object"] = partial(object),
        Include::Object => row["object"] = object.clone(),
    }
    row
}

/// The cells of a kind without printers of its own: its name and its age, or when it was made.
fn plain_cells(resource: &Resource, object: &Value, now: i64) -> Vec<Value> {
    let cell = |c: &kinds::resource::Column| match c.name.as_str() {
        "Name" => json!(object::name(object)),
        "Age" => kinds::columns::age(object, now),
        "Created At" => kinds::columns::created_at(object),
        _ => json!("<unknown>"),
    };
    if resource.columns.is_empty() {
        return vec![json!(object::name(object)), kinds::columns::created_at(object)];
    }
    resource.columns.iter().map(cell).collect()
}

/// A Table; later events of a watch come without the column definitions.
pub fn table(resource: &Resource, metadata: Value, rows: Vec<Value>, with_columns: bool) -> Value {
    let mut table = json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": null, "rows": rows});
    if with_columns {
        table["columnDefinitions"] = super::columns::definitions(resource);
    }
    table
}
