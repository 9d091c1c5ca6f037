//! Everything that is no resource: version, health, metrics, discovery, OpenAPI, the token issuer's documents.

use http::{Method, Request};
use machinery::status::StatusError;
use serde_json::{Value, json};

use crate::chain::Call;
use crate::http::RequestBody;
use crate::http::negotiate;
use crate::http::respond::{self, Answer};
use crate::metrics::{collect, table};
use crate::{discovery, flow, health, openapi, pages};

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

pub async fn serve(call: Call, _request: Request<RequestBody>) -> Result<Answer, StatusError> {
    let path = call.info.path.clone();
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Ok(method_not_allowed(&path));
    }
    let trimmed = if path.len() > 1 { path.trim_end_matches('/') } else { &path };
    Ok(match trimmed {
        "/" => respond::value(200, &call.negotiated, &json!({"paths": paths(&call)})),
        "/version" => respond::value(200, &call.negotiated, &version()),
        "/metrics" => respond::bytes(200, METRICS_TYPE, collect::text(&call.api)),
        "/metrics/slis" => respond::bytes(200, METRICS_TYPE, call.api.metrics.text_of(&[&table::HEALTHCHECK, &table::HEALTHCHECKS])),
        "/configz" | "/flagz" | "/statusz" => pages::serve(&call, trimmed),
        p if let Some(dump) = p.strip_prefix("/debug/api_priority_and_fairness/") => Some(dump)
            .filter(|_| call.api.flow.enabled)
            .and_then(|d| flow::debug::serve(&call.api.flow, d))
            .unwrap_or_else(respond::page_not_found),
        "/healthz" | "/livez" | "/readyz" => health::serve(&call, trimmed, None).await,
        "/.well-known/openid-configuration" => openid(&call).await,
        "/openid/v1/jwks" if !takes_key_sets(&call) => {
            return Err(StatusError { details: None, ..StatusError::new(406, "NotAcceptable", "406: Not Acceptable") });
        }
        "/openid/v1/jwks" => respond::bytes(200, "application/jwk-set+json", call.api.pki.service_account().await.jwks().to_string()),
        p if p.starts_with("/healthz/") || p.starts_with("/livez/") || p.starts_with("/readyz/") => {
            let at = p[1..].find('/').map_or(p.len(), |i| i + 1);
            health::serve(&call, &p[..at], Some(&p[at + 1..])).await
        }
        p if p == "/openapi/v2" || p == "/openapi/v3" || p.starts_with("/openapi/v3/") => openapi::serve(&call, p).await,
        p if p == "/api" || p == "/apis" || p.starts_with("/api/") || p.starts_with("/apis/") => discovery::serve(&call, p),
        _ => respond::page_not_found(),
    })
}

/// The name a path is counted by in metrics; `None`: nobody serves it.
pub fn counted_as(path: &str) -> Option<&'static str> {
    const KNOWN: [&str; 12] = [
        "/healthz",
        "/livez",
        "/readyz",
        "/metrics",
        "/metrics/slis",
        "/version",
        "/openapi/v2",
        "/openapi/v3",
        "/api",
        "/apis",
        "/statusz",
        "/flagz",
    ];
    let known = KNOWN.into_iter().find(|k| *k == path.trim_end_matches('/'))?;
    // Discovery has no name of its own.
    Some(if known.starts_with("/api") { "" } else { known })
}

fn method_not_allowed(_path: &str) -> Answer {
    respond::page_not_found()
}

/// What this server says it is. Clients compare `major`, `minor` and `gitVersion`.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": concat!("v1.36.2+skiff-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc", "platform": concat!("linux/", "amd64"),
    })
}

async fn openid(call: &Call) -> Answer {
    let base = format!("https://{}", std::net::SocketAddr::new(call.api.config.advertised(), call.api.port));
    let given = &call.api.config.authentication.service_account.jwks_uri;
    let document = json!({
        "issuer": call.api.config.service_account_issuer,
        "jwks_uri": if given.is_empty() { format!("{base}/openid/v1/jwks") } else { given.clone() },
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": call.api.pki.service_account().await.algorithms(),
    });
    respond::bytes(200, "application/json", document.to_string())
}

/// The key set has a type of its own, and who asks for others gets none.
fn takes_key_sets(call: &Call) -> bool {
    let accept: Vec<&str> = call.headers.get_all(http::header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let kinds = ["*/*", "application/*", "application/jwk-set+json"];
    accept.is_empty() || negotiate::kinds(&accept.join(",")).iter().any(|kind| kinds.contains(kind))
}

fn paths(call: &Call) -> Vec<String> {
    let mut paths: Vec<String> =
        vec!["/.well-known/openid-configuration".into(), "/api".into(), "/api/v1".into(), "/apis".into(), "/apis/".into()];
    for gv in call.api.registry.snapshot().group_versions().iter().filter(|gv| !gv.group.is_empty()) {
        paths.push(format!("/apis/{}", gv.group));
        paths.push(format!("/apis/{gv}"));
    }
    paths.extend(health::paths(&call.api));
    paths.extend(
        ["/flagz", "/metrics", "/metrics/slis", "/openapi/v2", "/openapi/v3", "/openapi/v3/", "/openid/v1/jwks", "/statusz", "/version"]
            .map(str::to_owned),
    );
    paths.sort();
    paths.dedup();
    paths
}
