//! Writes: decoding, defaults, admission, validation, and the conditional write, in upstream's order. `create` makes an
//! object, `update` changes one (PUT, PATCH and every subresource that writes).

pub mod body;
pub mod create;
pub mod metadata;
mod object;
pub mod patch;
pub mod update;

use std::sync::Arc;

use auth::User;
use bytes::Bytes;
use kinds::{Context, Resource};
use serde_json::Value;
use store::{Expect, Op, Revision};

pub use self::object::Object;

use super::Target;
use super::options::WriteOptions;
use crate::admission::Notes;
use crate::chain::Call;
use crate::state::{Api, store_error};
use crate::{codec, conversion, identifiers};
use machinery::object::metadata_mut;
use machinery::status::StatusError;

/// On whose behalf a write happens, and how.
#[derive(Clone)]
pub struct Ctx {
    pub api: Arc<Api>,
    pub user: User,
    pub options: WriteOptions,
    pub now: String,
    /// Warnings and audit annotations of the request, which its answer carries, also where it is refused.
    pub notes: Arc<Notes>,
}

impl Ctx {
    pub fn new(call: &Call, options: WriteOptions) -> Self {
        Self { api: call.api.clone(), user: call.user.clone(), options, now: identifiers::now(), notes: call.notes.clone() }
    }

    /// For a write the server makes on its own behalf.
    pub fn internal(api: &Arc<Api>, options: WriteOptions) -> Self {
        Self { api: api.clone(), user: User::apiserver(), options, now: identifiers::now(), notes: Arc::default() }
    }

    pub fn strategy(&self, target: &Target) -> Context {
        let User { name, uid, groups, extra } = self.user.clone();
        Context { version: target.resource.version.clone(), now: self.now.clone(), user: name, uid, groups, extra, admin_access: false }
    }

    /// As [`Self::strategy`], with what has to be looked up.
    pub async fn strategy_for(&self, target: &Target, value: &Value) -> Result<Context, StatusError> {
        let mut context = self.strategy(target);
        if kinds::strategies::asks_admin_access(&target.resource, value) {
            let Some(resource) = self.api.registry.kind("", "Namespace") else { return Ok(context) };
            let place = Target { resource, namespace: String::new(), name: target.namespace.clone(), subresource: String::new() };
            let namespace = current(&self.api, &place).await?.map(|(namespace, _)| namespace);
            let label =
                namespace.as_ref().and_then(|namespace| namespace.tree.pointer("/metadata/labels/resource.kubernetes.io~1admin-access"));
            context.admin_access = label.and_then(Value::as_str) == Some("true");
        }
        Ok(context)
    }
}

/// The object written.
pub struct Written {
    pub object: Arc<Object>,
    /// What the store was given, and when: the answer need not be written out again. `None` where nothing was.
    pub stored: Option<Stored>,
    pub created: bool,
}

/// The bytes of an object of the row's version as it is stored.
pub async fn stored_form(api: &Arc<Api>, resource: &Resource, object: &Value) -> Result<Bytes, StatusError> {
    if machinery::object::str_at(object, "apiVersion") == resource.storage_version.to_string() {
        return Ok(codec::encode(object));
    }
    let stored = match &resource.custom {
        Some(custom) => {
            let mut stored = crate::custom::convert::stored(api, resource, custom, object.clone()).await?;
            custom.definition.restore(&mut stored);
            stored
        }
        None => conversion::to_storage(resource, object.clone()),
    };
    Ok(codec::encode(&stored))
}

/// As [`stored_form`] of an object that was changed.
async fn stored_bytes(api: &Arc<Api>, resource: &Resource, object: &Object) -> Result<Bytes, StatusError> {
    match &object.managers {
        Some(managers) if machinery::object::str_at(&object.tree, "apiVersion") == resource.storage_version.to_string() => {
            Ok(codec::encode_apart(&object.tree, managers))
        }
        _ => stored_form(api, resource, &object.to_value()).await,
    }
}

/// A stored object in the row's version.
pub async fn served_form(api: &Arc<Api>, resource: &Resource, stored: Value) -> Result<Value, StatusError> {
    match &resource.custom {
        Some(custom) => {
            let mut all = crate::custom::convert::served(api, resource, custom, vec![stored]).await?;
            all.pop().ok_or_else(|| StatusError::internal("conversion lost an object"))
        }
        None => Ok(super::view::served(resource, stored)),
    }
}

