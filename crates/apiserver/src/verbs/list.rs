//! LIST: a consistent snapshot of a collection, in pages if asked, streamed as spliced bytes where nothing needs a tree.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use kinds::Resource;
use machinery::field;
use machinery::gvk::GroupKind;
use machinery::status::{Cause, Details, StatusError};
use serde_json::{Value, json};
use store::{KeyValue, Revision};

use super::options::ListOptions;
use super::selection::Selection;
use super::{Target, view};
use crate::chain::Call;
use crate::codec;
use crate::http::respond::{self, Answer};
use crate::http::{Body, Encoding, Negotiated, View, negotiate};
use crate::registry;
use crate::state::store_error;

/// Bytes per frame handed to the connection.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long a list waits for a revision that this server has not seen yet.
const FRESH_WAIT: Duration = Duration::from_secs(3);
/// Keys read at once when a selector may drop most of them.
const SCAN: usize = 2000;

/// A page of a collection.
pub struct Page {
    pub revision: Revision,
    pub items: Vec<KeyValue>,
    pub continue_token: String,
    pub remaining: Option<u64>,
}

pub async fn list(call: Call, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, view::has_protobuf(&target.resource))?;
    let options = ListOptions::parse(&call.query)?;
    validate(&options)?;
    let selection = Selection::parse(&target.resource, &options.label_selector, &options.field_selector)?;
    let page = read(&call, &target, &options, &selection).await?;
    answer(&call, &negotiated, &target.resource, &page)
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

