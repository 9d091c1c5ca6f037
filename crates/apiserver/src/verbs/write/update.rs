//! PUT and PATCH, and every subresource that changes the stored object: one loop of read, change, admit, validate and
//! conditional write.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use kinds::Strategy;
use machinery::gvk::GroupKind;
use machinery::object::{self, metadata_mut};
use machinery::status::StatusError;
use serde_json::{Value, json};
use store::{Expect, Revision};

use super::body::Body;
use super::patch::{self, Patch};
use super::{Ctx, Object, Written, create, current, metadata, put};
use crate::admission::{self, Operation};
use crate::chain::Call;
use crate::http::respond::Answer;
use crate::http::{RequestBody, negotiate};
use crate::service;
use crate::state::store_error;
use crate::verbs::options::WriteOptions;
use crate::verbs::{Target, view};

/// How often a change that names no resourceVersion is tried on a moving object.
const ATTEMPTS: usize = 5;

/// Changes an object as a subresource does.
pub type Edit = Box<dyn Fn(&mut Value) -> Result<(), StatusError> + Send + Sync>;

/// What to do to the object.
pub enum Change {
    /// Replace it.
    Put(Put),
    Patch(Patch),
    /// A subresource's own way.
    Edit(Edit, Admission),
}

/// The body of a PUT.
pub struct Put {
    /// Taken by the first attempt, which makes the new object of it.
    decoded: Option<Value>,
    body: Body,
}

impl Put {
    /// Another attempt reads the body again: that is rarer than a copy would be.
    fn take(&mut self, ctx: &Ctx, target: &Target) -> Result<Value, StatusError> {
        match self.decoded.take() {
            Some(value) => Ok(value),
            None => Ok(self.body.decode(&ctx.api.registry, &target.resource, ctx.options.validation)?.object),
        }
    }
}

/// Whether an edit is yet to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Due,
    /// The subresource's own object was: a Binding.
    Done,
    /// As `Done`, and the edit notes the managed fields: of a Scale.
    Noted,
}

pub async fn serve(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, view::has_protobuf(&target.resource))?;
    let patching = call.info.verb == "patch";
    let options = WriteOptions::parse(&call, if patching { "PatchOptions" } else { "UpdateOptions" })?;
    let change = if patching {
        patch::check_kind_of(request.headers(), &target.resource)?;
        Change::Patch(patch::read(request).await?)
    } else {
        let body = Body::read(request, &target.resource).await?;
        let decoded = body.decode(&call.api.registry, &target.resource, options.validation)?;
        call.notes.warn_of(decoded.warnings);
        match_name(&decoded.object, &target)?;
        Change::Put(Put { decoded: Some(decoded.object), body })
    };
    let ctx = Ctx::new(&call, options);
    let written = update(&ctx, &target, change).await?;
    let code = if written.created { 201 } else { 200 };
    view::written(&call, &negotiated, &target.resource, code, &written)
}

/// Applies a change until it holds or must not be tried again.
pub async fn update(ctx: &Ctx, target: &Target, mut change: Change) -> Result<Written, StatusError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let Some((old, revision)) = current(&ctx.api, target).await? else { return missing(ctx, target, &mut change).await };
        match once(ctx, target, &mut change, old, revision).await {
            Err(Failed::Raced) if attempt < ATTEMPTS => {}
            Err(Failed::Raced) => return Err(StatusError::stale(&target.resource.group_resource(), &target.name)),
            Err(Failed::Refused(error)) => return Err(error),
            Ok(written) => return Ok(written),
        }
    }
}

enum Failed {
    /// The object changed meanwhile, and the client did not insist on a version.
    Raced,
    Refused(StatusError),
}

impl From<StatusError> for Failed {
    fn from(error: StatusError) -> Self {
        Self::Refused(error)
    }
}

