//! `pods/eviction`: a deletion that a PodDisruptionBudget may refuse (upstream's `EvictionREST`).

use http::Request;
use machinery::gvk::{GroupResource, GroupVersionKind};
use machinery::object::{self, map_mut, str_at};
use machinery::status::{Cause, Details, StatusError};
use serde_json::{Value, json};

use super::status::number;
use crate::admission::{self, Operation};
use crate::chain::Call;
use crate::http::respond::{self, Answer};
use crate::http::{RequestBody, negotiate};
use crate::verbs::Target;
use crate::verbs::delete::{Admit, DeleteOptions, delete_as};
use crate::verbs::options::WriteOptions;
use crate::verbs::write::update::{Admission, Change, update};
use crate::verbs::write::{Ctx, body, fetch};

const PDB_GROUP: &str = "policy";
const PDB_KIND: &str = "PodDisruptionBudget";
/// A budget that already waits for so many pods to go takes no more.
const DISRUPTED_PODS_MAX: usize = 2000;

pub async fn serve(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, false, true)?;
    let options = WriteOptions::parse(&call, "CreateOptions")?;
    let want = GroupVersionKind::new("policy", "v1", "Eviction");
    let ty = kinds::table().type_of(&want).ok_or_else(|| StatusError::internal("no type for Eviction"))?;
    let mut eviction = body::object(request, &call.api.registry, &want, ty, options.validation).await?.object;
    if object::name(&eviction) != target.name {
        return Err(StatusError::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut ctx = Ctx::new(&call, options);
    admission::admit(&admission::Request::new(&ctx, &target, Operation::Create), &mut eviction, None).await?;
    let delete_options = DeleteOptions::from_body(eviction.get("deleteOptions").unwrap_or(&Value::Null));
    ctx.options.dry_run |= !delete_options.dry_run.is_empty();
    evict(&ctx, &target, delete_options).await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(respond::value(201, &negotiated, &done))
}

/// How often an eviction that insists on no version is tried on a moving pod.
const ATTEMPTS: usize = 5;

async fn evict(ctx: &Ctx, target: &Target, options: DeleteOptions) -> Result<(), StatusError> {
    let place = Target { subresource: String::new(), ..target.clone() };
    let insists = options.resource_version.is_some();
    let mut attempt = 0;
    let pod = loop {
        attempt += 1;
        let Some((pod, _)) = fetch(&ctx.api, &place).await? else { return Err(target.not_found()) };
        if !ignores_budgets(&pod) {
            break pod;
        }
        let mut own = options.clone();
        // A pending pod may become one that budgets guard.
        if !insists && str_at(&pod, "status.phase") == "Pending" {
            own.resource_version = Some(object::resource_version(&pod).to_owned());
        }
        match condition_and_delete(ctx, &place, own).await {
            Err(e) if e.code == 409 && !insists && attempt < ATTEMPTS => {}
            done => return done,
        }
    };
    let budgets: Vec<Value> = covering(ctx, &pod).await?;
    if budgets.len() > 1 {
        let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(StatusError { details: None, ..StatusError::new(500, "", text) });
    }
    let mut own = options;
    let mut guarded = None;
    if let Some(budget) = budgets.first() {
        let unhealthy_free = str_at(budget, "spec.unhealthyPodEvictionPolicy") == "AlwaysAllow";
        let healthy_enough = number(budget, "status.currentHealthy") >= number(budget, "status.desiredHealthy")
            && number(budget, "status.desiredHealthy") > 0;
        if !is_ready(&pod) && (unhealthy_free || healthy_enough) {
            // It must not have become ready since.
            guarded = (!insists).then(|| object::name(budget).to_owned());
            own.resource_version = Some(object::resource_version(&pod).to_owned());
        } else {
            take(ctx, target, budget).await?;
        }
    }
    match (condition_and_delete(ctx, &place, own).await, guarded) {
        (Err(e), Some(budget)) if e.code == 409 => Err(still_processed(&budget)),
        (done, _) => done,
    }
}

/// Says why the pod goes, then deletes it (`addConditionAndDeletePod`).
async fn condition_and_delete(ctx: &Ctx, place: &Target, mut options: DeleteOptions) -> Result<(), StatusError> {
    if !ctx.options.dry_run {
        let (now, wanted) = (ctx.now.clone(), options.resource_version.clone());
        let group_resource = place.resource.group_resource();
        let name = place.name.clone();
        let edit = move |pod: &mut Value| {
            if wanted.as_deref().is_some_and(|wanted| wanted != object::resource_version(pod)) {
                return Err(StatusError::stale(&group_resource, &name));
            }
            disruption_target(pod, &now);
            Ok(())
        };
        let status = Target { subresource: "status".into(), ..place.clone() };
        let inner = Ctx { user: auth::User::apiserver(), ..ctx.clone() };
        let written = update(&inner, &status, Change::Edit(Box::new(edit), Admission::Done)).await?;
        if options.resource_version.is_some() {
            options.resource_version = Some(object::resource_version(&written.object.tree).to_owned());
        }
    }
    delete_as(ctx, place, &options, Admit::Done).await?;
    Ok(())
}

fn disruption_target(pod: &mut Value, now: &str) {
    let mut conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        "lastProbeTime": null, "lastTransitionTime": now,
    });
    match conditions.iter_mut().find(|c| c["type"] == "DisruptionTarget") {
        Some(known) => {
            if known["status"] == "True" {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
    map_mut(pod, "status").insert("conditions".into(), json!(conditions));
}

fn ignores_budgets(pod: &Value) -> bool {
    matches!(str_at(pod, "status.phase"), "Succeeded" | "Failed" | "Pending") || !str_at(pod, "metadata.deletionTimestamp").is_empty()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

async fn covering(ctx: &Ctx, pod: &Value) -> Result<Vec<Value>, StatusError> {
    if machinery::object::labels(pod).next().is_none() {
        return Ok(Vec::new());
    }
    let all = ctx.api.read_all(PDB_GROUP, PDB_KIND, object::namespace(pod)).await?;
    let selects = |b: &Value| machinery::labels::from_label_selector(b.pointer("/spec/selector")).is_ok_and(|s| s.matches_object(pod));
    Ok(all.into_iter().filter(selects).collect())
}

/// Takes one disruption from the budget, or says 429.
async fn take(ctx: &Ctx, target: &Target, budget: &Value) -> Result<(), StatusError> {
    let Some(resource) = ctx.api.registry.kind(PDB_GROUP, PDB_KIND) else { return Ok(()) };
    let name = object::name(budget).to_owned();
    let place = Target { resource, namespace: target.namespace.clone(), name: name.clone(), subresource: "status".into() };
    let (pod, now) = (target.name.clone(), ctx.now.clone());
    let edit = move |budget: &mut Value| {
        judge(budget, &name)?;
        let allowed = number(budget, "status.disruptionsAllowed") - 1;
        let generation = object::generation(budget);
        let status = map_mut(budget, "status");
        status.insert("disruptionsAllowed".into(), json!(allowed));
        map_mut(budget, "status.disruptedPods").insert(pod.clone(), json!(now));
        if allowed == 0 {
            none_left(budget, generation, &now);
        }
        Ok(())
    };
    let inner = Ctx { user: auth::User::apiserver(), ..ctx.clone() };
    update(&inner, &place, Change::Edit(Box::new(edit), Admission::Due)).await?;
    Ok(())
}

/// Whether a budget has a disruption to give (`checkAndDecrement`).
fn judge(budget: &Value, name: &str) -> Result<(), StatusError> {
    const WHY: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
    if number(budget, "status.observedGeneration") < object::generation(budget) {
        return Err(still_processed(name));
    }
    let forbidden = |why: &str| StatusError::forbidden(&GroupResource::new(PDB_GROUP, "poddisruptionbudget"), name, why);
    let allowed = number(budget, "status.disruptionsAllowed");
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    let disrupted = budget.pointer("/status/disruptedPods").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    if disrupted > DISRUPTED_PODS_MAX {
        return Err(forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    if allowed > 0 {
        return Ok(());
    }
    let conditions = budget.pointer("/status/conditions").and_then(Value::as_array);
    let failed = conditions.into_iter().flatten().find(|c| c["type"] == DISRUPTION_ALLOWED && c["reason"] == "SyncFailed");
    Err(refused(
        WHY,
        &match failed {
            Some(condition) => {
                let why = str_at(condition, "message");
                format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {why}")
            }
            None => format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                number(budget, "status.desiredHealthy"),
                number(budget, "status.currentHealthy")
            ),
        },
        0,
    ))
}

const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// The last disruption was given: the budget's condition says so at once.
fn none_left(budget: &mut Value, generation: i64, now: &str) {
    let mut conditions = budget.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut condition = json!({
        "type": DISRUPTION_ALLOWED, "status": "False", "reason": "InsufficientPods", "message": "",
        "observedGeneration": generation, "lastTransitionTime": now,
    });
    match conditions.iter_mut().find(|c| c["type"] == DISRUPTION_ALLOWED) {
        Some(known) => {
            if known["status"] == "False" {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
    map_mut(budget, "status").insert("conditions".into(), json!(conditions));
}

fn still_processed(name: &str) -> StatusError {
    let why = "Cannot evict pod as it would violate the pod's disruption budget.";
    refused(why, &format!("The disruption budget {name} is still being processed by the server."), 10)
}

fn refused(message: &str, why: &str, retry_after_seconds: i32) -> StatusError {
    let cause = Cause { reason: "DisruptionBudget".into(), message: why.to_owned(), field: String::new() };
    let details = Details { causes: vec![cause], retry_after_seconds, ..Details::default() };
    StatusError { details: Some(Box::new(details)), ..StatusError::new(429, "TooManyRequests", message) }
}
