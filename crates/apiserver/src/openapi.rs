//! OpenAPI v3 (an index, a document per group version) and v2, made from the facts of types and the table, with
//! the words of `descriptions`. kubectl takes field validation, patch keys and `explain`'s structure from here.

pub mod custom;
mod gnostic;
mod operations;
mod parameters;
mod paths;
mod roots;
mod schemas;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use descriptions::Descriptions;
use http::HeaderValue;
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY};
use machinery::gvk::GroupVersion;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use crate::aggregation::{Route, openapi as aggregated};
use crate::chain::Call;
use crate::http::negotiate;
use crate::http::respond::{self, Answer};

const V3: &str = "/openapi/v3";
/// So many documents are kept as protobuf, too: hardly anybody asks.
const PROTOBUF_MAX: usize = 128;

/// A finished document. Kept packed: all of them are megabytes, and who asks mostly takes gzip.
#[derive(Clone)]
struct Document {
    packed: Bytes,
    hash: String,
}

impl Document {
    fn new(bytes: &[u8]) -> Self {
        let hash = hex::encode_upper(Sha512::digest(bytes));
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        // Writing into memory cannot fail.
        let packed = packer.write_all(bytes).and_then(|()| packer.finish()).unwrap_or_else(|e| {
            tracing::error!(error = %e, "an OpenAPI document could not be packed");
            Vec::new()
        });
        Self { packed: packed.into(), hash }
    }

    fn unpacked(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.packed.len() * 8);
        if let Err(e) = flate2::read::GzDecoder::new(&*self.packed).read_to_end(&mut out) {
            tracing::error!(error = %e, "an OpenAPI document could not be unpacked");
        }
        out
    }
}

/// Documents made so far, by path: built-in types do not change while a server runs.
fn cached(path: &str, make: impl FnOnce() -> Vec<u8>) -> Document {
    static MADE: OnceLock<Mutex<BTreeMap<String, Document>>> = OnceLock::new();
    let made = MADE.get_or_init(Mutex::default);
    if let Some(found) = made.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
        return found.clone();
    }
    let document = Document::new(&make());
    made.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), document.clone());
    document
}

/// The words for types and fields: shared while documents are made, then dropped.
fn words() -> Arc<Descriptions> {
    static SHARED: Mutex<Weak<Descriptions>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let all = Arc::new(Descriptions::unpack());
        *shared = Arc::downgrade(&all);
        all
    })
}

/// The version 2 document with those of other servers, made anew when one of them is another.
fn merged(form: &Form, parts: &[(String, Arc<Value>)]) -> Document {
    type Kept = Mutex<BTreeMap<&'static str, (Vec<(String, Arc<Value>)>, Document)>>;
    static KEPT: OnceLock<Kept> = OnceLock::new();
    let name = if matches!(form, Form::Json) { "json" } else { "protobuf" };
    let mut kept = KEPT.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, document)) = kept.get(name)
        && of.len() == parts.len()
        && of.iter().zip(parts).all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(&a.1, &b.1))
    {
        return document.clone();
    }
    let mut all = v2();
    for (root, theirs) in parts {
        if root.starts_with("custom/") {
            custom::merge(&mut all, theirs);
            continue;
        }
        aggregated::merge(&mut all, root, theirs);
    }
    let bytes = if matches!(form, Form::Json) { all.to_string().into() } else { gnostic::document(&all) };
    let document = Document::new(&bytes);
    kept.insert(name, (parts.to_vec(), document.clone()));
    document
}

/// A document of another server.
async fn others(call: &Call, route: &Route, path: &str) -> Answer {
    match aggregated::document(&call.api, route).await {
        Some(bytes) => answer_v3(call, path, &Document::new(&bytes)),
        None => respond::text(503, "service unavailable\n"),
    }
}

pub async fn serve(call: &Call, path: &str) -> Answer {
    match aggregated::route_of(&call.api, path) {
        Some(route) => others(call, &route, path).await,
        None => own(call, path),
    }
}

fn own(call: &Call, path: &str) -> Answer {
    let mut parts = Vec::new();
    if path == "/openapi/v2" {
        parts = call.api.openapi.parts(&call.api.registry.snapshot());
        parts.extend(aggregated::parts(&call.api));
    }
    if !parts.is_empty() {
        return match form(call, V2) {
            Some(form) => answer(call, &merged(&form, &parts), if matches!(form, Form::Json) { "application/json" } else { V2[0] }),
            None => not_acceptable(),
        };
    }
    if path == "/openapi/v2" {
        return match form(call, V2) {
            Some(Form::Json) => answer(call, &cached(path, || v2().to_string().into()), "application/json"),
            Some(Form::Protobuf) => answer(call, &cached("/openapi/v2 protobuf", || gnostic::document(&v2())), V2[0]),
            None => not_acceptable(),
        };
    }
    if path == V3 {
        return respond::bytes(200, "text/plain; charset=utf-8", index(call).to_string());
    }
    let name = path.strip_prefix(V3).unwrap_or("").trim_matches('/');
    match document(call, name) {
        Some(document) => answer_v3(call, path, &document),
        // Upstream's handler sends no words with it.
        None => {
            let mut answer = respond::bytes(404, "text/plain", "");
            answer.headers_mut().remove(CONTENT_TYPE);
            answer
        }
    }
}

enum Form {
    Json,
    Protobuf,
}

