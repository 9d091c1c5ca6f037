//! What a server behind an APIService says of itself: its resources, for discovery, and its OpenAPI documents.

use std::sync::Arc;

use serde_json::{Value, json};

use super::backend;
use super::routes::Route;
use crate::state::Api;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

#[derive(Debug, Default, PartialEq)]
pub struct Documents {
    /// The resources of the group version in the form of `APIResourceDiscovery`.
    pub resources: Vec<Value>,
    /// Whether they are as of now: the server answers.
    pub fresh: bool,
    /// Where the OpenAPI v3 document of the group version is, with its hash; empty where there is none.
    pub openapi_v3: String,
    /// The OpenAPI v2 document; null where there is none.
    pub openapi_v2: Arc<Value>,
}

/// Asks a server for all of it. What it does not have is left out.
pub async fn read(api: &Arc<Api>, route: &Route) -> Result<Documents, String> {
    let resources = resources(api, route).await?;
    let index = json_at(api, route, "/openapi/v3").await.unwrap_or_default();
    let key = route.root().trim_start_matches('/').to_owned();
    let url = index["paths"][&key]["serverRelativeURL"].as_str().unwrap_or_default().to_owned();
    let openapi_v2 = Arc::new(json_at(api, route, "/openapi/v2").await.unwrap_or_default());
    Ok(Documents { resources, fresh: true, openapi_v3: url, openapi_v2 })
}

async fn json_at(api: &Arc<Api>, route: &Route, path: &str) -> Option<Value> {
    let document = backend::read(api, route, path, "application/json").await.ok().filter(|d| d.code == 200)?;
    machinery::json::parse(&document.bytes).ok().map(|p| p.value)
}

async fn resources(api: &Arc<Api>, route: &Route) -> Result<Vec<Value>, String> {
    let root = if route.group.is_empty() { "/api" } else { "/apis" };
    if let Ok(document) = backend::read(api, route, root, AGGREGATED).await
        && document.code == 200
        && let Ok(parsed) = machinery::json::parse(&document.bytes)
        && parsed.value["kind"] == "APIGroupDiscoveryList"
    {
        let groups = parsed.value["items"].as_array().cloned().unwrap_or_default();
        let group = groups.into_iter().find(|g| machinery::object::name(g) == route.group).unwrap_or_default();
        let versions = group["versions"].as_array().cloned().unwrap_or_default();
        let version = versions.into_iter().find(|v| v["version"] == route.version.as_str()).unwrap_or_default();
        return Ok(version["resources"].as_array().cloned().unwrap_or_default());
    }
    let document = backend::read(api, route, &route.root(), "application/json").await?;
    let parsed = machinery::json::parse(&document.bytes).map_err(|e| format!("{}: {e}", document.url))?;
    Ok(from_list(&parsed.value, route))
}

/// The old form, in the new one.
fn from_list(list: &Value, route: &Route) -> Vec<Value> {
    let all: Vec<&Value> = list["resources"].as_array().into_iter().flatten().collect();
    let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    let kind = |of: &Value| {
        let or = |given: String, own: &str| if given.is_empty() { own.to_owned() } else { given };
        json!({"group": or(text(of, "group"), &route.group), "version": or(text(of, "version"), &route.version), "kind": text(of, "kind")})
    };
    let mut out = Vec::new();
    for one in all.iter().filter(|r| !text(r, "name").contains('/')) {
        let name = text(one, "name");
        let scope = if one["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut resource = json!({"resource": name, "responseKind": kind(one), "scope": scope,
            "singularResource": text(one, "singularName"), "verbs": one["verbs"]});
        for key in ["shortNames", "categories"] {
            if one[key].is_array() {
                resource[key] = one[key].clone();
            }
        }
        let prefix = format!("{name}/");
        let subs = all.iter().filter_map(|r| {
            let sub = text(r, "name").strip_prefix(&prefix)?.to_owned();
            Some(json!({"subresource": sub, "responseKind": kind(r), "verbs": r["verbs"]}))
        });
        let subs: Vec<Value> = subs.collect();
        if !subs.is_empty() {
            resource["subresources"] = json!(subs);
        }
        out.push(resource);
    }
    out
}