/// What a write answers with: a custom resource of another version than the stored one is what is read back, which has the
/// stored version's defaults and none of the fields that it does not know.
pub async fn read_back(api: &Arc<Api>, resource: &Resource, written: Object, bytes: &Bytes) -> Result<Object, StatusError> {
    if resource.custom.is_none() || resource.storage_version == resource.gvk().group_version() {
        return Ok(written);
    }
    let mut shown = served_form(api, resource, codec::decode(bytes, Revision(0))).await?;
    let revision = machinery::object::resource_version(&written.tree);
    metadata_mut(&mut shown).insert("resourceVersion".to_owned(), revision.into());
    Ok(Object::whole(shown))
}

/// An object's bytes as the store has them, without a revision, and its revision.
pub struct Stored {
    pub bytes: Bytes,
    pub revision: Revision,
}

/// Puts the stored form of an object into the store, and the new revision into the object. `None` in a dry run.
pub async fn put(ctx: &Ctx, target: &Target, object: &mut Value, bytes: Bytes, expect: Expect) -> Result<Option<Stored>, store::Error> {
    if ctx.options.dry_run {
        return Ok(None);
    }
    let key = target.key();
    let ttl = target.resource.expires.then_some(ctx.api.config.event_ttl);
    let op = Op::Put { key: key.as_str().into(), value: bytes.clone(), expect, ttl };
    let (revision, _) = ctx.api.store.write(op).await?;
    ctx.api.caught_up(&key, revision).await;
    metadata_mut(object).insert("resourceVersion".to_owned(), Value::String(revision.0.to_string()));
    Ok(Some(Stored { bytes, revision }))
}

pub fn with_revision(mut object: Value, revision: Revision) -> Value {
    metadata_mut(&mut object).insert("resourceVersion".to_owned(), Value::String(revision.0.to_string()));
    object
}

/// Deletes an object as it was at a revision; the answer is it with the deletion's revision.
pub async fn remove(ctx: &Ctx, target: &Target, object: Value, expect: Expect) -> Result<Value, store::Error> {
    if ctx.options.dry_run {
        return Ok(object);
    }
    let key = target.key();
    let (revision, _) = ctx.api.store.write(Op::Delete { key: key.as_str().into(), expect }).await?;
    ctx.api.caught_up(&key, revision).await;
    crate::service::released(&ctx.api, target, &object).await;
    Ok(with_revision(object, revision))
}

/// The stored object in the row's version, with its revision.
pub async fn fetch(api: &Arc<Api>, target: &Target) -> Result<Option<(Value, Revision)>, StatusError> {
    let (_, found) = api.store.get(&target.key()).await.map_err(store_error)?;
    let Some(kv) = found else { return Ok(None) };
    let stored = codec::decode(&kv.value, kv.mod_revision);
    Ok(Some((served_form(api, &target.resource, stored).await?, kv.mod_revision)))
}

/// As [`fetch`], for who is about to change the object: shared with who did so before.
pub async fn current(api: &Arc<Api>, target: &Target) -> Result<Option<(Arc<Object>, Revision)>, StatusError> {
    let key = target.key();
    let (_, found) = api.store.get(&key).await.map_err(store_error)?;
    let Some(kv) = found else { return Ok(None) };
    let kept = is_kept(&target.resource);
    if let Some(object) = kept.then(|| api.decoded.get(&key, kv.mod_revision)).flatten() {
        return Ok(Some((object, kv.mod_revision)));
    }
    let object = served_form(api, &target.resource, codec::decode(&kv.value, kv.mod_revision)).await?;
    let object = Arc::new(if kept { Object::apart(&target.resource, object) } else { Object::whole(object) });
    if kept {
        api.decoded.keep(&key, kv.mod_revision, &object, kv.value.len());
    }
    Ok(Some((object, kv.mod_revision)))
}

/// Whether objects of the row are the same as stored and as served, whatever happens to definitions of types meanwhile.
fn is_kept(resource: &Resource) -> bool {
    resource.custom.is_none() && super::view::stored_as_served(resource)
}

/// Keeps an object just stored for who changes it next.
pub fn remember(ctx: &Ctx, target: &Target, object: &Arc<Object>, stored: Option<&Stored>) {
    if let Some(stored) = stored.filter(|_| is_kept(&target.resource)) {
        ctx.api.decoded.keep(&target.key(), stored.revision, object, stored.bytes.len());
    }
}

