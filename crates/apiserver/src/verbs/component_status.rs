//! `componentstatuses`: no objects, but what the store, the scheduler and the controller manager say of themselves when asked
//! (upstream's `componentstatus` registry). Parts that run in this process are known to; others are asked over HTTPS where
//! upstream's listen. Called by `verbs`.

use std::sync::Arc;
use std::time::Duration;

use kinds::Resource;
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::options::ListOptions;
use super::selection::Selection;
use super::{Target, view};
use crate::chain::Call;
use crate::http::respond::{self, Answer};
use crate::http::{View, negotiate};
use crate::state::Api;
use crate::webhook::{self, Endpoint, Trust};

const STORE: &str = "etcd-0";
/// By name, and where upstream's tell their health.
const COMPONENTS: [(&str, &str); 3] =
    [("controller-manager", "https://127.0.0.1:10257/healthz"), (STORE, ""), ("scheduler", "https://127.0.0.1:10259/healthz")];
/// Upstream's patience.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn is(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.resource == "componentstatuses"
}

pub async fn get(call: Call, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, view::has_protobuf(&target.resource))?;
    let Some((name, url)) = COMPONENTS.into_iter().find(|(name, _)| *name == target.name) else {
        return Err(target.not_found());
    };
    let object = status(&call.api, name, url).await;
    view::object(&call, &negotiated, &target.resource, 200, &object)
}

pub async fn list(call: Call, target: Target) -> Result<Answer, StatusError> {
    let resource = &target.resource;
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, view::has_protobuf(resource))?;
    let options = ListOptions::parse(&call.query)?;
    let selection = Selection::parse(resource, &options.label_selector, &options.field_selector)?;
    let named = COMPONENTS.into_iter().filter(|(name, _)| selection.names(name));
    let objects = futures::future::join_all(named.map(|(name, url)| status(&call.api, name, url))).await;
    let list = match negotiated.view {
        View::Table => {
            let include = view::Include::parse(&call)?;
            let rows = objects.iter().map(|o| view::row(resource, o, include)).collect();
            view::table(resource, json!({}), rows, true)
        }
        View::Object => {
            let items: Vec<Value> = objects.into_iter().map(super::list::untyped).collect();
            json!({"kind": resource.list_kind(), "apiVersion": "v1", "metadata": {}, "items": items})
        }
        View::PartialObjectMetadata | View::PartialObjectMetadataList => {
            let items: Vec<Value> = objects.iter().map(view::partial).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": items})
        }
    };
    Ok(respond::value(200, &negotiated, &view::versioned(&negotiated, list)))
}

async fn status(api: &Arc<Api>, name: &str, url: &str) -> Value {
    let (healthy, message) = match ask(api, name, url).await {
        Ok(message) => ("True", message),
        Err(message) => ("False", message),
    };
    let mut condition = json!({"type": "Healthy", "status": healthy});
    if !message.is_empty() {
        condition["message"] = json!(message);
    }
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]})
}

/// What a component says of itself, or why it is not well.
async fn ask(api: &Arc<Api>, name: &str, url: &str) -> Result<String, String> {
    if name == STORE {
        let asked = tokio::time::timeout(PATIENCE, api.store.revision()).await;
        return asked.map_err(|_| "context deadline exceeded".to_owned())?.map(|_| "ok".to_owned()).map_err(|e| e.to_string());
    }
    if api.runs_beside(name) {
        return Ok("ok".to_owned());
    }
    let endpoint = Endpoint::url_of(url, Trust::Any)?;
    let (code, body) = webhook::page(api, &endpoint, PATIENCE).await?;
    let text = String::from_utf8_lossy(&body).into_owned();
    if (200..400).contains(&code) { Ok(text) } else { Err(format!("HTTP probe failed with statuscode: {code}")) }
}
