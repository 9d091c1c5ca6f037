//! Plugins that do the same whatever comes: AlwaysAdmit lets everything pass, AlwaysDeny nothing.

use async_trait::async_trait;
use machinery::status::StatusError;
use serde_json::Value;

use super::{Plugin, Request};

pub struct AlwaysAdmit;

#[async_trait]
impl Plugin for AlwaysAdmit {
    fn handles(&self, _request: &Request<'_>) -> bool {
        false
    }
}

pub struct AlwaysDeny;

#[async_trait]
impl Plugin for AlwaysDeny {
    fn handles(&self, _request: &Request<'_>) -> bool {
        true
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        Err(request.forbidden(value, "admission control is denying all modifications"))
    }
}
