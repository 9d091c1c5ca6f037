//! Service account tokens of projected volumes: requested for the pod, renewed at four fifths of their life or a day.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use podsync::time::{after, since};
use serde_json::{Value, json};

use crate::kubelet::Node;
use crate::labels;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Tokens of one pod, by audience and path.
#[derive(Clone, Debug, Default)]
pub struct Tokens(BTreeMap<(String, String), (String, Timestamp)>);

impl Tokens {
    /// The token and when it is to be renewed.
    pub async fn get(&mut self, node: &Node, pod: &Pod, source: &ServiceAccountTokenProjection) -> Result<(String, Timestamp), String> {
        let key = (source.audience.clone().unwrap_or_default(), source.path.clone());
        let now = Timestamp::now();
        if let Some((token, renew)) = self.0.get(&key).filter(|(_, renew)| *renew > now) {
            return Ok((token.clone(), *renew));
        }
        let (namespace, name, uid) = labels::identity(pod);
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).filter(|n| !n.is_empty()).unwrap_or("default");
        let audiences: Vec<&String> = source.audience.iter().filter(|a| !a.is_empty()).collect();
        let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": source.expiration_seconds.unwrap_or(3600),
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid},
        }});
        let failed = |e: &dyn std::fmt::Display| format!("failed to fetch token: {e}");
        let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"))
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .map_err(|e| failed(&e))?;
        let answer: Value = node.client.request(request).await.map_err(|e| failed(&said(&e)))?;
        let text = |p: &str| answer.pointer(p).and_then(Value::as_str);
        let token = text("/status/token").ok_or_else(|| failed(&"the answer has no token"))?.to_owned();
        let expires = text("/status/expirationTimestamp").and_then(|t| t.parse::<Timestamp>().ok());
        let life = expires.map_or(Duration::from_secs(3600), |e| since(e, now));
        let renew = after(now, (life * 4 / 5).min(DAY));
        self.0.insert(key, (token.clone(), renew));
        Ok((token, renew))
    }
}

/// The server's own words, where there are any.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
