//! Requests for resources: finds the row of the table and hands on to the one implementation of each verb.

mod columns;
mod component_status;
pub mod delete;
mod get;
#[cfg(test)]
mod guards;
pub mod list;
pub mod options;
pub mod page;
mod selection;
#[cfg(test)]
mod tests;
pub mod view;
mod watch;
pub mod write;

use std::sync::Arc;

use http::Request;
use kinds::Resource;
use machinery::status::StatusError;

use crate::chain::Call;
use crate::http::RequestBody;
use crate::http::respond::{self, Answer};
use crate::registry;
use crate::sub;

/// What a request is about.
#[derive(Clone)]
pub struct Target {
    pub resource: Arc<Resource>,
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
}

impl Target {
    pub fn key(&self) -> String {
        registry::key(&self.resource, &self.namespace, &self.name)
    }

    pub fn not_found(&self) -> StatusError {
        StatusError::not_found(&self.resource.missing_resource(), &self.name)
    }

    /// The same place with another name.
    pub fn named(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }
}

pub async fn serve(call: Call, request: Request<RequestBody>) -> Result<Answer, StatusError> {
    let info = &call.info;
    let found = match call.api.registry.resource(&info.group, &info.version, &info.resource) {
        None if !info.group.is_empty() => call.api.definitions.awaited(&call.api.registry, info).await,
        found => found,
    };
    let Some(resource) = found else {
        let known = kinds::table().group_versions().iter().any(|gv| gv.group == info.group);
        return if known { Err(no_such_resource()) } else { Ok(respond::page_not_found()) };
    };
    find(call, request, resource).await
}

async fn find(call: Call, request: Request<RequestBody>, resource: Arc<Resource>) -> Result<Answer, StatusError> {
    let info = &call.info;
    // Upstream's router knows no HEAD.
    if request.method() == http::Method::HEAD {
        return Err(not_allowed());
    }
    // A Namespace is its own namespace in paths, but not in keys.
    let namespace = if resource.namespaced { info.namespace.clone() } else { String::new() };
    let misplaced = (!resource.namespaced && !info.namespace.is_empty() && info.parts.first() != Some(&"namespaces".to_owned()))
        || (resource.namespaced && namespace.is_empty() && !info.name.is_empty() && info.parts.len() > 1);
    if misplaced {
        // Upstream's router does not know of custom resources.
        return if resource.custom.is_some() { Ok(respond::page_not_found()) } else { Err(no_such_resource()) };
    }
    let name = if info.parts.len() > 1 || matches!(info.verb.as_str(), "get" | "update" | "patch" | "delete") {
        info.name.clone()
    } else {
        String::new()
    };
    let target = Target { resource, namespace, name, subresource: info.subresource.clone() };
    if !target.subresource.is_empty() {
        return sub::serve(call, request, target).await;
    }
    if !target.resource.verbs.contains(&info.verb) {
        return if sub::review::is(&target.resource) && info.verb == "create" {
            sub::review::create(call, request, target).await
        } else {
            Err(not_allowed())
        };
    }
    // A path that names a namespace, though an empty one, is taken; validation misses the name then.
    let nowhere = target.resource.namespaced && target.namespace.is_empty() && !info.path.contains("/namespaces//");
    if info.verb == "create" && nowhere && !sub::review::is(&target.resource) {
        return Err(not_allowed());
    }
    if target.name.is_empty() && matches!(info.verb.as_str(), "update" | "patch") {
        return Err(not_allowed());
    }
    let componentstatus = component_status::is(&target.resource);
    match info.verb.as_str() {
        "get" if componentstatus => component_status::get(call, target).await,
        "list" if componentstatus => component_status::list(call, target).await,
        "get" => get::get(call, target).await,
        "list" => list::list(call, target).await,
        "watch" => watch::watch(call, target).await,
        "create" if sub::review::is(&target.resource) => sub::review::create(call, request, target).await,
        "create" => write::create::serve(call, request, target).await,
        "update" | "patch" => write::update::serve(call, request, target).await,
        "delete" => delete::one(call, request, target).await,
        "deletecollection" => delete::collection(call, request, target).await,
        _ => Err(not_allowed()),
    }
}

/// The 404 of upstream's router.
pub fn no_such_resource() -> StatusError {
    StatusError { details: Some(Box::default()), ..StatusError::new(404, "NotFound", "the server could not find the requested resource") }
}

/// The 405 of upstream's router.
pub fn not_allowed() -> StatusError {
    StatusError {
        details: Some(Box::default()),
        ..StatusError::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }
}
