//! Requests as upstream's typed clients make them: built-in kinds are sent and taken as protobuf, whatever has no such form as JSON.

use anyhow::{Context, Result, bail};
use http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use kube::client::Body;
use machinery::gvk::GroupVersion;
use machinery::proto;
use machinery::schema::TypeId;
use serde_json::Value;

use crate::Cluster;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn type_of(api_version: &str, kind: &str) -> Option<TypeId> {
    kinds::table().type_of(&GroupVersion::parse(api_version).ok()?.kind(kind))
}

impl Cluster {
    /// A request to the API server. An object goes there and comes back as protobuf; a failure is an error with the server's words.
    pub fn typed(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let bytes = match body {
            None => Vec::new(),
            Some(value) => {
                let text = |key: &str| value[key].as_str().unwrap_or_default();
                let ty = type_of(text("apiVersion"), text("kind")).with_context(|| format!("no type of {value}"))?;
                proto::to_envelope(kinds::types(), ty, value)
            }
        };
        let request = http::Request::builder().method(method).uri(path).header(ACCEPT, format!("{PROTOBUF},application/json"));
        let request = request.header(CONTENT_TYPE, PROTOBUF).body(Body::from(bytes))?;
        let (code, kind, bytes) = self.with_client(|client| async move {
            let answer = client.send(request).await?;
            let kind = answer.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            let code = answer.status();
            Ok((code, kind, answer.into_body().collect().await?.to_bytes()))
        })?;
        if kind != PROTOBUF {
            bail!("{method} {path}: {code}, and the answer is {kind}: {}", String::from_utf8_lossy(&bytes));
        }
        let envelope = proto::open(&bytes)?;
        let ty = type_of(&envelope.api_version, &envelope.kind).with_context(|| format!("an answer of kind {}", envelope.kind))?;
        let mut value = proto::from_message(kinds::types(), ty, envelope.raw)?;
        (value["apiVersion"], value["kind"]) = (envelope.api_version.into(), envelope.kind.into());
        if !code.is_success() {
            bail!("{code}: {}: {}", value["reason"].as_str().unwrap_or_default(), value["message"].as_str().unwrap_or_default());
        }
        Ok(value)
    }
}
