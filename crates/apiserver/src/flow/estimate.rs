//! What a request is taken to cost, from what the watch caches hold and who watches them.

use std::sync::Arc;

use flowcontrol::{Work, work};

use crate::http::Query;
use crate::request::RequestInfo;
use crate::state::Api;

pub fn work(api: &Arc<Api>, info: &RequestInfo, query: &Query, most: u32) -> Work {
    if !info.is_resource {
        return Work::default();
    }
    match info.verb.as_str() {
        "list" => list(api, info, query, most),
        "create" | "update" | "patch" | "delete" => write(api, info, most),
        _ => Work::default(),
    }
}

fn list(api: &Arc<Api>, info: &RequestInfo, query: &Query, most: u32) -> Work {
    let Some(resource) = api.registry.resource(&info.group, &info.version, &info.resource).filter(|r| !r.storage_prefix.is_empty()) else {
        return Work::default();
    };
    // One object by its name.
    if !info.name.is_empty() {
        return Work::default();
    }
    let (objects, _) = api.cache(&resource).extent();
    let limit = query.text("limit").parse().unwrap_or(0);
    let selective = !query.text("labelSelector").is_empty() || !query.text("fieldSelector").is_empty();
    work::list(objects, 0, limit, selective, most)
}

fn write(api: &Arc<Api>, info: &RequestInfo, most: u32) -> Work {
    let exempt = info.subresource == "token" || info.group == "authorization.k8s.io" || info.group == "authentication.k8s.io";
    let found = api.registry.resource(&info.group, &info.version, &info.resource);
    let Some(resource) = found.filter(|r| !exempt && !r.storage_prefix.is_empty()) else { return Work::default() };
    let watches = api.cache(&resource).watchers(&info.namespace, &info.name);
    work::write(watches, most)
}
