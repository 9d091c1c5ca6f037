//! What the server writes about definitions: accepted names and conditions, and the deletion of all objects of one that is
//! being deleted. Level-triggered: it looks at all definitions of a group whenever one has changed, and again soon after a failure.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kinds::Resource;
use kinds::custom::conditions::{self, FINALIZER, one};
use machinery::object::{self, str_at};
use machinery::status::StatusError;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::identifiers;
use crate::registry;
use crate::state::{Api, store_error};
use crate::verbs::Target;
use crate::verbs::delete::{self, DeleteOptions};
use crate::verbs::options::WriteOptions;
use crate::verbs::write::update::{Admission, Change, update};
use crate::verbs::write::{Ctx, put, remove};

const RETRY: Duration = Duration::from_millis(500);
/// How often to look whether instances that something holds are gone.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub async fn run(api: Arc<Api>, row: Arc<Resource>, cancel: CancellationToken) {
    let mut again: Option<Duration> = None;
    loop {
        let changed = api.definitions.changed.notified();
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            () = changed => {}
            () = tokio::time::sleep(again.unwrap_or(Duration::MAX)), if again.is_some() => {}
        }
        again = None;
        let groups = api.definitions.known.lock().unwrap_or_else(PoisonError::into_inner).changed();
        for group in &groups {
            for definition in group {
                let wait = match settle(&api, &row, definition, group).await {
                    Ok(Done::Yes) => continue,
                    Ok(Done::Waiting) => LOOK_AGAIN,
                    // Somebody else was faster: the change wakes us again.
                    Err(error) if matches!(error.code, 404 | 409) => continue,
                    Err(error) => {
                        tracing::warn!(definition = object::name(definition), error = error.message, "a definition cannot be settled");
                        RETRY
                    }
                };
                api.definitions.known.lock().unwrap_or_else(PoisonError::into_inner).note(definition);
                again = Some(again.unwrap_or(wait));
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Yes,
    /// For instances to go.
    Waiting,
}

async fn settle(api: &Arc<Api>, row: &Arc<Resource>, definition: &Value, group: &[Arc<Value>]) -> Result<Done, StatusError> {
    let now = identifiers::now();
    if !str_at(definition, "metadata.deletionTimestamp").is_empty() {
        return finish(api, row, definition, &now).await;
    }
    if let Some(status) = conditions::reconcile(definition, group.iter().map(|d| &**d), &now) {
        write_status(api, row, definition, status).await?;
    }
    Ok(Done::Yes)
}

fn context(api: &Arc<Api>) -> Ctx {
    Ctx {
        api: api.clone(),
        user: auth::User::apiserver(),
        options: WriteOptions { manager: "kube-apiserver".to_owned(), ..WriteOptions::default() },
        now: identifiers::now(),
        notes: Arc::default(),
    }
}

fn target(row: &Arc<Resource>, name: &str, subresource: &str) -> Target {
    Target { resource: row.clone(), namespace: String::new(), name: name.to_owned(), subresource: subresource.to_owned() }
}

/// Writes a status to a definition that is still as it was seen.
async fn write_status(api: &Arc<Api>, row: &Arc<Resource>, definition: &Value, status: Value) -> Result<(), StatusError> {
    let (seen, name) = (object::resource_version(definition).to_owned(), object::name(definition).to_owned());
    let place = target(row, &name, "status");
    let stale = StatusError::stale(&row.group_resource(), &name);
    let edit = move |value: &mut Value| {
        if object::resource_version(value) != seen {
            return Err(stale.clone());
        }
        value["status"] = status.clone();
        Ok(())
    };
    update(&context(api), &place, Change::Edit(Box::new(edit), Admission::Due)).await?;
    Ok(())
}

/// Deletes the objects of a definition that is being deleted; when none is left, lets it go.
async fn finish(api: &Arc<Api>, row: &Arc<Resource>, definition: &Value, now: &str) -> Result<Done, StatusError> {
    let held = definition.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|f| f.iter().any(|f| f == FINALIZER));
    if !held {
        return Ok(Done::Yes);
    }
    let said = conditions::condition(definition, "Terminating").map(|c| str_at(c, "reason")).unwrap_or_default();
    if !matches!(said, "InstanceDeletionInProgress" | "InstanceDeletionCompleted") {
        let condition = one("Terminating", "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress");
        return write_condition(api, row, definition, &condition, now).await;
    }
    if conditions::is_true(definition, "Established") && !instances_gone(api, definition).await? {
        return Ok(Done::Waiting);
    }
    if said != "InstanceDeletionCompleted" {
        let condition = one("Terminating", "False", "InstanceDeletionCompleted", "removed all instances");
        return write_condition(api, row, definition, &condition, now).await;
    }
    release(api, row, definition).await
}

async fn write_condition(
    api: &Arc<Api>,
    row: &Arc<Resource>,
    definition: &Value,
    condition: &Value,
    now: &str,
) -> Result<Done, StatusError> {
    let mut changed = definition.clone();
    conditions::set(&mut changed, condition, now);
    write_status(api, row, definition, changed["status"].take()).await?;
    Ok(Done::Yes)
}

/// Asks for the deletion of every instance; true when there was none.
async fn instances_gone(api: &Arc<Api>, definition: &Value) -> Result<bool, StatusError> {
    let (group, kind) = (str_at(definition, "spec.group"), str_at(definition, "status.acceptedNames.kind"));
    let plural = str_at(definition, "status.acceptedNames.plural");
    let Some(row) = api.registry.kind(group, kind).filter(|r| r.resource == plural) else { return Ok(true) };
    let listing = api.store.list(&registry::prefix(&row, ""), store::ListOptions::default()).await.map_err(store_error)?;
    let ctx = context(api);
    for item in &listing.items {
        let mut parts = item.key.rsplit('/');
        let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let namespace = if row.namespaced { namespace.to_owned() } else { String::new() };
        let place = Target { namespace, ..target(&row, name, "") };
        match delete::delete(&ctx, &place, &DeleteOptions::default()).await {
            Ok(_) => {}
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listing.items.is_empty())
}

/// Takes the finalizer off.
async fn release(api: &Arc<Api>, row: &Arc<Resource>, definition: &Value) -> Result<Done, StatusError> {
    let ctx = context(api);
    let place = target(row, object::name(definition), "");
    let mut value = definition.clone();
    if let Some(list) = value.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
        list.retain(|f| f != FINALIZER);
    }
    let Ok(revision) = object::resource_version(definition).parse() else { return Ok(Done::Yes) };
    let expect = store::Expect::Revision(store::Revision(revision));
    let left = value.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
    let done = if left {
        let bytes = crate::codec::encode(&value);
        put(&ctx, &place, &mut value, bytes, expect).await.map(|_| value)
    } else {
        remove(&ctx, &place, value, expect).await
    };
    match done {
        Ok(_) | Err(store::Error::Conflict(_)) => Ok(Done::Yes),
        Err(error) => Err(store_error(error)),
    }
}
