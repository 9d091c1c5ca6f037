//! Addresses and ports of Services. A cluster IP is claimed by creating an IPAddress object, a node port by a key of its own;
//! so every server of a cluster sees the same claims, and none lives in memory.

mod claims;
mod plan;
pub mod repair;

use serde_json::{Value, json};

use crate::state::Api;
use crate::verbs::Target;
use crate::verbs::write::Ctx;
use claims::Claims;
use machinery::object::{map_mut, str_at};
use machinery::status::StatusError;

fn is_service(target: &Target) -> bool {
    target.resource.kind == "Service" && target.resource.group.is_empty() && target.subresource.is_empty()
}

/// Claims what a new or changed Service needs and writes it into the object. What is claimed must be released if the write
/// fails.
pub async fn allocate(ctx: &Ctx, target: &Target, value: &mut Value, old: Option<&Value>) -> Result<Claims, StatusError> {
    let mut claims = Claims::default();
    if !is_service(target) || !str_at(value, "metadata.deletionTimestamp").is_empty() {
        return Ok(claims);
    }
    plan::families(&ctx.api.config, target, value)?;
    let mut result = plan::addresses(ctx, target, value, old, &mut claims).await;
    if result.is_ok() {
        result = plan::ports(ctx, target, value, old, &mut claims).await;
    }
    if let Err(error) = result {
        claims.release(&ctx.api).await;
        return Err(error);
    }
    if ctx.options.dry_run {
        claims.release(&ctx.api).await;
        return Ok(Claims::default());
    }
    Ok(claims)
}

/// Upstream claims addresses before it validates, and the claim of a Service without a name is refused.
pub fn check_name(ctx: &Ctx, target: &Target, value: &Value) -> Result<(), StatusError> {
    let nameless = is_service(target) && machinery::object::name(value).is_empty() && !ctx.options.dry_run;
    if nameless { plan::refuse_nameless(&ctx.api.config, target, value) } else { Ok(()) }
}

/// After an update: what the Service no longer has is free again.
pub async fn changed(api: &Api, target: &Target, old: &Value, new: &Value) {
    if is_service(target) {
        let kept = claims::held(new);
        let mut gone = claims::held(old);
        gone.retain(|c| !kept.contains(c));
        claims::free(api, &gone).await;
    }
}

/// After a deletion.
pub async fn released(api: &Api, target: &Target, old: &Value) {
    if target.resource.kind == "Service" && target.resource.group.is_empty() {
        claims::free(api, &claims::held(old)).await;
    }
}

/// Sets `spec.clusterIPs`, and `clusterIP` to its first.
fn set_addresses(value: &mut Value, addresses: &[String]) {
    let spec = map_mut(value, "spec");
    match addresses.first() {
        Some(first) => {
            spec.insert("clusterIP".into(), json!(first));
            spec.insert("clusterIPs".into(), json!(addresses));
        }
        None => {
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
    }
}
