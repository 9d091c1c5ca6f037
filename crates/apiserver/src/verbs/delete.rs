//! DELETE of one object or a collection: preconditions, finalizers, propagation, grace (upstream's `Store.Delete`).

use http::Request;
use kinds::Resource;
use kinds::resource::DefaultDeletion;
use machinery::gvk::{GroupKind, GroupResource, GroupVersionKind};
use machinery::object::{self, metadata_mut, str_at};
use machinery::status::StatusError;
use machinery::{field, field::Path};
use serde_json::{Value, json};
use store::{Expect, Revision};

use super::options::{ListOptions, WriteOptions};
use super::page;
use super::selection::Selection;
use super::write::{Ctx, body, fetch, put, remove};
use super::{Target, view};
use crate::admission;
use crate::chain::Call;
use crate::http::respond::Answer;
use crate::http::{RequestBody, negotiate, respond};
use crate::state::store_error;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// What a forced deletion of a pod without a grace period of its own gets.
const POD_GRACE_SECONDS: i64 = 30;

/// `metav1.DeleteOptions`, from the query or the body.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_seconds: Option<i64>,
    pub propagation: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: Vec<String>,
}

impl DeleteOptions {
    fn from_query(call: &Call) -> Result<Self, StatusError> {
        let query = &call.query;
        let number = |key: &str| match query.get(key) {
            None | Some("") => Ok(None),
            Some(text) => text
                .parse::<i64>()
                .map(Some)
                .map_err(|_| StatusError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
        };
        Ok(Self {
            grace_seconds: number("gracePeriodSeconds")?,
            propagation: query.get("propagationPolicy").map(str::to_owned),
            orphan_dependents: query.get("orphanDependents").map(|_| query.flag("orphanDependents")),
            dry_run: query.all("dryRun").map(str::to_owned).collect(),
            ..Self::default()
        })
    }

    pub fn from_body(value: &Value) -> Self {
        let text = |path: &str| object::at(value, path).and_then(Value::as_str).map(str::to_owned);
        let dry_run = value.get("dryRun").and_then(Value::as_array).into_iter().flatten();
        Self {
            grace_seconds: value.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: text("propagationPolicy"),
            orphan_dependents: value.get("orphanDependents").and_then(Value::as_bool),
            uid: text("preconditions.uid"),
            resource_version: text("preconditions.resourceVersion"),
            dry_run: dry_run.filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    /// Upstream's `ValidateDeleteOptions`.
    fn validate(&self) -> Result<(), StatusError> {
        let mut errors = Vec::new();
        if let (Some(policy), Some(_)) = (&self.propagation, self.orphan_dependents) {
            let text = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(field::Error::invalid_str(&Path::new("propagationPolicy"), policy, text));
        }
        if let Some(policy) = &self.propagation
            && !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan")
        {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(field::Error::not_supported(&Path::new("propagationPolicy"), &json!(policy), &known));
        }
        errors.extend(super::options::dry_run_errors(&self.dry_run));
        if errors.is_empty() {
            return Ok(());
        }
        let kind = GroupKind { group: "meta.k8s.io".into(), kind: "DeleteOptions".into() };
        Err(StatusError::invalid(&kind, "", &errors))
    }
}

/// The options of a request: its body if it has one, else its query.
pub async fn read_options(call: &Call, request: Request<RequestBody>) -> Result<DeleteOptions, StatusError> {
    let raw = body::raw(request).await?;
    if raw.bytes.is_empty() {
        let options = DeleteOptions::from_query(call)?;
        options.validate()?;
        return Ok(options);
    }
    let want = GroupVersionKind::new(call.info.group.clone(), call.info.version.clone(), "DeleteOptions");
    let (mut value, _) = raw.parse(&want)?;
    let given = (str_at(&value, "apiVersion").to_owned(), str_at(&value, "kind").to_owned());
    if !given.1.is_empty() && given.1 != "DeleteOptions" {
        let version = if given.0.is_empty() { "v1" } else { &given.0 };
        return Err(StatusError::bad_request(format!(
            "no kind {:?} is registered for version {version:?} in scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\"",
            given.1
        )));
    }
    if let Some(ty) = kinds::table().type_of(&want) {
        body::typed(&mut value, ty).map_err(|e| body::cannot_handle(&want, &e))?;
    }
    let options = DeleteOptions::from_body(&value);
    options.validate()?;
    Ok(options)
}

pub async fn one(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, view::has_protobuf(&target.resource))?;
    let options = read_options(&call, request).await?;
    let write = WriteOptions { dry_run: !options.dry_run.is_empty(), ..WriteOptions::default() };
    let ctx = Ctx::new(&call, write);
    ctx.notes.warn_of(orphans(&target.resource, &options));
    let (object, gone) = delete(&ctx, &target, &options).await?;
    if gone && !target.resource.returns_deleted_object {
        Ok(respond::value(200, &negotiated, &success(&target.resource, &object)))
    } else {
        view::object(&call, &negotiated, &target.resource, 200, &object)
    }
}

/// Who deletes a Job and says nothing of its pods is told that they stay.
fn orphans(resource: &Resource, options: &DeleteOptions) -> Option<String> {
    let silent = options.propagation.is_none() && options.orphan_dependents.is_none();
    if resource.kind == "Job" && silent && resource.default_deletion == DefaultDeletion::Orphan {
        let text = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";
        return Some(text.to_owned());
    }
    None
}

fn success(resource: &Resource, value: &Value) -> Value {
    let mut details = json!({"name": object::name(value), "kind": resource.resource, "uid": object::uid(value)});
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Deletes, or begins to; true: it is gone.
pub async fn delete(ctx: &Ctx, target: &Target, options: &DeleteOptions) -> Result<(Value, bool), StatusError> {
    delete_as(ctx, target, options, Admit::Object).await
}

/// How a deletion is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// As that of one object.
    Object,
    /// As one of many: the request names none.
    Collection,
    /// It was already: as an Eviction.
    Done,
}

/// As [`delete`].
pub async fn delete_as(ctx: &Ctx, target: &Target, options: &DeleteOptions, admit: Admit) -> Result<(Value, bool), StatusError> {
    loop {
        let Some((old, revision)) = fetch(&ctx.api, target).await? else { return Err(target.not_found()) };
        preconditions(target, options, &old, revision)?;
        if admit != Admit::Done {
            // Again on each attempt: what is admitted is the deletion of this very state.
            let request = admission::Request::delete(ctx, target, options);
            let request = if admit == Admit::Collection { request.of_collection() } else { request };
            admission::admit(&request, &mut Value::Null, Some(&old)).await?;
        }
        let mut value = old.clone();
        let now_gone = begin(ctx, target, options, &mut value)?;
        let expect = Expect::Revision(revision);
        let done = if now_gone {
            remove(ctx, target, value, expect).await
        } else if value == old {
            return Ok((old, false));
        } else {
            let bytes = super::write::stored_form(&ctx.api, &target.resource, &value).await?;
            put(ctx, target, &mut value, bytes, expect).await.map(|_| value)
        };
        match done {
            Ok(object) => return Ok((object, now_gone)),
            Err(store::Error::Conflict(_)) => {}
            Err(e) => return Err(store_error(e)),
        }
    }
}

/// What upstream's `BeforeDelete` checks; its conflicts name the kind, not the resource. Namespaces are judged by words of their own.
fn preconditions(target: &Target, options: &DeleteOptions, old: &Value, revision: Revision) -> Result<(), StatusError> {
    let revision = revision.0.to_string();
    let pairs = [
        ("UID", options.uid.as_deref(), object::uid(old), "deleted and then recreated"),
        ("ResourceVersion", options.resource_version.as_deref(), revision.as_str(), "modified"),
    ];
    for (what, wanted, found, fate) in pairs {
        let Some(wanted) = wanted.filter(|w| *w != found) else { continue };
        let own_words = (target.resource.group.is_empty() && target.resource.kind == "Namespace") || is_definition(&target.resource);
        let (about, why) = if own_words {
            let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
            (target.resource.group_resource(), why)
        } else {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {fate}"
            );
            let GroupKind { group, kind } = target.resource.stored_kind();
            (GroupResource::new(group, kind), why)
        };
        return Err(StatusError::conflict(&about, &target.name, &why));
    }
    Ok(())
}

fn is_definition(resource: &Resource) -> bool {
    resource.kind == "CustomResourceDefinition" && resource.group == "apiextensions.k8s.io"
}

/// Marks the object as being deleted; true where nothing holds it.
fn begin(ctx: &Ctx, target: &Target, options: &DeleteOptions, value: &mut Value) -> Result<bool, StatusError> {
    let resource = &target.resource;
    let was_deleting = !str_at(value, "metadata.deletionTimestamp").is_empty();
    if is_definition(resource) && !was_deleting {
        crate::custom::begin_deletion(value, &ctx.now);
        return Ok(false);
    }
    let graceful = resource.graceful_delete.then(|| grace(value, options)).flatten();
    finalizers(resource, options, value, was_deleting);
    if let Some(seconds) = graceful {
        let current = object::at(value, "metadata.deletionGracePeriodSeconds").and_then(Value::as_i64);
        if was_deleting && current.is_some_and(|c| seconds >= c) && seconds != 0 {
            return Ok(false);
        }
        if seconds != 0 {
            mark(ctx, value, seconds);
            return Ok(false);
        }
    }
    // Yet to be marked, or given less time than before.
    let left = object::at(value, "metadata.deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    let fresh = !was_deleting || (graceful == Some(0) && left != 0);
    let held = metadata_mut(value).get("finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
    if resource.kind == "Namespace" && resource.group.is_empty() {
        return Ok(namespace(ctx, value, was_deleting, held));
    }
    if held {
        if fresh {
            mark(ctx, value, 0);
        } else {
            // A definition's first deletion says nothing of a period.
            metadata_mut(value).entry("deletionGracePeriodSeconds").or_insert(json!(0));
        }
        return Ok(false);
    }
    if graceful == Some(0) && fresh {
        // It goes at once, marked as what it is.
        mark(ctx, value, 0);
    }
    Ok(true)
}

/// A namespace is first emptied: its `spec.finalizers` hold it.
fn namespace(ctx: &Ctx, value: &mut Value, was_deleting: bool, held: bool) -> bool {
    if !was_deleting {
        metadata_mut(value).insert("deletionTimestamp".into(), json!(ctx.now));
        object::map_mut(value, "status").insert("phase".into(), json!("Terminating"));
    }
    let spec = object::at(value, "spec.finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
    !spec && !held
}

fn mark(ctx: &Ctx, value: &mut Value, seconds: i64) {
    let at = jiff::Timestamp::from_second(now_seconds(&ctx.now) + seconds).map(crate::identifiers::time_text);
    let generation = object::generation(value);
    let meta = metadata_mut(value);
    meta.insert("deletionTimestamp".into(), json!(at.unwrap_or_else(|_| ctx.now.clone())));
    meta.insert("deletionGracePeriodSeconds".into(), json!(seconds));
    if generation > 0 {
        meta.insert("generation".into(), json!(generation + 1));
    }
}

fn now_seconds(now: &str) -> i64 {
    now.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second)
}

/// Seconds a pod gets; `None` for those that need none.
fn grace(value: &Value, options: &DeleteOptions) -> Option<i64> {
    let own = object::at(value, "spec.terminationGracePeriodSeconds").and_then(Value::as_i64);
    let mut seconds = options.grace_seconds.or(own).unwrap_or(POD_GRACE_SECONDS);
    // Nobody is there to shut it down.
    if str_at(value, "spec.nodeName").is_empty() || matches!(str_at(value, "status.phase"), "Failed" | "Succeeded") {
        seconds = 0;
    }
    // A negative period of the pod itself means the least possible.
    Some(if seconds < 0 { 1 } else { seconds })
}

/// The finalizers the propagation policy puts on or takes off.
fn finalizers(resource: &Resource, options: &DeleteOptions, value: &mut Value, was_deleting: bool) {
    if resource.default_deletion == DefaultDeletion::Unsupported {
        return;
    }
    let has = |name: &str| {
        let list = object::at(value, "metadata.finalizers").and_then(Value::as_array);
        list.is_some_and(|l| l.iter().any(|f| f == name))
    };
    let (mut orphan, mut foreground) = (has(ORPHAN), has(FOREGROUND));
    let before = (orphan, foreground);
    match (options.orphan_dependents, options.propagation.as_deref()) {
        (Some(true), _) | (None, Some("Orphan")) => (orphan, foreground) = (true, false),
        (None, Some("Foreground")) => (orphan, foreground) = (false, true),
        (Some(false), _) | (None, Some(_)) => (orphan, foreground) = (false, false),
        (None, None) if resource.default_deletion == DefaultDeletion::Orphan && !orphan && !foreground && !was_deleting => orphan = true,
        (None, None) => {}
    }
    if before == (orphan, foreground) {
        return;
    }
    let meta = metadata_mut(value);
    let mut list: Vec<Value> = meta.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    list.retain(|f| f != ORPHAN && f != FOREGROUND);
    for (wanted, name) in [(orphan, ORPHAN), (foreground, FOREGROUND)] {
        if wanted {
            list.push(json!(name));
        }
    }
    if list.is_empty() {
        meta.remove("finalizers")
    } else {
        meta.insert("finalizers".into(), json!(list))
    };
}

/// Whether an update took off the last thing that held a deleted object.
pub fn is_finished(resource: &Resource, value: &Value) -> bool {
    if str_at(value, "metadata.deletionTimestamp").is_empty() {
        return false;
    }
    let held = |path: &str| object::at(value, path).and_then(Value::as_array).is_some_and(|f| !f.is_empty());
    if held("metadata.finalizers") || (resource.kind == "Namespace" && held("spec.finalizers")) {
        return false;
    }
    // A pod that still has its grace is not gone.
    !resource.graceful_delete || object::at(value, "metadata.deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0
}

pub async fn collection(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, view::has_protobuf(&target.resource))?;
    let options = read_options(&call, request).await?;
    let list = ListOptions::parse(&call.query)?;
    let selection = Selection::parse(&target.resource, &list.label_selector, &list.field_selector)?;
    let ctx = Ctx::new(&call, WriteOptions { dry_run: !options.dry_run.is_empty(), ..WriteOptions::default() });
    ctx.notes.warn_of(orphans(&target.resource, &options));
    let page = page::read(&call, &target, &list, &selection).await?;
    for item in &page.items {
        let namespace = if target.resource.namespaced { item.namespace() } else { "" };
        let place = Target { namespace: namespace.to_owned(), ..target.named(item.name()) };
        match delete_as(&ctx, &place, &options, Admit::Collection).await {
            Ok(_) => {}
            // Somebody else was faster.
            Err(e) if e.code == 404 => {}
            Err(e) => return Err(e),
        }
    }
    // As they were before.
    super::list::answer(&call, &negotiated, &target.resource, page)
}
