//! WATCH: changes of a collection from a revision on, as JSON lines; a selector turns updates into ADDED and DELETED.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use kinds::Resource;
use machinery::field;
use machinery::status::StatusError;
use serde_json::{Value, json};
use store::Revision;
use tokio::time::{Instant, Sleep};

use super::list::{bare_500, invalid_options, parse_version};
use super::options::ListOptions;
use super::selection::Selection;
use super::{Target, view};
use crate::cache::{self, Batch, Cache, Cursor, Encoded, Entry, Filter as _, Form, Interest, Snapshot, WatchEvent, WatchKind};
use crate::chain::Call;
use crate::codec;
use crate::http::respond::Answer;
use crate::http::{Body, BoxError, Encoding, Negotiated, View, negotiate};
use crate::metrics::{Histogram, table};
use crate::state::{Api, cache_error};

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A client that will be cut off is told so long before how far it is.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// Initial events are handed to the connection in pieces of about so many bytes.
const CHUNK_BYTES: usize = 64 * 1024;

pub async fn watch(call: Call, mut target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, view::has_protobuf(&target.resource))?;
    let mut options = ListOptions::parse(&call.query)?;
    // `/watch/.../name`: one object.
    if !target.name.is_empty() && options.field_selector.is_empty() {
        options.field_selector = format!("metadata.name={}", target.name);
    }
    target.name.clear();
    validate(&options)?;
    let include = view::Include::parse(&call)?;
    let selection = Arc::new(Selection::parse(&target.resource, &options.label_selector, &options.field_selector)?);
    let scope = selection.scope(&target);
    let cache = call.api.cache(&target.resource);
    let start = begin(&cache, &options).await?;
    let initial = start.initial.map(|list| initial(&list, &scope.prefix, &scope.interest, &selection)).unwrap_or_default();
    let mut cursor = match cache.resume(&scope.prefix, scope.interest, start.after, selection).await {
        Ok(cursor) => cursor,
        Err(cache::Error::TooOld { wanted, oldest }) => return Ok(respond_with_error(negotiated.encoding, &too_old(wanted, oldest))),
        Err(e) => return Err(cache_error(e)),
    };
    let least = call.api.config.min_request_timeout.max(1);
    let seconds = options.timeout_seconds.filter(|s| *s > 0).unwrap_or_else(|| least + crate::identifiers::below(least));
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let encoding = negotiated.encoding;
    let counted = Counted::new(&call.api, &target.resource);
    let writer = Writer { resource: target.resource, negotiated, include, columns_sent: false };
    if let Some(form) = writer.form() {
        cursor.share(form);
    }
    let bookmark_at = options.allow_bookmarks.then(|| next_bookmark(deadline));
    // Boxed: it moves with every piece of the answer.
    let running = Box::new(Running {
        counted,
        writer,
        initial: initial.into_iter(),
        initial_end: (options.send_initial_events == Some(true) && options.allow_bookmarks).then_some(start.after),
        cursor,
        timer: Box::pin(tokio::time::sleep_until(bookmark_at.map_or(deadline, |at| at.min(deadline)))),
        deadline,
        bookmark_at,
        ended: false,
    });
    let body =
        futures::stream::unfold(
            running,
            |mut running| async move { running.next().await.map(|chunk| (Ok::<_, BoxError>(chunk), running)) },
        );
    Ok(streaming(encoding, Body::Stream(body.boxed())))
}

