//! LIST: the options upstream allows, and the answer: stored bytes joined as they go out, or whatever other form was asked for.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use kinds::Resource;
use machinery::field;
use machinery::gvk::GroupKind;
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::options::ListOptions;
use super::page::{self, Page};
use super::selection::Selection;
use super::{Target, view};
use crate::cache::Entry;
use crate::chain::Call;
use crate::codec;
use crate::http::respond::{self, Answer};
use crate::http::{Body, Encoding, Negotiated, View, negotiate};

/// Bytes per frame handed to the connection, about.
const CHUNK_BYTES: usize = 64 * 1024;
/// Room for the object that makes a chunk full.
const CHUNK_ROOM_BYTES: usize = CHUNK_BYTES + 8 * 1024;
/// So many are kept: what 16 readers have on their way.
const FREE_MAX: usize = 32;

pub async fn list(call: Call, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, view::has_protobuf(&target.resource))?;
    let options = ListOptions::parse(&call.query)?;
    validate(&options)?;
    let selection = Selection::parse(&target.resource, &options.label_selector, &options.field_selector)?;
    let page = page::read(&call, &target, &options, &selection).await?;
    answer(&call, &negotiated, &target.resource, page)
}

/// Upstream's `ValidateListOptions`, for lists.
fn validate(options: &ListOptions) -> Result<(), StatusError> {
    let path = field::Path::new("resourceVersionMatch");
    let mut errors = Vec::new();
    let matching = options.resource_version_match.as_str();
    if !matching.is_empty() {
        if options.resource_version.is_empty() {
            errors.push(field::Error::forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if !options.continue_token.is_empty() {
            errors.push(field::Error::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            errors.push(field::Error::not_supported(&path, &Value::from(matching), &["Exact", "NotOlderThan", ""]));
        }
        if matching == "Exact" && options.resource_version == "0" {
            errors.push(field::Error::forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
        }
    }
    if options.send_initial_events.is_some() {
        let path = field::Path::new("sendInitialEvents");
        errors.push(field::Error::forbidden(&path, "sendInitialEvents is forbidden for list"));
    }
    invalid_options(&errors)
}

/// 422 about ListOptions, if there are errors.
pub fn invalid_options(errors: &[field::Error]) -> Result<(), StatusError> {
    if errors.is_empty() {
        return Ok(());
    }
    let kind = GroupKind { group: "meta.k8s.io".to_owned(), kind: "ListOptions".to_owned() };
    Err(StatusError::invalid(&kind, "", errors))
}

/// A resourceVersion as a number.
pub fn parse_version(text: &str) -> Result<u64, String> {
    text.parse::<u64>()
        .map_err(|_| format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"))
}

/// Upstream lets some errors of its storage through as they are: 500 without a reason.
pub fn bare_500(message: String) -> StatusError {
    StatusError { details: None, ..StatusError::new(500, "", message) }
}

pub fn answer(call: &Call, negotiated: &Negotiated, resource: &Resource, page: Page) -> Result<Answer, StatusError> {
    let mut metadata = json!({"resourceVersion": page.revision.0.to_string()});
    if !page.continue_token.is_empty() {
        metadata["continue"] = json!(page.continue_token);
    }
    if resource.custom.is_some() && negotiated.view == View::Object {
        // Upstream prints a list without a type, and with it what is empty.
        metadata["continue"] = json!(page.continue_token);
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    if negotiated.encoding == Encoding::Json
        && !(negotiated.pretty || negotiated.beta)
        && view::stored_as_served(resource)
        && let Some(form) = Form::of(negotiated.view, resource)
        && (form != Form::Metadata || view::metadata_as_stored(resource))
    {
        return Ok(Splicing::answer(form, resource, &metadata, page.items));
    }
    if negotiated.encoding == Encoding::Protobuf
        && negotiated.view == View::Object
        && let Some(bytes) = crate::protobuf::list(resource, &metadata, &page.items)
    {
        return Ok(respond::bytes(200, Encoding::Protobuf.content_type(), bytes));
    }
    let objects = page.items.iter().map(|entry| view::served(resource, codec::decode(&entry.bytes, entry.revision)));
    let list = match negotiated.view {
        View::Object => {
            let items: Vec<Value> = objects.map(|o| if resource.custom.is_some() { o } else { untyped(o) }).collect();
            json!({"kind": resource.list_kind(), "apiVersion": resource.gvk().api_version(), "metadata": metadata, "items": items})
        }
        View::PartialObjectMetadata => {
            return Err(StatusError::not_acceptable(format!(
                "you requested PartialObjectMetadata, but the requested object is a list (*{}List)",
                view::go_type(resource)
            )));
        }
        View::PartialObjectMetadataList => {
            let items: Vec<Value> = objects.map(|o| view::partial(&o)).collect();
            let items = if items.is_empty() { Value::Null } else { Value::Array(items) };
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
        }
        View::Table => {
            let include = view::Include::parse(call)?;
            let rows = objects.map(|o| view::row(resource, &o, include)).collect();
            view::table(resource, metadata, rows, true)
        }
    };
    Ok(respond::value(200, negotiated, &view::versioned(negotiated, list)))
}

/// Items of a typed list carry no kind and apiVersion.
pub fn untyped(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}

/// The forms of a list that are joined from stored bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Objects,
    /// Those of a list without a type, with kind and apiVersion.
    Whole,
    Metadata,
}

impl Form {
    fn of(view: View, resource: &Resource) -> Option<Self> {
        match view {
            View::Object if resource.custom.is_some() => Some(Self::Whole),
            View::Object => Some(Self::Objects),
            View::PartialObjectMetadataList => Some(Self::Metadata),
            _ => None,
        }
    }
}

/// The chunks of a list, made as the connection takes them: memory does not grow with the list.
struct Splicing {
    form: Form,
    head: Option<String>,
    items: std::vec::IntoIter<Arc<Entry>>,
    first: bool,
    ended: bool,
}

/// The memory of chunks that were sent, for the next ones of any list. Fresh memory for each cost a fifth of a list: the
/// allocator gives it back to the kernel, and every page is faulted in anew.
static FREE: Mutex<Vec<BytesMut>> = Mutex::new(Vec::new());

/// A chunk on its way; its memory is free when that is dropped.
struct Chunk(BytesMut);

impl Chunk {
    fn new(bytes: usize) -> Self {
        let free = || FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(if bytes < CHUNK_BYTES { None } else { free() }.unwrap_or_else(|| BytesMut::with_capacity(bytes)))
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.0);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        // Not what one huge object needed.
        if (CHUNK_BYTES..CHUNK_BYTES * 2).contains(&memory.capacity()) && free.len() < FREE_MAX {
            memory.clear();
            free.push(memory);
        }
    }
}

impl Splicing {
    fn answer(form: Form, resource: &Resource, metadata: &Value, items: Vec<Arc<Entry>>) -> Answer {
        let (kind, api_version) = match form {
            Form::Objects | Form::Whole => (resource.list_kind(), resource.gvk().api_version()),
            Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        let open = if form == Form::Metadata && items.is_empty() { "null" } else { "[" };
        let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":{open}");
        let small = items.iter().map(|e| e.bytes.len() + 64).sum::<usize>() < CHUNK_BYTES;
        let mut chunks = Self { form, head: Some(head), items: items.into_iter(), first: true, ended: false };
        let body = match chunks.next() {
            // Known whole, so it goes with its length.
            Some(whole) if small => Body::from(whole),
            begin => Body::Lazy(Box::new(begin.into_iter().chain(chunks))),
        };
        let mut response = http::Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(Encoding::Json.content_type()));
        response
    }

    fn item(&mut self, out: &mut BytesMut, entry: &Entry) {
        if !std::mem::replace(&mut self.first, false) {
            out.extend_from_slice(b",");
        }
        match self.form {
            Form::Objects => entry.append_item_json(out),
            Form::Whole => entry.append_json(out, entry.revision),
            Form::Metadata => view::append_partial(out, entry, entry.revision),
        }
    }
}

impl Iterator for Splicing {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let left: usize = self.items.as_slice().iter().take(CHUNK_ROOM_BYTES / 1024).map(|e| e.bytes.len() + 64).sum();
        let mut chunk = Chunk::new(left.clamp(1024, CHUNK_ROOM_BYTES));
        let out = &mut chunk.0;
        let null = self.head.as_ref().is_some_and(|h| h.ends_with("null"));
        if let Some(head) = self.head.take() {
            out.extend_from_slice(head.as_bytes());
        }
        while out.len() < CHUNK_BYTES {
            let Some(entry) = self.items.next() else {
                out.extend_from_slice(if null { b"}\n" } else { b"]}\n" });
                self.ended = true;
                break;
            };
            self.item(out, &entry);
        }
        Some(Bytes::from_owner(chunk))
    }
}