/// Brings the object back into the form of its type after plugins and defaults touched it.
pub fn normalise(target: &Target, value: &mut Value) -> Result<(), StatusError> {
    target.resource.decode_made(value).map_err(|e| StatusError::internal(e.to_string()))?;
    if target.resource.custom.is_some() {
        target.resource.strategy.default(&Context::default(), value);
    }
    Ok(())
}

/// The object as upstream's store gives it back: built-in kinds but APIServices and custom resource definitions go through
/// protobuf, and custom resources lose nulls that their schema allows nowhere, as at every reading.
pub fn as_stored(target: &Target, value: &mut Value) {
    let resource = &target.resource;
    let in_json = matches!(resource.group.as_str(), "apiregistration.k8s.io" | "apiextensions.k8s.io");
    if let Some(custom) = &resource.custom {
        custom.drop_nulls(&resource.version, value);
    } else if in_json {
        resource.omit(value);
    } else {
        machinery::decode::as_stored(&resource.types, resource.ty, value);
    }
}

/// What `machinery::apply` wants to know of a writer, owned.
pub struct Author {
    manager: String,
    api_version: String,
    subresource: String,
    time: String,
    reset: Vec<String>,
}

pub fn writer(ctx: &Ctx, target: &Target, api_version: &str) -> Author {
    // The main resource of a kind with a status does not own it, and the status subresource owns nothing else.
    let reset = target.resource.reset_fields_of(&target.subresource);
    Author {
        manager: ctx.options.manager.clone(),
        api_version: api_version.to_owned(),
        subresource: target.subresource.clone(),
        time: ctx.now.clone(),
        reset,
    }
}

impl Author {
    pub fn as_writer(&self) -> machinery::apply::Writer<'_> {
        machinery::apply::Writer {
            manager: &self.manager,
            api_version: &self.api_version,
            subresource: &self.subresource,
            time: &self.time,
            reset_fields: &self.reset,
        }
    }
}

/// Notes who set which field.
pub fn managed(ctx: &Ctx, target: &Target, value: &mut Value, old: Option<&Value>) {
    let resource = &target.resource;
    let author = writer(ctx, target, &resource.gvk().api_version());
    // Upstream notes fields of what it makes of its own version again: annotations may come of a status.
    let converted = resource.custom.is_none() && resource.storage_version != resource.gvk().group_version();
    if !converted && !resource.has_hollow(value) {
        machinery::apply::on_update(&resource.types, resource.ty, old, value, &author.as_writer());
        return;
    }
    // Nobody owns what is not printed.
    let mut printed = value.clone();
    if converted {
        printed = conversion::from_storage(resource, conversion::to_storage(resource, printed));
    }
    resource.omit(&mut printed);
    machinery::apply::on_update(&resource.types, resource.ty, old, &mut printed, &author.as_writer());
    let entries = metadata_mut(&mut printed).remove("managedFields");
    let meta = metadata_mut(value);
    meta.remove("managedFields");
    meta.extend(entries.map(|entries| ("managedFields".to_owned(), entries)));
}

/// As [`managed`] of an update, whose object and old one have their managers both apart or both in the tree.
pub fn managed_update(ctx: &Ctx, target: &Target, value: &mut Object, old: &Object) {
    let resource = &target.resource;
    let Some(managers) = &old.managers else {
        managed(ctx, target, &mut value.tree, Some(&old.tree));
        return;
    };
    let author = writer(ctx, target, &resource.gvk().api_version());
    let mut printed = None;
    if resource.has_hollow(&value.tree) {
        resource.omit(printed.insert(value.tree.clone()));
    }
    let new = printed.as_ref().unwrap_or(&value.tree);
    let noted = machinery::apply::on_update_apart(&resource.types, resource.ty, (&old.tree, managers), new, &author.as_writer());
    value.managers = Some(noted);
}

/// An update that changes nothing but the times of managed fields changes nothing.
pub fn settle_times(value: &mut Object, old: &Object) {
    let same = match (&value.managers, &old.managers) {
        (Some(new), Some(was)) => new.same_but_for_times(was) && update::same_but(&value.tree, &old.tree, ""),
        _ => machinery::apply::same_but_for_times(&value.tree, &old.tree),
    };
    if same {
        *value = old.clone();
    }
}
