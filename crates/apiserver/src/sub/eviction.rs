//! `pods/eviction`: a deletion that a PodDisruptionBudget may refuse (upstream's `EvictionREST`).

use http::Request;
use machinery::gvk::GroupVersionKind;
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

async fn evict(ctx: &Ctx, target: &Target, mut options: DeleteOptions) -> Result<(), StatusError> {
    let place = Target { subresource: String::new(), ..target.clone() };
    let Some((pod, _)) = fetch(&ctx.api, &place).await? else { return Err(target.not_found()) };
    if !ignores_budgets(&pod) {
        let budgets: Vec<Value> = covering(ctx, &pod).await?;
        if budgets.len() > 1 {
            return Err(StatusError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        if let Some(budget) = budgets.first() {
            let unhealthy_free = str_at(budget, "spec.unhealthyPodEvictionPolicy") == "AlwaysAllow";
            let healthy_enough = number(budget, "status.currentHealthy") >= number(budget, "status.desiredHealthy")
                && number(budget, "status.desiredHealthy") > 0;
            if is_ready(&pod) || !(unhealthy_free || healthy_enough) {
                take(ctx, target, budget).await?;
            }
            // What the budget counted must be what is deleted.
            options.uid.get_or_insert_with(|| object::uid(&pod).to_owned());
        }
    }
    delete_as(ctx, &place, &options, Admit::Done).await?;
    Ok(())
}

fn ignores_budgets(pod: &Value) -> bool {
    matches!(str_at(pod, "status.phase"), "Succeeded" | "Failed" | "Pending") || !str_at(pod, "metadata.deletionTimestamp").is_empty()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

async fn covering(ctx: &Ctx, pod: &Value) -> Result<Vec<Value>, StatusError> {
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
        if number(budget, "status.observedGeneration") < object::generation(budget) {
            let why = "Cannot evict pod as it would violate the pod's disruption budget.";
            return Err(refused(why, &format!("The disruption budget {name} is still being processed by the server."), 10));
        }
        let disrupted = budget.pointer("/status/disruptedPods").and_then(Value::as_object).map_or(0, serde_json::Map::len);
        let allowed = number(budget, "status.disruptionsAllowed");
        if disrupted > DISRUPTED_PODS_MAX || allowed <= 0 {
            let why = format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                number(budget, "status.desiredHealthy"),
                number(budget, "status.currentHealthy")
            );
            return Err(refused("Cannot evict pod as it would violate the pod's disruption budget.", &why, 0));
        }
        let status = map_mut(budget, "status");
        status.insert("disruptionsAllowed".into(), json!(allowed - 1));
        map_mut(budget, "status.disruptedPods").insert(pod.clone(), json!(now));
        Ok(())
    };
    let inner = Ctx { user: auth::User::apiserver(), ..ctx.clone() };
    update(&inner, &place, &Change::Edit(Box::new(edit), Admission::Due)).await?;
    Ok(())
}

fn refused(message: &str, why: &str, retry_after_seconds: i32) -> StatusError {
    let cause = Cause { reason: "DisruptionBudget".into(), message: why.to_owned(), field: String::new() };
    let details = Details { causes: vec![cause], retry_after_seconds, ..Details::default() };
    StatusError { details: Some(Box::new(details)), ..StatusError::new(429, "TooManyRequests", message) }
}