fn streaming(encoding: Encoding, body: Body) -> Answer {
    let mut response = http::Response::new(body);
    let content_type = match encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn too_old(from: Revision, oldest: Revision) -> StatusError {
    StatusError::expired(format!("too old resource version: {} ({})", from.0, oldest.0))
}

/// A watch that consists of one ERROR event.
fn respond_with_error(encoding: Encoding, error: &StatusError) -> Answer {
    streaming(encoding, Body::from(error_frame(encoding, error)))
}

fn error_frame(encoding: Encoding, error: &StatusError) -> Bytes {
    let mut out = BytesMut::new();
    frame(&mut out, encoding, "ERROR", &error.to_status());
    out.freeze()
}

/// Appends an event: a line of JSON, or a length and a message.
fn frame(out: &mut BytesMut, encoding: Encoding, kind: &str, object: &Value) {
    if encoding == Encoding::Protobuf
        && let Some(sealed) = crate::protobuf::encode(object)
    {
        return out.extend_from_slice(&machinery::proto::watch_frame(kind, &sealed));
    }
    out.extend_from_slice(json!({"type": kind, "object": object}).to_string().as_bytes());
    out.extend_from_slice(b"\n");
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

/// Where a watch starts, and the state to send before.
struct Start {
    after: Revision,
    initial: Option<Snapshot>,
}

async fn begin(cache: &Cache, options: &ListOptions) -> Result<Start, StatusError> {
    let version = options.resource_version.as_str();
    let given = if version.is_empty() { 0 } else { parse_version(version).map_err(bare_500)? };
    let initial = options.send_initial_events.unwrap_or(given == 0);
    if !initial && given > 0 {
        return Ok(Start { after: Revision(given), initial: None });
    }
    // "0" takes whatever there is, a number what is at least so new, nothing at all the newest.
    let list = if version.is_empty() {
        cache.newest().await.map_err(cache_error)?
    } else {
        cache.not_older_than(Revision(given)).await.map_err(cache_error)?
    };
    Ok(Start { after: list.revision, initial: initial.then_some(list) })
}

fn initial(list: &Snapshot, prefix: &str, interest: &Interest, selection: &Selection) -> Vec<Arc<Entry>> {
    let wanted = |e: &&Arc<Entry>| e.key.starts_with(prefix) && selection.matches(e);
    match interest {
        Interest::Value(value) => list.with_value(value, None).filter(wanted).cloned().collect(),
        _ => list.range(prefix, None).filter(wanted).cloned().collect(),
    }
}

fn next_bookmark(deadline: Instant) -> Instant {
    let now = Instant::now();
    let last = deadline - BOOKMARK_BEFORE_END;
    let regular = now + BOOKMARK_EVERY;
    if last > now { regular.min(last) } else { regular }
}

/// Turns changes into the lines a client asked for.
struct Writer {
    resource: Arc<Resource>,
    negotiated: Negotiated,
    include: view::Include,
    columns_sent: bool,
}

impl Writer {
    /// In which form others may want to have what is written out here. Not one that depends on who asks, or on what was sent
    /// before.
    fn form(&self) -> Option<Form> {
        if self.negotiated.beta || !view::stored_as_served(&self.resource) {
            return None;
        }
        match (self.negotiated.view, self.negotiated.encoding) {
            (View::Object, Encoding::Protobuf) => Some(Form::Protobuf),
            (View::Object, _) => Some(Form::Json),
            (View::PartialObjectMetadata | View::PartialObjectMetadataList, Encoding::Protobuf) => None,
            (View::PartialObjectMetadata | View::PartialObjectMetadataList, _) => {
                view::metadata_as_stored(&self.resource).then_some(Form::Metadata)
            }
            _ => None,
        }
    }

    fn event(&mut self, out: &mut BytesMut, event: &WatchEvent<'_>) {
        let json = self.negotiated.encoding != Encoding::Protobuf && !self.negotiated.beta && view::stored_as_served(&self.resource);
        match self.negotiated.view {
            View::Object if json => event.append_json(out),
            // A deletion shows a revision of its own.
            View::Object if self.negotiated.encoding == Encoding::Protobuf && event.entry.is_of(event.revision) => {
                let sealed = crate::protobuf::sealed(&self.resource, event.entry);
                out.extend_from_slice(&machinery::proto::watch_frame(event.kind.name(), &sealed));
            }
            View::PartialObjectMetadata | View::PartialObjectMetadataList if json && view::metadata_as_stored(&self.resource) => {
                event.append_json_as(out, |out| view::append_partial(out, event.entry, event.revision));
            }
            _ => {
                let object = view::served(&self.resource, codec::decode(&event.entry.bytes, event.revision));
                let shown = self.shown(object);
                self.line(out, event.kind.name(), &shown);
            }
        }
    }

    fn shown(&mut self, object: Value) -> Value {
        let shown = match self.negotiated.view {
            View::Table => {
                let metadata = json!({"resourceVersion": machinery::object::resource_version(&object)});
                // Upstream's aggregator repeats its columns.
                let repeats = self.resource.kind == "APIService";
                let first = !std::mem::replace(&mut self.columns_sent, !repeats);
                view::table(&self.resource, metadata, vec![view::row(&self.resource, &object, self.include)], first)
            }
            View::PartialObjectMetadata | View::PartialObjectMetadataList => view::partial(&object),
            View::Object => object,
        };
        view::versioned(&self.negotiated, shown)
    }

    fn bookmark(&mut self, out: &mut BytesMut, revision: Revision, initial_end: bool) {
        let mut object = json!({
            "kind": self.resource.kind, "apiVersion": self.resource.gvk().api_version(),
            "metadata": {"resourceVersion": revision.0.to_string()},
        });
        if initial_end {
            object["metadata"]["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        if self.negotiated.view == View::Object {
            // Upstream makes an empty internal object, and those of apps always count replicas.
            if !self.resource.group.is_empty() && self.resource.subresource("scale").is_some() {
                object["spec"] = json!({"replicas": 0});
            }
            object = crate::verbs::write::body::blank(&self.resource, object);
            view::served_annotation(&self.resource, &mut object);
        }
        let shown = self.shown(object);
        self.line(out, "BOOKMARK", &shown);
    }

    fn line(&self, out: &mut BytesMut, kind: &str, object: &Value) {
        frame(out, self.negotiated.encoding, kind, object);
    }
}

/// What of a watch is counted, found once.
struct Counted {
    events: Arc<Histogram>,
    initial: Arc<Histogram>,
    terminated: Arc<Histogram>,
}

impl Counted {
    fn new(api: &Api, resource: &Resource) -> Self {
        let (group, name) = (resource.group.as_str(), resource.resource.as_str());
        let of = |desc, labels: &[&str]| api.metrics.family(desc).with(labels);
        Self {
            events: of(&table::WATCH_EVENTS, &[group, name, &resource.version]),
            initial: of(&table::INIT_EVENTS, &[group, name]),
            terminated: of(&table::TERMINATED_WATCHERS, &[group, name]),
        }
    }
}

/// A watch that a client reads.
struct Running {
    counted: Counted,
    writer: Writer,
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// The bookmark due after the initial events.
    initial_end: Option<Revision>,
    cursor: Cursor,
    deadline: Instant,
    bookmark_at: Option<Instant>,
    /// The next bookmark, or the end. Set once for all the events before it.
    timer: Pin<Box<Sleep>>,
    ended: bool,
}

impl Running {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.begin() {
            return Some(bytes);
        }
        while !self.ended {
            let step = std::future::poll_fn(|context| match self.cursor.poll_next(context) {
                Poll::Ready(step) => Poll::Ready(Some(step)),
                Poll::Pending => self.timer.as_mut().poll(context).map(|()| None),
            });
            let step = match step.await {
                // One that is never idle must end all the same.
                Some(_) if self.timer.is_elapsed() && Instant::now() >= self.deadline => return None,
                Some(step) => step,
                None if Instant::now() >= self.deadline => return None,
                None => self.cursor.bookmark().await,
            };
            let bytes = match step {
                Ok(batch) => self.batch(&batch),
                Err(error) => self.end(error),
            };
            if let Some(bytes) = bytes {
                return Some(bytes);
            }
        }
        None
    }

    /// The next piece of the initial state.
    fn begin(&mut self) -> Option<Bytes> {
        let (mut out, before) = (BytesMut::new(), self.initial.as_slice().len());
        while out.len() < CHUNK_BYTES
            && let Some(entry) = self.initial.next()
        {
            self.writer.event(&mut out, &WatchEvent { kind: WatchKind::Added, entry: &entry, revision: entry.revision });
        }
        let sent = before - self.initial.as_slice().len();
        if sent > 0 {
            self.counted.initial.add(sent as f64);
            self.counted.events.add(sent as f64);
        }
        if self.initial.as_slice().is_empty()
            && let Some(revision) = self.initial_end.take()
        {
            self.writer.bookmark(&mut out, revision, true);
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    fn batch(&mut self, batch: &Batch) -> Option<Bytes> {
        let encoded = batch.encoded().cloned().unwrap_or_else(|| self.encode(batch));
        if encoded.events > 0 {
            self.counted.events.add(f64::from(encoded.events));
            return Some(encoded.bytes);
        }
        let mut out = BytesMut::new();
        if self.bookmark_at.is_some() {
            self.writer.bookmark(&mut out, batch.revision, false);
            let next = next_bookmark(self.deadline);
            self.bookmark_at = Some(next);
            self.timer.as_mut().reset(next.min(self.deadline));
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    fn encode(&mut self, batch: &Batch) -> Encoded {
        let (mut out, mut events) = (BytesMut::new(), 0);
        for event in batch.events() {
            self.writer.event(&mut out, &event);
            events += 1;
        }
        let encoded = Encoded { bytes: out.freeze(), events };
        if events > 0 {
            self.cursor.offer(batch, &encoded);
        }
        encoded
    }

    fn end(&mut self, error: cache::Error) -> Option<Bytes> {
        self.ended = true;
        match error {
            cache::Error::Closed => None,
            cache::Error::TooOld { wanted, oldest } => {
                self.counted.terminated.add(1.0);
                Some(error_frame(self.writer.negotiated.encoding, &too_old(wanted, oldest)))
            }
            other => Some(error_frame(self.writer.negotiated.encoding, &cache_error(other))),
        }
    }
}
