//! Finding and pulling images by pull policy, with upstream's events and reasons. Called by execute.

use std::time::{Duration, Instant};

use base64::Engine;
use cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use podsync::{Failure, Record};
use serde_json::Value;

use crate::kubelet::Node;
use crate::labels;

/// The image name with a tag, `latest` if it has neither tag nor digest; None when it is no image name.
pub fn with_tag(image: &str) -> Option<String> {
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let last = name.rsplit('/').next().unwrap_or_default();
    let (repository, tag) = match last.split_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
        None => (name, None),
    };
    let path =
        repository.split_once('/').filter(|(host, _)| host.contains(['.', ':']) || *host == "localhost").map_or(repository, |(_, p)| p);
    let part = |p: &str| !p.is_empty() && p.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c));
    let good_tag = tag.is_none_or(|t| !t.is_empty() && t.len() <= 128 && t.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)));
    if image.len() > 1024 || !path.split('/').all(part) || !good_tag || digest.is_some_and(|d| !d.contains(':')) {
        return None;
    }
    Some(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

/// The registry an image is pulled from, as dockerconfigjson names it.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// The credentials for a registry in a pull secret.
fn credentials(secret: &Secret, registry: &str) -> Option<v1::AuthConfig> {
    let data = secret.data.as_ref()?;
    let (auths, nested) = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
        (Some(d), _) => (serde_json::from_slice::<Value>(&d.0).ok()?, true),
        (None, Some(d)) => (serde_json::from_slice::<Value>(&d.0).ok()?, false),
        _ => return None,
    };
    let auths = if nested { auths.get("auths")?.clone() } else { auths };
    let matches = |key: &str| {
        let host = key.trim_start_matches("https://").trim_start_matches("http://").split('/').next().unwrap_or_default();
        host == registry || (registry == "docker.io" && host == "index.docker.io")
    };
    let (_, entry) = auths.as_object()?.iter().find(|(k, _)| matches(k))?;
    let text = |k: &str| entry.get(k).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut out = v1::AuthConfig {
        username: text("username"),
        password: text("password"),
        server_address: registry.to_owned(),
        ..Default::default()
    };
    if out.username.is_empty() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (user, password) = decoded.split_once(':')?;
        (out.username, out.password) = (user.to_owned(), password.to_owned());
    }
    Some(out)
}

async fn auth(node: &Node, pod: &Pod, image: &str) -> Option<v1::AuthConfig> {
    let (namespace, _, _) = labels::identity(pod);
    let mut missing = Vec::new();
    for reference in pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten()) {
        match node.objects.secret(namespace, &reference.name).get().await {
            Ok(Some(secret)) => {
                if let Some(found) = credentials(&secret, registry(image)) {
                    return Some(found);
                }
            }
            _ => missing.push(reference.name.clone()),
        }
    }
    if !missing.is_empty() {
        let text =
            format!("Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.", missing.join(", "));
        node.record(pod, &Record { warning: true, reason: "FailedToRetrieveImagePullSecret", message: text, container: None });
    }
    None
}

/// A duration as Go prints it to milliseconds.
fn shown(d: Duration) -> String {
    machinery::duration::text(Duration::from_millis(d.as_millis() as u64))
}

/// The ID of a container's image, present or pulled.
pub async fn ensure(node: &Node, pod: &Pod, c: &Container) -> Result<String, Failure> {
    let image = c.image.as_deref().unwrap_or_default();
    let tell = |warning, reason, message: String| node.record(pod, &Record { warning, reason, message, container: Some(c.name.clone()) });
    let Some(full) = with_tag(image) else {
        let text = format!("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: invalid reference format");
        tell(true, "InspectFailed", text.clone());
        return Err(Failure::new("InvalidImageName", text));
    };
    let spec = v1::ImageSpec { image: full.clone(), user_specified_image: image.to_owned(), ..Default::default() };
    let request = v1::ImageStatusRequest { image: Some(spec.clone()), verbose: false };
    let found = match node.cri.images.clone().image_status(request).await {
        Ok(answer) => answer.into_inner().image,
        Err(status) => {
            let text = format!("Failed to inspect image {image:?}: {}", error_text(&status));
            tell(true, "InspectFailed", text.clone());
            return Err(Failure::new("ImageInspectError", text));
        }
    };
    let latest = full.ends_with(":latest");
    let policy = c.image_pull_policy.as_deref().unwrap_or(if latest { "Always" } else { "IfNotPresent" });
    if let Some(found) = found.filter(|_| policy != "Always") {
        tell(false, "Pulled", format!("Container image {image:?} already present on machine and can be accessed by the pod"));
        return Ok(found.id);
    }
    if policy == "Never" {
        let text = format!("Container image {image:?} is not present with pull policy of Never");
        tell(true, "ErrImageNeverPull", text.clone());
        return Err(Failure::new("ErrImageNeverPull", text));
    }
    tell(false, "Pulling", format!("Pulling image {image:?}"));
    let start = Instant::now();
    let request = v1::PullImageRequest { image: Some(spec.clone()), auth: auth(node, pod, &full).await, sandbox_config: None };
    match node.cri.images.clone().pull_image(request).await {
        Ok(answer) => {
            let id = answer.into_inner().image_ref;
            let request = v1::ImageStatusRequest { image: Some(v1::ImageSpec { image: id.clone(), ..spec }), verbose: false };
            let size = node.cri.images.clone().image_status(request).await.ok().and_then(|a| a.into_inner().image).map_or(0, |i| i.size);
            let took = shown(start.elapsed());
            tell(
                false,
                "Pulled",
                format!("Successfully pulled image {image:?} in {took} ({took} including waiting). Image size: {size} bytes."),
            );
            Ok(id)
        }
        Err(status) => {
            let text = error_text(&status);
            tell(true, "Failed", format!("Failed to pull image {image:?}: {text}"));
            Err(Failure::new("ErrImagePull", text))
        }
    }
}

/// A gRPC error as Go prints it.
pub fn error_text(status: &tonic::Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names() {
        for (image, want) in [
            ("skiff/hello", Some("skiff/hello:latest")),
            ("a:1", Some("a:1")),
            ("host:5000/a/b", Some("host:5000/a/b:latest")),
            ("a@sha256:00", Some("a@sha256:00")),
            ("", None),
            ("Upper", None),
            ("a b", None),
            ("a:", None),
        ] {
            assert_eq!(with_tag(image).as_deref(), want, "{image}");
        }
        assert_eq!((registry("host:5000/a"), registry("library/a")), ("host:5000", "docker.io"));
    }

    #[test]
    fn pull_secrets() {
        let config = json!({"auths": {"https://r.example/v1/": {"auth": base64::engine::general_purpose::STANDARD.encode("u:p:w")}}});
        let data = base64::engine::general_purpose::STANDARD.encode(config.to_string());
        let secret: Secret = serde_json::from_value(json!({"data": {".dockerconfigjson": data}})).unwrap();
        let auth = credentials(&secret, "r.example").unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("u", "p:w"));
        assert!(credentials(&secret, "other").is_none());
    }
}