fn match_name(value: &Value, target: &Target) -> Result<(), StatusError> {
    let name = object::name(value);
    if name.is_empty() {
        return Err(StatusError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            target.name
        )));
    }
    if name != target.name {
        return Err(StatusError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    Ok(())
}

/// The object is not there: some kinds, and server-side apply, make it.
async fn missing(ctx: &Ctx, target: &Target, change: &mut Change) -> Result<Written, StatusError> {
    let (value, by) = match change {
        Change::Put(put) if target.subresource.is_empty() && target.resource.allow_create_on_update => {
            let mut value = put.take(ctx, target)?;
            metadata_mut(&mut value).remove("resourceVersion");
            (value, create::Managed::Note)
        }
        Change::Patch(patch) if patch.kind == patch::Kind::Apply && target.subresource.is_empty() => {
            let mut value = patch::applied(ctx, target, patch, None)?;
            match_name(&value, target)?;
            metadata_mut(&mut value).remove("resourceVersion");
            (value, create::Managed::Noted)
        }
        _ => return Err(target.not_found()),
    };
    let collection = target.named("");
    create::create_as(ctx, &collection, value, by).await
}

async fn once(ctx: &Ctx, target: &Target, change: &mut Change, old: Arc<Object>, revision: Revision) -> Result<Written, Failed> {
    let resource = &target.resource;
    let operation = admission::Request::new(ctx, target, Operation::Update);
    let due = !matches!(change, Change::Edit(_, Admission::Done | Admission::Noted));
    let old = if asks_for_managers(change) || due && admission::shows_all(&operation) { joined(&old) } else { old };
    let (mut new, old) = changed(ctx, target, change, old)?;
    let (value, before) = (&mut new.tree, &old.tree);
    let change = &*change;
    create::match_namespace(value, target)?;
    if !matches!(change, Change::Patch(_)) {
        // The uid of a patched object is validation's to judge.
        preconditions(target, value, before)?;
    }
    let insists = insists(target, change, value, before)?;
    let strategy = strategy_of(target, change)?;
    let context = ctx.strategy_for(target, value).await?;
    if !matches!(change, Change::Edit(..)) {
        resource.defaults.apply(value);
        resource.strategy.default(&context, value);
    }
    ctx.notes.warn_of(metadata::dedup_owners(value));
    let noted = match change {
        Change::Patch(patch) => patch.kind == patch::Kind::Apply,
        Change::Edit(_, admission) => *admission == Admission::Noted,
        Change::Put(_) => false,
    };
    if !noted {
        super::managed_update(ctx, target, &mut new, &old);
    }
    let value = &mut new.tree;
    if due {
        admission::mutate(&operation, value, Some(before)).await?;
    }
    super::normalise(target, value)?;
    crate::authz::escalation::check(ctx, target, value, Some(before)).await?;
    metadata::keep(value, before);
    strategy.prepare_for_update(&context, value, before);
    if target.subresource == "status" && !matches!(change, Change::Edit(..)) {
        resource.keep_for_status(value, before);
    }
    if target.subresource.is_empty() {
        metadata::next_generation(resource, value, before);
    }
    metadata_mut(value).insert("resourceVersion".into(), json!(object::resource_version(before)));
    let (errors, judged) = kinds::validate::judge_update(resource, strategy, &context, value, before);
    ctx.notes.warn_of(judged);
    if !errors.is_empty() {
        return Err(StatusError::invalid(&resource.refused_kind(value), &target.name, &errors).into());
    }
    ctx.notes.warn_of(strategy.warnings(&context, value, Some(before)));
    if due {
        admission::validate(&operation, value, Some(before)).await?;
    }
    commit(ctx, target, new, &old, revision, insists).await
}

/// An object with its managers in the tree.
fn joined(object: &Arc<Object>) -> Arc<Object> {
    if object.managers.is_none() { object.clone() } else { Arc::new(Object::whole(object.to_value().into_owned())) }
}

fn asks_for_managers(change: &Change) -> bool {
    match change {
        Change::Put(_) => false,
        Change::Patch(patch) => patch.names_managers,
        Change::Edit(_, admission) => *admission == Admission::Noted,
    }
}

async fn commit(
    ctx: &Ctx,
    target: &Target,
    mut new: Object,
    old: &Arc<Object>,
    revision: Revision,
    insists: bool,
) -> Result<Written, Failed> {
    let resource = &target.resource;
    super::as_stored(target, &mut new.tree);
    super::settle_times(&mut new, old);
    let claims = service::allocate(ctx, target, &mut new.tree, Some(&old.tree)).await?;
    let bytes = super::stored_bytes(&ctx.api, resource, &new).await?;
    let same = is_stored(ctx, target, (&new, &bytes), old, revision).await?;
    if same && !is_worth_writing(ctx, target, &old.tree, revision).await? {
        return Ok(Written { object: old.clone(), stored: None, created: false });
    }
    let expect = Expect::Revision(revision);
    let written = if crate::verbs::delete::is_finished(resource, &new.tree) {
        // The answer is of the object as it last was.
        let version = json!(object::resource_version(&old.tree));
        super::remove(ctx, target, new.into_value(), expect).await.map(|mut gone| {
            metadata_mut(&mut gone).insert("resourceVersion".into(), version);
            (Object::whole(gone), None)
        })
    } else {
        put(ctx, target, &mut new.tree, bytes.clone(), expect).await.map(|stored| (new, stored))
    };
    match written {
        Ok((object, stored)) => {
            let object = Arc::new(super::read_back(&ctx.api, resource, object, &bytes).await?);
            super::remember(ctx, target, &object, stored.as_ref());
            service::changed(&ctx.api, target, &old.tree, &object.tree).await;
            Ok(Written { object, stored, created: false })
        }
        Err(error) => {
            claims.release(&ctx.api).await;
            Err(match error {
                store::Error::Conflict(None) => target.not_found().into(),
                store::Error::Conflict(_) if insists => StatusError::stale(&resource.group_resource(), &target.name).into(),
                store::Error::Conflict(_) => Failed::Raced,
                other => store_error(other).into(),
            })
        }
    }
}

/// Whether the store has just this. What is stored of a custom resource may be of another version or older schema than was
/// shown: then writing the same again stores it anew.
async fn is_stored(
    ctx: &Ctx,
    target: &Target,
    (new, bytes): (&Object, &Bytes),
    old: &Object,
    revision: Revision,
) -> Result<bool, StatusError> {
    if target.resource.custom.is_none() {
        let (value, old_tree) = (&new.tree, &old.tree);
        let metadata = || same_but(&value["metadata"], &old_tree["metadata"], "resourceVersion");
        return Ok(new.managers == old.managers && same_but(value, old_tree, "metadata") && metadata());
    }
    let (_, found) = ctx.api.store.get(&target.key()).await.map_err(store_error)?;
    Ok(found.is_some_and(|kv| kv.mod_revision == revision && kv.value == *bytes))
}

/// Whether the same is to be written again: under a new key, or with the defaults that upstream's reading adds to a new object
/// and that its first update stores.
async fn is_worth_writing(ctx: &Ctx, target: &Target, old: &Value, revision: Revision) -> Result<bool, StatusError> {
    if target.resource.strategy.is_defaulted_when_read(old) {
        let (_, found) = ctx.api.store.get(&target.key()).await.map_err(store_error)?;
        if found.is_some_and(|kv| kv.mod_revision == revision && kv.create_revision == revision) {
            return Ok(true);
        }
    }
    ctx.api.store.is_stale(&target.key()).await.map_err(store_error)
}

/// Whether two maps are the same but for one key. Looked at from the end: status differs in most writes, and comes last.
pub fn same_but(a: &Value, b: &Value, key: &str) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let rest = |map: &serde_json::Map<String, Value>| map.len() - usize::from(map.contains_key(key));
    rest(a) == rest(b) && a.iter().rev().all(|(k, value)| k == key || b.get(k) == Some(value))
}

