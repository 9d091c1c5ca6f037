//! Subresources: those that write the stored object by a strategy (`status` and its like) and those with a way of their own.

mod access;
mod binding;
mod eviction;
pub mod review;
pub mod scale;
pub mod status;
mod token;

use http::Request;
use machinery::status::StatusError;

use crate::chain::Call;
use crate::connect;
use crate::http::RequestBody;
use crate::http::respond::Answer;
use crate::verbs::{Target, no_such_resource, not_allowed};

pub async fn serve(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    let Some(row) = target.resource.subresource(&target.subresource).cloned() else {
        return Err(if target.resource.custom.is_some() { target.not_found() } else { no_such_resource() });
    };
    // Proxies take every method, OPTIONS too, which is no verb.
    let any = row.name == "proxy" && call.info.verb.is_empty();
    if !(any || row.verbs.contains(&call.info.verb)) || target.name.is_empty() {
        return Err(not_allowed());
    }
    if connect::is(&row.name) {
        return connect::serve(call, request, target).await;
    }
    match row.name.as_str() {
        "scale" => scale::serve(call, request, target).await,
        "binding" => {
            let admitted_as = target.clone();
            binding::serve(call, request, target, admitted_as).await
        }
        "eviction" => eviction::serve(call, request, target).await,
        "token" => token::serve(call, request, target).await,
        _ => status::serve(call, request, target).await,
    }
}
