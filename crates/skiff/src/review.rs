//! Asks the API server whether somebody may do something, as upstream's components do that leave authorization to it. Called by
//! what serves requests of others: the kubelet's server, and the components that tell of themselves.

use anyhow::Result;
use client::Client;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

/// Whether what a SubjectAccessReview's `spec` says is allowed. An error: nobody knows.
pub async fn is_allowed(client: &Client, spec: &Value) -> Result<bool> {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": spec});
    let review: SubjectAccessReview = serde_json::from_value(review)?;
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