fn strategy_of<'a>(target: &'a Target, change: &Change) -> Result<&'a dyn Strategy, StatusError> {
    if target.subresource.is_empty() {
        return Ok(&*target.resource.strategy);
    }
    let without_rules: &dyn Strategy = match change {
        // The server's own edit, as of `binding`, changes just what it means to.
        Change::Edit(..) => &crate::sub::status::AS_EDITED,
        _ => &crate::sub::status::PLAIN,
    };
    Ok(target.resource.strategy.subresource(&target.subresource).unwrap_or(without_rules))
}

/// The object as it shall be, with the old one and its managers in the same place: apart, if they are so in `old` and nobody asks
/// for them.
fn changed(ctx: &Ctx, target: &Target, change: &mut Change, old: Arc<Object>) -> Result<(Object, Arc<Object>), StatusError> {
    let mut new = match attempted(ctx, target, change, &old) {
        // An error may show what was patched, and that is the whole.
        Err(_) if matches!(change, Change::Patch(_)) && old.managers.is_some() => {
            let old = joined(&old);
            let new = attempted(ctx, target, change, &old)?;
            return Ok((new, old));
        }
        other => other?,
    };
    let Some(managers) = &new.managers else { return Ok((new, old)) };
    if managers.take_same(&mut new.tree) {
        return Ok((new, old));
    }
    // Others than it has are given: they count.
    let old = joined(&old);
    if let Change::Patch(_) = change {
        new = attempted(ctx, target, change, &old)?;
    }
    new.managers = None;
    Ok((new, old))
}

