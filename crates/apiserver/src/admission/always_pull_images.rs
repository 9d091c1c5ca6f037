//! Every image is pulled anew, so that nobody runs one that is there by chance and that they could not pull themselves.

use async_trait::async_trait;
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::pods::{containers, containers_mut, written};
use super::{Plugin, Request};

pub struct AlwaysPullImages;

#[async_trait]
impl Plugin for AlwaysPullImages {
    fn handles(&self, request: &Request<'_>) -> bool {
        written(request)
    }

    async fn mutate(&self, _request: &Request<'_>, value: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
        if old.is_some_and(|old| !brings_images(value, old)) {
            return Ok(());
        }
        for container in containers_mut(value) {
            container["imagePullPolicy"] = json!("Always");
        }
        let volumes = value.pointer_mut("/spec/volumes").and_then(Value::as_array_mut);
        for image in volumes.into_iter().flatten().filter_map(|v| v.get_mut("image")).filter(|i| i["reference"].as_str() > Some("")) {
            image["pullPolicy"] = json!("Always");
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        if old.is_some_and(|old| !brings_images(value, old)) {
            return Ok(());
        }
        for (path, container) in containers(value) {
            let policy = container["imagePullPolicy"].as_str().unwrap_or_default();
            if policy != "Always" {
                let why = format!("{path}.imagePullPolicy: Unsupported value: {policy:?}: supported values: \"Always\"");
                return Err(request.forbidden(value, &why));
            }
        }
        Ok(())
    }
}

/// Whether an update names an image that the pod did not have.
fn brings_images(new: &Value, old: &Value) -> bool {
    let known: Vec<&Value> = containers(old).map(|(_, c)| &c["image"]).collect();
    containers(new).any(|(_, c)| !known.contains(&&c["image"]))
}
