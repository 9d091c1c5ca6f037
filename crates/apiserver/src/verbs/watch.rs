//! WATCH: changes of a collection from a revision on, as JSON lines; a selector turns updates into ADDED and DELETED.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use machinery::field;
use machinery::status::StatusError;
use serde_json::{Value, json};
use store::{Event, Revision, WatchItem, WatchStream};

use super::list::{invalid_options, parse_version, wait_for};
use super::options::ListOptions;
use super::selection::Selection;
use super::{Target, view};
use crate::chain::Call;
use crate::codec;
use crate::http::respond::Answer;
use crate::http::{Body, BoxError, Encoding, Negotiated, View, negotiate};
use crate::registry;
use crate::state::store_error;

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Without `timeoutSeconds` a watch ends after half an hour to an hour.
const MIN_TIMEOUT_SECONDS: u64 = 1800;
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Turns changes into the lines a client asked for.
struct Writer {
    call: Call,
    target: Target,
    negotiated: Negotiated,
    selection: Selection,
    include: view::Include,
    columns_sent: bool,
}

struct Running {
    writer: Writer,
    stream: WatchStream,
    pending: Option<Bytes>,
    deadline: tokio::time::Instant,
    bookmark: tokio::time::Interval,
    bookmarks: bool,
    revision: Revision,
    ended: bool,
}

pub async fn watch(mut call: Call, mut target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, false)?;
    let mut options = ListOptions::parse(&call.query)?;
    // `/watch/.../name`: one object.
    if !target.name.is_empty() {
        options.field_selector = format!("metadata.name={}", target.name);
        target.name.clear();
    }
    validate(&options)?;
    let include = view::Include::parse(&call)?;
    let selection = Selection::parse(&target.resource, &options.label_selector, &options.field_selector)?;
    if !options.resource_version.is_empty() && parse_version(&options.resource_version).is_err() {
        let why = parse_version(&options.resource_version).err().unwrap_or_default();
        return Err(StatusError::bad_request(format!("invalid resource version: {why}")));
    }
    let prefix = registry::prefix(&target.resource, &target.namespace);
    call.query = crate::http::Query::default();
    let seconds =
        options.timeout_seconds.filter(|s| *s > 0).unwrap_or_else(|| MIN_TIMEOUT_SECONDS + crate::identifiers::below(MIN_TIMEOUT_SECONDS));
    let mut writer = Writer { call, target, negotiated, selection, include, columns_sent: false };
    let (from, initial) = begin(&mut writer, &options, &prefix).await?;
    let stream = match writer.call.api.store.watch(&prefix, from).await {
        Ok(stream) => stream,
        Err(store::Error::Compacted { .. }) => {
            let current = writer.call.api.store.revision().await.map_err(store_error)?;
            return Ok(respond_with_error(&too_old(from, current)));
        }
        Err(e) => return Err(store_error(e)),
    };
    let mut bookmark = tokio::time::interval(BOOKMARK_EVERY);
    bookmark.reset();
    let encoding = writer.negotiated.encoding;
    let running = Running {
        pending: (!initial.is_empty()).then(|| initial.freeze()),
        deadline: tokio::time::Instant::now() + Duration::from_secs(seconds),
        bookmark,
        bookmarks: options.allow_bookmarks,
        revision: from,
        ended: false,
        writer,
        stream,
    };
    let body =
        futures::stream::unfold(
            running,
            |mut running| async move { running.next().await.map(|chunk| (Ok::<_, BoxError>(chunk), running)) },
        );
    Ok(streaming(encoding, Body::Stream(body.boxed())))
}