fn attempted(ctx: &Ctx, target: &Target, change: &mut Change, old: &Object) -> Result<Object, StatusError> {
    match change {
        Change::Put(put) => Ok(Object { tree: put.take(ctx, target)?, managers: old.managers.clone() }),
        Change::Edit(edit, _) => {
            let mut new = old.clone();
            edit(&mut new.tree)?;
            Ok(new)
        }
        Change::Patch(patch) => {
            let new = patch::applied_to(ctx, target, patch, old)?;
            match_name(&new.tree, target)?;
            Ok(new)
        }
    }
}

/// A uid in the body must be that of the object.
fn preconditions(target: &Target, value: &Value, old: &Value) -> Result<(), StatusError> {
    let uid = object::uid(value);
    if uid.is_empty() || uid == object::uid(old) {
        return Ok(());
    }
    Err(StatusError::conflict(&target.resource.group_resource(), &target.name, &uid_mismatch(&target.key(), uid, object::uid(old))))
}

pub fn uid_mismatch(key: &str, wanted: &str, found: &str) -> String {
    format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
    )
}

/// Checks the resourceVersion of the body; true where the client named one.
fn insists(target: &Target, change: &Change, value: &mut Value, old: &Value) -> Result<bool, StatusError> {
    let (given, current) = (object::resource_version(value).to_owned(), object::resource_version(old));
    let from_old = match change {
        Change::Put(_) => false,
        Change::Edit(..) => true,
        Change::Patch(p) => !p.names_version,
    };
    if from_old {
        return Ok(false);
    }
    if given.is_empty() || given == "0" {
        if matches!(change, Change::Put(_)) && !target.resource.allow_unconditional_update {
            let error = machinery::field::Error::invalid(
                &machinery::field::Path::new("metadata.resourceVersion"),
                &json!(0),
                "must be specified for an update",
            );
            // Upstream names the resource here, not the kind.
            let group = target.resource.group.clone();
            let kind = GroupKind { group, kind: target.resource.resource.clone() };
            return Err(StatusError::invalid(&kind, &target.name, &[error]));
        }
        return Ok(false);
    }
    if given.parse::<u64>().is_err() {
        let why = format!("strconv.ParseUint: parsing {}: invalid syntax", machinery::field::go_quote(&given));
        return Err(StatusError { details: None, message: why, ..StatusError::new(500, "", "") });
    }
    if given != current {
        return Err(StatusError::stale(&target.resource.group_resource(), &target.name));
    }
    Ok(true)
}