/// Waits a little for a revision newer than the store's.
pub async fn wait_for(call: &Call, wanted: Revision) -> Result<(), StatusError> {
    let until = tokio::time::Instant::now() + FRESH_WAIT;
    loop {
        let current = call.api.store.revision().await.map_err(store_error)?;
        if current >= wanted {
            return Ok(());
        }
        if tokio::time::Instant::now() >= until {
            return Err(too_large(wanted, current));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn too_large(wanted: Revision, current: Revision) -> StatusError {
    let cause = Cause { reason: "ResourceVersionTooLarge".into(), message: "Too large resource version".into(), field: String::new() };
    let details = Details { causes: vec![cause], retry_after_seconds: 1, ..Details::default() };
    let message = format!("Timeout: Too large resource version: {}, current: {}", wanted.0, current.0);
    StatusError { details: Some(Box::new(details)), ..StatusError::new(504, "Timeout", message) }
}

/// Where a page starts: after which key, at which revision.
struct Start {
    after: Option<String>,
    revision: Option<Revision>,
}

async fn start(call: &Call, options: &ListOptions, prefix: &str) -> Result<Start, StatusError> {
    let version = options.resource_version.as_str();
    if !options.continue_token.is_empty() {
        let token = Token::decode(&options.continue_token)?;
        if !version.is_empty() && version != "0" {
            return Err(StatusError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let revision = u64::try_from(token.revision).ok().map(Revision);
        return Ok(Start { after: Some(format!("{prefix}{}", token.after)), revision });
    }
    if version.is_empty() || version == "0" {
        return Ok(Start { after: None, revision: None });
    }
    let wanted = Revision(parse_version(version).map_err(|e| StatusError { details: None, message: e, ..StatusError::internal("") })?);
    wait_for(call, wanted).await?;
    let exact = options.resource_version_match == "Exact" || (options.resource_version_match.is_empty() && options.limit > 0);
    Ok(Start { after: None, revision: exact.then_some(wanted) })
}

/// Reads one page. Also what deletecollection goes by.
pub async fn read(call: &Call, target: &Target, options: &ListOptions, selection: &Selection) -> Result<Page, StatusError> {
    let prefix = registry::prefix(&target.resource, &target.namespace);
    let begin = start(call, options, &prefix).await?;
    let continuing = begin.after.is_some();
    let everything = selection.is_everything();
    let mut page = Page { revision: Revision(0), items: Vec::new(), continue_token: String::new(), remaining: None };
    let (mut after, mut revision) = (begin.after, begin.revision);
    let mut seen = 0u64;
    loop {
        let want = if options.limit == 0 {
            0
        } else if everything {
            options.limit
        } else {
            SCAN
        };
        let query = store::ListOptions { after: after.clone(), limit: want, revision };
        let listing = call.api.store.list(&prefix, query).await.map_err(|e| compacted(e, continuing, &options.resource_version))?;
        page.revision = revision.unwrap_or(listing.revision);
        revision = Some(page.revision);
        let (read, more) = (listing.items.len(), listing.more);
        for (index, item) in listing.items.into_iter().enumerate() {
            seen += 1;
            let key = item.key.clone();
            if everything || selection.matches(&view::served(&target.resource, codec::decode(&item.value, item.mod_revision))) {
                page.items.push(item);
            }
            if options.limit != 0 && page.items.len() == options.limit && (more || index + 1 < read) {
                let name = key.strip_prefix(&prefix).unwrap_or(&key);
                page.continue_token = Token { revision: i64::try_from(page.revision.0).unwrap_or(-1), after: name.to_owned() }.encode();
                if everything {
                    page.remaining =
                        Some(listing.count.saturating_sub(seen)).filter(|_| !continuing).or_else(|| remaining(&listing.count, seen));
                }
                return Ok(page);
            }
            after = Some(key.to_string());
        }
        if !more {
            return Ok(page);
        }
    }
}

/// Of a later page, `count` is that of the keys after the token's.
fn remaining(count: &u64, seen: u64) -> Option<u64> {
    count.checked_sub(seen)
}

fn compacted(error: store::Error, continuing: bool, version: &str) -> StatusError {
    match error {
        store::Error::Compacted { .. } if continuing => StatusError::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        ),
        store::Error::Compacted { .. } => {
            StatusError::expired(format!("The resourceVersion for the provided list is too old. ({version})"))
        }
        other => store_error(other),
    }
}

struct Token {
    revision: i64,
    /// The last key of the page before, without the prefix.
    after: String,
}

impl Token {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": format!("{}\u{0}", self.after)}).to_string())
    }

    fn decode(text: &str) -> Result<Self, StatusError> {
        let bad = |why: &str| StatusError::bad_request(format!("invalid continue token: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| {
            let at = match e {
                base64::DecodeError::InvalidByte(at, _) => at,
                // Go names the start of the group that is cut short.
                _ => text.len() / 4 * 4,
            };
            bad(&format!("continue key is not valid: illegal base64 data at input byte {at}"))
        })?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| bad(&format!("continue key is not valid: {e}")))?;
        let revision = value.get("rv").and_then(Value::as_i64).unwrap_or(0);
        if machinery::object::str_at(&value, "v") != "meta.k8s.io/v1" {
            return Err(bad("continue key is not valid: server does not recognize this encoded version"));
        }
        let start = machinery::object::str_at(&value, "start");
        if start.is_empty() || revision == 0 || start.split('/').any(|p| p == "..") {
            return Err(bad("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)"));
        }
        Ok(Self { revision, after: start.trim_end_matches('\u{0}').to_owned() })
    }
}

pub fn answer(call: &Call, negotiated: &Negotiated, resource: &Resource, page: &Page) -> Result<Answer, StatusError> {
    let mut metadata = json!({"resourceVersion": page.revision.0.to_string()});
    if !page.continue_token.is_empty() {
        metadata["continue"] = json!(page.continue_token);
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    let plain = negotiated.view == View::Object && negotiated.encoding == Encoding::Json && !negotiated.pretty;
    if plain && view::stored_as_served(resource) {
        return Ok(stream(resource, &metadata, &page.items));
    }
    let objects = page.items.iter().map(|kv| view::served(resource, codec::decode(&kv.value, kv.mod_revision)));
    let list = match negotiated.view {
        View::Object => {
            let items: Vec<Value> = objects.map(untyped).collect();
            json!({"kind": format!("{}List", resource.kind), "apiVersion": resource.gvk().api_version(), "metadata": metadata, "items": items})
        }
        View::PartialObjectMetadata => {
            return Err(StatusError::not_acceptable("you requested PartialObjectMetadata, but the requested object is a list"));
        }
        View::PartialObjectMetadataList => {
            let items: Vec<Value> = objects.map(|o| view::partial(&o)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
        }
        View::Table => {
            let include = view::Include::parse(call)?;
            let rows = objects.map(|o| view::row(resource, &o, include)).collect();
            view::table(resource, metadata, rows, true)
        }
    };
    Ok(respond::value(200, negotiated, &list))
}

/// Items of a typed list carry no kind and apiVersion.
fn untyped(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}

fn stream(resource: &Resource, metadata: &Value, items: &[KeyValue]) -> Answer {
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        resource.kind,
        resource.gvk().api_version()
    );
    let mut chunks: VecDeque<Bytes> = VecDeque::new();
    let mut out = BytesMut::with_capacity(CHUNK_BYTES + 4096);
    out.extend_from_slice(head.as_bytes());
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        codec::splice_item_into(&mut out, &item.value, item.mod_revision);
        if out.len() >= CHUNK_BYTES {
            chunks.push_back(out.split().freeze());
            out.reserve(CHUNK_BYTES + 4096);
        }
    }
    out.extend_from_slice(b"]}\n");
    chunks.push_back(out.freeze());
    let mut response = http::Response::new(Body::Chunks(chunks));
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(Encoding::Json.content_type()));
    response
}