/// The protobuf form's names: as it is answered and may be asked for, and as clients ask, with an `@`.
const V2: [&str; 2] =
    ["application/com.github.proto-openapi.spec.v2.v1.0+protobuf", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"];
const V3_PROTOBUF: [&str; 2] =
    ["application/com.github.proto-openapi.spec.v3.v1.0+protobuf", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"];

/// The form of a document, by the order of Accept.
fn form(call: &Call, protobuf: [&str; 2]) -> Option<Form> {
    let accept: Vec<&str> = call.headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    if accept.is_empty() {
        return Some(Form::Json);
    }
    negotiate::kinds(&accept.join(",")).into_iter().find_map(|kind| match kind {
        "*/*" | "application/*" | "application/json" => Some(Form::Json),
        kind if protobuf.contains(&kind) => Some(Form::Protobuf),
        _ => None,
    })
}

/// A version 3 document as protobuf, under the tag of the document: `Vary` tells the two forms apart. Some are kept.
fn as_protobuf(document: &Document) -> Document {
    static MADE: Mutex<BTreeMap<String, Document>> = Mutex::new(BTreeMap::new());
    let lock = || MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = lock().get(&document.hash) {
        return found.clone();
    }
    let read: Value = serde_json::from_slice(&document.unpacked()).unwrap_or_else(|e| {
        tracing::error!(error = %e, "an OpenAPI document is no JSON");
        Value::Null
    });
    let made = Document { hash: document.hash.clone(), ..Document::new(&gnostic::v3::document(&read)) };
    let mut all = lock();
    if all.len() >= PROTOBUF_MAX {
        all.clear();
    }
    all.insert(document.hash.clone(), made.clone());
    made
}

/// A version 3 document in the form that was asked for. One that is asked for by its hash never changes.
fn answer_v3(call: &Call, path: &str, document: &Document) -> Answer {
    let mut answer = match form(call, V3_PROTOBUF) {
        Some(Form::Json) => answer(call, document, "application/json"),
        Some(Form::Protobuf) => answer(call, &as_protobuf(document), V3_PROTOBUF[0]),
        None => return not_acceptable(),
    };
    let Some(hash) = call.query.get("hash").filter(|h| !h.is_empty()) else { return answer };
    if hash != document.hash {
        let content_type = answer.headers_mut().remove(CONTENT_TYPE);
        let mut moved = respond::bytes(301, "text/plain", "");
        if let (Some(content_type), Ok(to)) = (content_type, HeaderValue::from_str(&format!("{path}?hash={}", document.hash))) {
            moved.headers_mut().insert(CONTENT_TYPE, content_type);
            moved.headers_mut().insert(LOCATION, to);
        }
        return moved;
    }
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    let year = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(365 * 24);
    if let Ok(at) = HeaderValue::from_str(&year.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string()) {
        answer.headers_mut().insert(EXPIRES, at);
    }
    answer
}

fn not_acceptable() -> Answer {
    let mut answer = respond::bytes(406, "text/plain", "");
    answer.headers_mut().remove(CONTENT_TYPE);
    answer
}

fn answer(call: &Call, document: &Document, content_type: &'static str) -> Answer {
    let etag = format!("\"{}\"", document.hash);
    let same = call.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()) == Some(&etag);
    let packs = call.headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"));
    let mut answer = match (same, packs) {
        (true, _) => respond::bytes(304, content_type, ""),
        (false, true) => respond::bytes(200, content_type, document.packed.clone()),
        (false, false) => respond::bytes(200, content_type, document.unpacked()),
    };
    let headers = answer.headers_mut();
    if packs && !same {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    if let Ok(value) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, value);
    }
    answer
}

/// `api/v1`, `apis/apps/v1`.
fn name_of(gv: &GroupVersion) -> String {
    if gv.group.is_empty() { format!("api/{}", gv.version) } else { format!("apis/{gv}") }
}

fn document(call: &Call, name: &str) -> Option<Document> {
    let registry = call.api.registry.snapshot();
    if let Some(root) = roots::find(&registry, name) {
        return Some(cached(name, || root.document().to_string().into()));
    }
    let gv = registry.group_versions().iter().find(|gv| name_of(gv) == name)?;
    call.api.openapi.v3(&registry, gv).or_else(|| Some(cached(name, || v3(gv).to_string().into())))
}

fn index(call: &Call) -> Value {
    // Kept until every document is made.
    let _words = words();
    let mut paths = serde_json::Map::new();
    let registry = call.api.registry.snapshot();
    for name in registry.group_versions().iter().map(name_of).chain(roots::names(&registry)) {
        if let Some(document) = document(call, &name) {
            let url = format!("{V3}/{name}?hash={}", document.hash);
            paths.insert(name, json!({"serverRelativeURL": url}));
        }
    }
    aggregated::add_to_index(&call.api, &mut paths);
    json!({"paths": paths})
}

fn v3(gv: &GroupVersion) -> Value {
    let mut schemas = schemas::Schemas::new(paths::Dialect::V3, words());
    let paths = paths::of(gv, &mut schemas);
    v3_of(paths, schemas)
}

fn v3_of(paths: Value, schemas: schemas::Schemas) -> Value {
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "1.36"}, "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "securitySchemes": {"BearerToken": {"description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header"}},
        },
    })
}

fn v2() -> Value {
    let mut schemas = schemas::Schemas::new(paths::Dialect::V2, words());
    let mut all = roots::paths(&mut schemas);
    for gv in kinds::table().group_versions() {
        if let Value::Object(paths) = paths::of(gv, &mut schemas) {
            all.extend(paths);
        }
    }
    json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.2"}, "paths": all, "definitions": schemas.finish(),
        "securityDefinitions": {"BearerToken": {"description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header"}},
        "security": [{"BearerToken": []}],
    })
}
