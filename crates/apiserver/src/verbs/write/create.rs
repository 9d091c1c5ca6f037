//! POST: making an object.

use std::sync::Arc;

use http::Request;
use machinery::object::{self, metadata_mut};
use machinery::status::StatusError;
use serde_json::{Value, json};
use store::Expect;

use super::{Ctx, Object, Written, body, metadata, put};
use crate::admission::{self, Operation};
use crate::chain::Call;
use crate::http::respond::Answer;
use crate::http::{RequestBody, negotiate};
use crate::state::store_error;
use crate::verbs::options::WriteOptions;
use crate::verbs::{Target, view};
use crate::{identifiers, service};

/// How often another name is tried for `generateName`.
const NAME_ATTEMPTS: usize = 8;

pub async fn serve(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    // Objects are posted to their collection.
    if !call.info.name.is_empty() {
        return Err(crate::verbs::not_allowed());
    }
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, view::has_protobuf(&target.resource))?;
    if target.resource.custom.as_ref().is_some_and(|c| c.terminating) {
        return Err(StatusError::method_not_supported(&target.resource.group_resource(), "create"));
    }
    let options = WriteOptions::parse(&call, "CreateOptions")?;
    let decoded = body::of_resource(request, &call.api.registry, &target.resource, options.validation).await?;
    let ctx = Ctx::new(&call, options);
    ctx.notes.warn_of(decoded.warnings);
    let written = create(&ctx, &target, decoded.object).await?;
    view::written(&call, &negotiated, &target.resource, 201, &written)
}

/// Makes an object from a decoded tree. The target's name is not used: the object brings it.
pub async fn create(ctx: &Ctx, target: &Target, value: Value) -> Result<Written, StatusError> {
    create_as(ctx, target, value, Managed::Note).await
}

/// Who notes the managed fields of a new object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Managed {
    /// Creation does.
    Note,
    /// Server-side apply did already.
    Noted,
}

/// As [`create`].
pub async fn create_as(ctx: &Ctx, target: &Target, mut value: Value, by: Managed) -> Result<Written, StatusError> {
    let resource = &target.resource;
    match_namespace(&mut value, target)?;
    let versioned = !matches!(object::resource_version(&value), "" | "0");
    resource.defaults.apply(&mut value);
    let strategy = &resource.strategy;
    let context = ctx.strategy_for(target, &value).await?;
    strategy.default(&context, &mut value);
    let prefix = object::str_at(&value, "metadata.generateName").to_owned();
    let generated = object::name(&value).is_empty() && !prefix.is_empty();
    metadata::wipe(&mut value);
    ctx.notes.warn_of(metadata::dedup_owners(&mut value));
    if by == Managed::Note {
        super::managed(ctx, target, &mut value, None);
    }
    let place = target.named(object::name(&value));
    admission::mutate(&admission::Request::new(ctx, &place, Operation::Create), &mut value, None).await?;
    super::normalise(target, &mut value)?;
    crate::authz::escalation::check(ctx, target, &value, None).await?;
    metadata::fill_new(resource, &mut value, &target.namespace, &ctx.now);
    let another = || if strategy.suffixes_names() { identifiers::generate_name(&prefix) } else { prefix.clone() };
    if generated {
        metadata_mut(&mut value).insert("name".into(), json!(another()));
    }
    service::check_name(ctx, target, &value)?;
    strategy.prepare_for_create(&context, &mut value);
    metadata::first_generation(resource, &mut value);
    for attempt in 0..NAME_ATTEMPTS {
        if generated && attempt > 0 {
            metadata_mut(&mut value).insert("name".into(), json!(another()));
        }
        let name = object::name(&value).to_owned();
        let errors = kinds::validate::create(resource, &context, &value);
        if !errors.is_empty() {
            return Err(StatusError::invalid(&resource.refused_kind(&value), &name, &errors));
        }
        ctx.notes.warn_of(strategy.warnings(&context, &value, None));
        let place = target.named(&name);
        let request = admission::Request::new(ctx, &place, Operation::Create);
        admission::validate(&request, &value, None).await?;
        let claims = service::allocate(ctx, &place, &mut value, None).await?;
        if versioned {
            claims.release(&ctx.api).await;
            let text = "resourceVersion should not be set on objects to be created";
            return Err(StatusError { message: text.to_owned(), details: None, ..StatusError::new(500, "", "") });
        }
        // Reading from the store applies defaults: to what preparing made, too.
        resource.defaults.apply(&mut value);
        strategy.default(&context, &mut value);
        super::as_stored(&place, &mut value);
        let bytes = super::stored_form(&ctx.api, resource, &value).await?;
        match put(ctx, &place, &mut value, bytes.clone(), expect(ctx, &place).await?).await {
            Ok(stored) => {
                let shown = super::read_back(&ctx.api, resource, Object::whole(value), &bytes).await?;
                return Ok(Written { object: Arc::new(shown), stored, created: true });
            }
            Err(error) => {
                claims.release(&ctx.api).await;
                match error {
                    store::Error::Conflict(_) if generated => {}
                    store::Error::Conflict(_) => return Err(StatusError::already_exists(&resource.group_resource(), &name)),
                    error => return Err(store_error(error)),
                }
            }
        }
    }
    Err(no_free_name(target, &value))
}

/// Upstream's `NewGenerateNameConflict`.
fn no_free_name(target: &Target, value: &Value) -> StatusError {
    let mut error = StatusError::already_exists(&target.resource.group_resource(), object::name(value));
    if let Some(details) = &mut error.details {
        details.retry_after_seconds = 1;
    }
    error.message = format!("{}, the server was not able to generate a unique name for the object", error.message);
    error
}

/// A dry run writes nothing, so it must look itself whether the name is taken.
async fn expect(ctx: &Ctx, place: &Target) -> Result<Expect, StatusError> {
    if ctx.options.dry_run && super::fetch(&ctx.api, place).await?.is_some() {
        return Err(StatusError::already_exists(&place.resource.group_resource(), &place.name));
    }
    Ok(Expect::Absent)
}

/// The namespace of the URL goes into the object; another one is refused.
pub fn match_namespace(value: &mut Value, target: &Target) -> Result<(), StatusError> {
    let given = object::namespace(value).to_owned();
    if target.namespace.is_empty() {
        metadata_mut(value).remove("namespace");
        return Ok(());
    }
    if !given.is_empty() && given != target.namespace {
        return Err(StatusError::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
    }
    metadata_mut(value).insert("namespace".into(), json!(target.namespace));
    Ok(())
}
