//! `status`, `finalize`, `approval`, `resize`, `ephemeralcontainers`: the object itself, of which a PUT or PATCH changes a part.

use http::Request;
use kinds::{Context, Strategy};
use machinery::object::at;
use machinery::status::StatusError;
use serde_json::Value;

use crate::chain::Call;
use crate::http::respond::Answer;
use crate::http::{RequestBody, negotiate};
use crate::verbs::write::{fetch, update};
use crate::verbs::{Target, view};

pub async fn serve(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    if call.info.verb != "get" {
        return update::serve(call, request, target).await;
    }
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, view::has_protobuf(&target.resource))?;
    let Some((object, _)) = fetch(&call.api, &target).await? else { return Err(target.not_found()) };
    view::object(&call, &negotiated, &target.resource, 200, &object)
}

/// What `status` of a kind without rules of its own does: takes the status and the metadata, keeps the rest.
pub struct PlainStatus;

pub static PLAIN: PlainStatus = PlainStatus;

impl Strategy for PlainStatus {
    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        let (Some(map), Some(was)) = (new.as_object_mut(), old.as_object()) else { return };
        map.retain(|key, _| matches!(key.as_str(), "metadata" | "status") || was.contains_key(key));
        for key in was.keys().filter(|key| !matches!(key.as_str(), "metadata" | "status")) {
            kinds::validate::tree::keep(new, old, key);
        }
    }

    fn validate(&self, _ctx: &Context, _object: &Value) -> machinery::field::ErrorList {
        Vec::new()
    }
}

/// Takes a change as it is.
pub struct AsEdited;

pub static AS_EDITED: AsEdited = AsEdited;

impl Strategy for AsEdited {
    fn validate(&self, _ctx: &Context, _object: &Value) -> machinery::field::ErrorList {
        Vec::new()
    }
}

/// The number at a path, zero where there is none.
pub fn number(object: &Value, path: &str) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or(0)
}