fn streaming(_encoding: Encoding, body: Body) -> Answer {
    let mut response = http::Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn too_old(from: Revision, current: Revision) -> StatusError {
    StatusError::expired(format!("too old resource version: {} ({})", from.0, current.0))
}

/// A watch that consists of one ERROR event.
fn respond_with_error(error: &StatusError) -> Answer {
    streaming(Encoding::Json, Body::from(error_line(error)))
}

fn error_line(error: &StatusError) -> Bytes {
    format!("{}\n", json!({"type": "ERROR", "object": error.to_status()})).into()
}

/// Upstream's `ValidateListOptions`, for watches.
fn validate(options: &ListOptions) -> Result<(), StatusError> {
    let path = field::Path::new("resourceVersionMatch");
    let matching = options.resource_version_match.as_str();
    let mut errors = Vec::new();
    if options.send_initial_events.is_some() {
        if matching.is_empty() {
            errors.push(field::Error::forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
        }
    } else if !matching.is_empty() {
        errors.push(field::Error::forbidden(&path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
    }
    if !matching.is_empty() && matching != "NotOlderThan" {
        if options.send_initial_events.is_some() {
            errors.push(field::Error::forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
        }
        errors.push(field::Error::not_supported(&path, &Value::from(matching), &["NotOlderThan"]));
    }
    if !options.continue_token.is_empty() && options.send_initial_events.is_some() {
        errors.push(field::Error::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
    }
    invalid_options(&errors)
}

/// Where to start watching, and the lines to send before.
async fn begin(writer: &mut Writer, options: &ListOptions, prefix: &str) -> Result<(Revision, BytesMut), StatusError> {
    let version = options.resource_version.as_str();
    let given = parse_version(version).unwrap_or(0);
    let initial = options.send_initial_events.unwrap_or(given == 0);
    if given > 0 {
        let wanted = Revision(given);
        if initial {
            wait_for(&writer.call, wanted).await?;
        } else {
            return Ok((wanted, BytesMut::new()));
        }
    }
    if !initial {
        return Ok((writer.call.api.store.revision().await.map_err(store_error)?, BytesMut::new()));
    }
    let listing = writer.call.api.store.list(prefix, store::ListOptions::default()).await.map_err(store_error)?;
    let mut out = BytesMut::new();
    for item in &listing.items {
        let line = Line { kind: "ADDED", bytes: &item.value, revision: item.mod_revision };
        if writer.selected(&item.value) {
            writer.write(&mut out, &line);
        }
    }
    if options.send_initial_events == Some(true) && options.allow_bookmarks {
        writer.bookmark(&mut out, listing.revision, true);
    }
    Ok((listing.revision, out))
}

/// One event with its object as stored.
struct Line<'a> {
    kind: &'static str,
    bytes: &'a [u8],
    revision: Revision,
}

impl Writer {
    fn selected(&self, bytes: &[u8]) -> bool {
        self.selection.is_everything() || self.selection.matches(&view::served(&self.target.resource, codec::decode(bytes, Revision(0))))
    }

    fn change(&mut self, out: &mut BytesMut, event: &Event) {
        let before = event.previous.as_ref().filter(|kv| self.selected(&kv.value));
        let after = event.value.as_ref().filter(|kv| self.selected(&kv.value));
        let line = match (before, after) {
            (None, Some(kv)) => Line { kind: "ADDED", bytes: &kv.value, revision: event.revision },
            (Some(_), Some(kv)) => Line { kind: "MODIFIED", bytes: &kv.value, revision: event.revision },
            (Some(kv), None) => Line { kind: "DELETED", bytes: &kv.value, revision: event.revision },
            (None, None) => return,
        };
        self.write(out, &line);
    }

    fn write(&mut self, out: &mut BytesMut, line: &Line<'_>) {
        let resource = self.target.resource.clone();
        if self.negotiated.view == View::Object && view::stored_as_served(&resource) {
            out.extend_from_slice(format!("{{\"type\":\"{}\",\"object\":", line.kind).as_bytes());
            codec::splice_into(out, line.bytes, line.revision);
            out.extend_from_slice(b"}\n");
            return;
        }
        let object = view::served(&resource, codec::decode(line.bytes, line.revision));
        let shown = match self.negotiated.view {
            View::Table => {
                let metadata = json!({"resourceVersion": machinery::object::resource_version(&object)});
                let first = !std::mem::replace(&mut self.columns_sent, true);
                view::table(&resource, metadata, vec![view::row(&resource, &object, self.include)], first)
            }
            View::PartialObjectMetadata | View::PartialObjectMetadataList => view::partial(&object),
            View::Object => object,
        };
        self.line(out, line.kind, &shown);
    }

    fn bookmark(&mut self, out: &mut BytesMut, revision: Revision, initial_end: bool) {
        let resource = self.target.resource.clone();
        let mut object = json!({
            "kind": resource.kind, "apiVersion": resource.gvk().api_version(),
            "metadata": {"resourceVersion": revision.0.to_string(), "creationTimestamp": null},
        });
        if initial_end {
            object["metadata"]["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let shown = match self.negotiated.view {
            View::Object => crate::verbs::write::body::blank(&resource, object),
            View::Table => {
                let first = !std::mem::replace(&mut self.columns_sent, true);
                let row = view::row(&resource, &object, self.include);
                view::table(&resource, json!({"resourceVersion": revision.0.to_string()}), vec![row], first)
            }
            _ => view::partial(&object),
        };
        self.line(out, "BOOKMARK", &shown);
    }

    fn line(&self, out: &mut BytesMut, kind: &str, object: &Value) {
        out.extend_from_slice(json!({"type": kind, "object": object}).to_string().as_bytes());
        out.extend_from_slice(b"\n");
    }
}

enum Step {
    Item(Option<Result<WatchItem, store::Error>>),
    Bookmark,
    End,
}

impl Running {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.pending.take() {
            return Some(bytes);
        }
        while !self.ended {
            let step = tokio::select! { biased;
                () = tokio::time::sleep_until(self.deadline) => Step::End,
                item = self.stream.next() => Step::Item(item),
                _ = self.bookmark.tick(), if self.bookmarks => Step::Bookmark,
            };
            if let Some(bytes) = self.handle(step) {
                return Some(bytes);
            }
        }
        None
    }

    fn handle(&mut self, step: Step) -> Option<Bytes> {
        let mut out = BytesMut::new();
        match step {
            Step::End | Step::Item(None) => self.ended = true,
            Step::Item(Some(Ok(WatchItem::Progress(revision)))) => self.revision = self.revision.max(revision),
            Step::Item(Some(Ok(WatchItem::Events(events)))) => {
                for event in &events {
                    self.writer.change(&mut out, event);
                    self.revision = self.revision.max(event.revision);
                }
            }
            Step::Item(Some(Err(error))) => {
                self.ended = true;
                let status = match error {
                    store::Error::Compacted { oldest } => too_old(self.revision, oldest),
                    store::Error::Lagged => too_old(self.revision, self.revision),
                    other => store_error(other),
                };
                return Some(error_line(&status));
            }
            Step::Bookmark => {
                let revision = self.revision;
                self.writer.bookmark(&mut out, revision, false);
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }
}
