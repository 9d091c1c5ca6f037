//! What a write would use must fit the ResourceQuotas of its namespace, and is added to what they say is used before the
//! object is written (upstream's `resourcequota` admission). What one object counts for is `kinds::quota`, which the
//! resourcequota controller shares: it corrects what failed writes left behind.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use kinds::quota::{self, Usage};
use machinery::object::{map_mut, name, str_at};
use machinery::quantity::Quantity;
use machinery::requests::Amounts as _;
use machinery::status::StatusError;
use serde_json::{Map, Value, json};

use super::{Operation, Plugin, Request};
use crate::identifiers;
use crate::verbs::Target;
use crate::verbs::options::WriteOptions;
use crate::verbs::write::Ctx;
use crate::verbs::write::update::{Admission, Change, update};

const KIND: &str = "ResourceQuota";
/// How often a quota is tried that others change meanwhile.
const ATTEMPTS: usize = 5;

pub struct ResourceQuota;

#[async_trait]
impl Plugin for ResourceQuota {
    fn handles(&self, request: &Request<'_>) -> bool {
        let writes = match (request.operation, request.subresource) {
            (Operation::Create, "") => true,
            (Operation::Update, "") => matches!(request.resource.kind.as_str(), "Service" | "PersistentVolumeClaim"),
            (Operation::Update, "resize") => true,
            _ => false,
        };
        writes && request.resource.namespaced && !request.namespace.is_empty()
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        // Most namespaces have no quota: those cost a look into the cache.
        if !request.api.has_current("", KIND, request.namespace).await? {
            return Ok(());
        }
        let resource = request.resource.group_resource().to_string();
        let now = identifiers::timestamp();
        let wanted = additional(&resource, value, old, now);
        for _ in 0..ATTEMPTS {
            if charge(request, &resource, value, old, &wanted).await? {
                return Ok(());
            }
        }
        Err(StatusError::conflict(&request.resource.group_resource(), name(value), "the quotas of the namespace are changing too fast"))
    }
}

/// What the write uses beyond what the object used before.
fn additional(resource: &str, value: &Value, old: Option<&Value>, now: Timestamp) -> Usage {
    let mut usage = quota::usage(resource, value, now);
    for (key, before) in old.map(|old| quota::usage(resource, old, now)).into_iter().flatten() {
        *usage.entry(key).or_insert(Quantity::ZERO) -= before;
    }
    usage.retain(|_, amount| *amount > Quantity::ZERO);
    usage
}

/// Checks all quotas, then notes the use in each. False where one changed meanwhile, and all must be looked at again.
async fn charge(request: &Request<'_>, resource: &str, value: &Value, old: Option<&Value>, wanted: &Usage) -> Result<bool, StatusError> {
    let mut charges: Vec<(String, String, Usage)> = Vec::new();
    for quota in request.api.read_all("", KIND, request.namespace).await? {
        if let Some(more) = check(request, &quota, resource, value, old, wanted)? {
            charges.push((name(&quota).to_owned(), str_at(&quota, "metadata.resourceVersion").to_owned(), more));
        }
    }
    if request.dry_run {
        return Ok(true);
    }
    for (quota, version, more) in charges {
        match note(request, &quota, &version, &more).await {
            Ok(()) => {}
            // What was noted in quotas before this one is noted again: the controller takes it back.
            Err(error) if error.code == 409 || error.code == 404 => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// What a quota must be charged for the write; `None` where it has no say.
fn check(
    request: &Request<'_>,
    quota: &Value,
    resource: &str,
    value: &Value,
    old: Option<&Value>,
    wanted: &Usage,
) -> Result<Option<Usage>, StatusError> {
    let none = Map::new();
    let spec = quota.pointer("/spec/hard").and_then(Value::as_object).unwrap_or(&none);
    let matches = quota::concerns(spec, resource) && quota::in_scope(&quota["spec"], resource, value);
    if !matches {
        return Ok(None);
    }
    if resource == "pods" {
        let missing = quota::unspecified(spec, value);
        if !missing.is_empty() {
            return Err(request.forbidden(value, &format!("failed quota: {}: must specify {missing}", name(quota))));
        }
    }
    let hard = amounts(quota, "/status/hard");
    let used = amounts(quota, "/status/used");
    let named: Vec<&String> = spec.keys().filter(|key| quota::resource_of(key).as_deref() == Some(resource)).collect();
    let unknown: Vec<&str> =
        named.iter().filter(|key| !hard.contains_key(**key) || !used.contains_key(**key)).map(|k| k.as_str()).collect();
    if !unknown.is_empty() {
        let why = format!("status unknown for quota: {}, resources: {}", name(quota), unknown.join(","));
        return Err(request.forbidden(value, &why));
    }
    // Before, the object may have been outside of the quota's scope.
    let was_in = old.is_none_or(|old| quota::in_scope(&quota["spec"], resource, old));
    let wanted = if was_in { wanted.clone() } else { quota::usage(resource, value, identifiers::timestamp()) };
    let more: Usage = wanted.into_iter().filter(|(key, _)| hard.contains_key(key)).collect();
    let exceeded: Vec<&String> = more
        .iter()
        .filter(|(key, amount)| used.get(*key).copied().unwrap_or(Quantity::ZERO) + **amount > hard[*key])
        .map(|(key, _)| key)
        .collect();
    if !exceeded.is_empty() {
        let shown = |of: &BTreeMap<String, Quantity>| {
            exceeded.iter().map(|key| format!("{key}={}", of.get(*key).copied().unwrap_or(Quantity::ZERO))).collect::<Vec<_>>().join(",")
        };
        let why =
            format!("exceeded quota: {}, requested: {}, used: {}, limited: {}", name(quota), shown(&more), shown(&used), shown(&hard));
        return Err(request.forbidden(value, &why));
    }
    Ok((!more.is_empty()).then_some(more))
}

fn amounts(quota: &Value, pointer: &str) -> BTreeMap<String, Quantity> {
    let all = quota.pointer(pointer).and_then(Value::as_object);
    all.into_iter().flatten().filter_map(|(key, text)| Some((key.clone(), Quantity::parse(text.as_str()?).ok()?))).collect()
}

/// Adds to a quota's status, provided it is still the one that was checked.
async fn note(request: &Request<'_>, quota: &str, version: &str, more: &Usage) -> Result<(), StatusError> {
    let Some(resource) = request.api.registry.kind("", KIND) else { return Ok(()) };
    let place = Target { resource, namespace: request.namespace.to_owned(), name: quota.to_owned(), subresource: "status".to_owned() };
    let (more, version, gone) = (more.clone(), version.to_owned(), place.resource.group_resource());
    let edit = move |quota: &mut Value| {
        if str_at(quota, "metadata.resourceVersion") != version {
            return Err(StatusError::stale(&gone, name(quota)));
        }
        let mut used = amounts(quota, "/status/used");
        used.add(&more);
        let text = used.into_iter().map(|(key, amount)| (key, json!(amount.to_string()))).collect::<Map<_, _>>();
        map_mut(quota, "status").insert("used".into(), Value::Object(text));
        Ok(())
    };
    let options = WriteOptions { manager: "kube-apiserver".to_owned(), ..WriteOptions::default() };
    let ctx = Ctx::internal(request.api, options);
    update(&ctx, &place, Change::Edit(Box::new(edit), Admission::Done)).await.map(drop)
}
