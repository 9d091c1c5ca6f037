//! OpenAPI v3 (an index, a document per group version) and v2, made from the facts of types and the table. Without
//! descriptions. kubectl takes field validation, patch keys and `explain`'s structure from here.

mod paths;
mod schemas;

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use http::HeaderValue;
use http::header::{ETAG, IF_NONE_MATCH};
use machinery::gvk::GroupVersion;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use crate::chain::Call;
use crate::http::respond::{self, Answer};

const V3: &str = "/openapi/v3";

/// A finished document.
#[derive(Clone)]
struct Document {
    bytes: Bytes,
    hash: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        let text = value.to_string();
        let hash = hex::encode_upper(Sha512::digest(text.as_bytes()));
        Self { bytes: text.into(), hash }
    }
}

/// Documents made so far, by path: built-in types do not change while a server runs.
fn cached(path: &str, make: impl FnOnce() -> Value) -> Document {
    static MADE: OnceLock<Mutex<BTreeMap<String, Document>>> = OnceLock::new();
    let made = MADE.get_or_init(Mutex::default);
    if let Some(found) = made.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
        return found.clone();
    }
    let document = Document::new(&make());
    made.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), document.clone());
    document
}

pub fn serve(call: &Call, path: &str) -> Answer {
    if path == "/openapi/v2" {
        return answer(call, &cached(path, v2), "application/json");
    }
    if path == V3 {
        return respond::bytes(200, "text/plain; charset=utf-8", index(call).to_string());
    }
    let name = path.strip_prefix(V3).unwrap_or("").trim_matches('/');
    match document(call, name) {
        Some(document) => answer(call, &document, "application/json"),
        None => respond::page_not_found(),
    }
}

fn answer(call: &Call, document: &Document, content_type: &'static str) -> Answer {
    let etag = format!("\"{}\"", document.hash);
    let same = call.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()) == Some(&etag);
    let mut answer = if same { respond::bytes(304, content_type, "") } else { respond::bytes(200, content_type, document.bytes.clone()) };
    if let Ok(value) = HeaderValue::from_str(&etag) {
        answer.headers_mut().insert(ETAG, value);
    }
    answer
}

/// `api/v1`, `apis/apps/v1`.
fn name_of(gv: &GroupVersion) -> String {
    if gv.group.is_empty() { format!("api/{}", gv.version) } else { format!("apis/{gv}") }
}

fn document(call: &Call, name: &str) -> Option<Document> {
    let registry = call.api.registry.snapshot();
    let gv = registry.group_versions().iter().find(|gv| name_of(gv) == name)?;
    Some(cached(name, || v3(gv)))
}

fn index(call: &Call) -> Value {
    let mut paths = serde_json::Map::new();
    for gv in call.api.registry.snapshot().group_versions() {
        let name = name_of(gv);
        if let Some(document) = document(call, &name) {
            let url = format!("{V3}/{name}?hash={}", document.hash);
            paths.insert(name, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn v3(gv: &GroupVersion) -> Value {
    let mut schemas = schemas::Schemas::new("#/components/schemas/");
    let paths = paths::of(gv, &mut schemas, paths::Dialect::V3);
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.2"}, "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "securitySchemes": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
        },
    })
}

fn v2() -> Value {
    let mut schemas = schemas::Schemas::new("#/definitions/");
    let mut all = serde_json::Map::new();
    for gv in kinds::table().group_versions() {
        if let Value::Object(paths) = paths::of(gv, &mut schemas, paths::Dialect::V2) {
            all.extend(paths);
        }
    }
    json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.2"}, "paths": all, "definitions": schemas.finish(),
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
        "security": [{"BearerToken": []}],
    })
}
