//! What configMap, secret, downwardAPI and projected volumes hold, with upstream's messages.

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, SecretProjection, Volume, VolumeProjection};
use podsync::downward::{self, Facts};

use super::Tokens;
use super::atomic::Payload;
use crate::kubelet::Node;
use crate::labels;

type Renew = Option<jiff::Timestamp>;

fn mode(m: Option<i32>, default: Option<i32>) -> u32 {
    m.or(default).and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644) & 0o777
}

/// The plugin's name and the files, if the volume is of one of these kinds.
pub async fn payload(
    node: &Node,
    pod: &Pod,
    volume: &Volume,
    ips: &[String],
    tokens: &mut Tokens,
    renew_at: &mut Renew,
) -> Result<Option<(&'static str, Payload)>, String> {
    let (namespace, _, _) = labels::identity(pod);
    let mut out = Payload::new();
    if let Some(s) = &volume.config_map {
        config_map(node, namespace, &s.name, s.items.as_deref(), s.optional, s.default_mode, &mut out).await?;
        return Ok(Some(("configmap", out)));
    }
    if let Some(s) = &volume.secret {
        let name = s.secret_name.as_deref().unwrap_or_default();
        secret(node, namespace, name, s.items.as_deref(), s.optional, s.default_mode, &mut out).await?;
        return Ok(Some(("secret", out)));
    }
    if let Some(s) = &volume.downward_api {
        downward_api(node, pod, s.items.as_deref().unwrap_or_default(), s.default_mode, ips, &mut out)?;
        return Ok(Some(("downward-api", out)));
    }
    if let Some(s) = &volume.projected {
        for source in s.sources.iter().flatten() {
            projection(node, pod, source, s.default_mode, ips, tokens, renew_at, &mut out).await?;
        }
        return Ok(Some(("projected", out)));
    }
    Ok(None)
}

#[expect(clippy::too_many_arguments, reason = "one projection needs all of the volume's context")]
async fn projection(
    node: &Node,
    pod: &Pod,
    source: &VolumeProjection,
    default_mode: Option<i32>,
    ips: &[String],
    tokens: &mut Tokens,
    renew_at: &mut Renew,
    out: &mut Payload,
) -> Result<(), String> {
    let (namespace, _, _) = labels::identity(pod);
    if let Some(s) = &source.config_map {
        config_map(node, namespace, &s.name, s.items.as_deref(), s.optional, default_mode, out).await?;
    }
    if let Some(SecretProjection { items, name, optional }) = &source.secret {
        secret(node, namespace, name, items.as_deref(), *optional, default_mode, out).await?;
    }
    if let Some(s) = &source.downward_api {
        downward_api(node, pod, s.items.as_deref().unwrap_or_default(), default_mode, ips, out)?;
    }
    if let Some(s) = &source.service_account_token {
        let (token, renew) = tokens.get(node, pod, s).await?;
        *renew_at = podsync::time::earliest(*renew_at, Some(renew));
        let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        // Anyone who may run as another user must be able to read it, others not.
        let private = super::atomic::Owner::of(pod).is_set() || context.and_then(|c| c.fs_group).is_some();
        out.insert(s.path.clone(), (token.into_bytes(), if private { 0o600 } else { mode(None, default_mode) }));
    }
    Ok(())
}

async fn config_map(
    node: &Node,
    namespace: &str,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    default_mode: Option<i32>,
    out: &mut Payload,
) -> Result<(), String> {
    let found = node.objects.config_map(namespace, name).get().await?;
    let Some(map) = found else {
        return if optional == Some(true) { Ok(()) } else { Err(format!("configmap {name:?} not found")) };
    };
    let get = |key: &str| bytes_of(&map, key);
    let keys = map.data.iter().flat_map(|d| d.keys()).chain(map.binary_data.iter().flat_map(|d| d.keys()));
    project(&get, keys, items, optional, default_mode, "configmap", out)
}

fn bytes_of(map: &ConfigMap, key: &str) -> Option<Vec<u8>> {
    let text = map.data.as_ref().and_then(|d| d.get(key)).map(|v| v.clone().into_bytes());
    text.or_else(|| map.binary_data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.clone()))
}

async fn secret(
    node: &Node,
    namespace: &str,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    default_mode: Option<i32>,
    out: &mut Payload,
) -> Result<(), String> {
    let found = node.objects.secret(namespace, name).get().await?;
    let Some(secret) = found else {
        return if optional == Some(true) { Ok(()) } else { Err(format!("secret {name:?} not found")) };
    };
    let secret: &Secret = &secret;
    let get = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.clone());
    project(&get, secret.data.iter().flat_map(|d| d.keys()), items, optional, default_mode, "secret", out)
}

fn project<'a>(
    get: &dyn Fn(&str) -> Option<Vec<u8>>,
    keys: impl Iterator<Item = &'a String>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    default_mode: Option<i32>,
    kind: &str,
    out: &mut Payload,
) -> Result<(), String> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        out.extend(keys.filter_map(|k| get(k).map(|v| (k.clone(), (v, mode(None, default_mode))))));
        return Ok(());
    };
    for item in items {
        match get(&item.key) {
            Some(v) => {
                out.insert(item.path.clone(), (v, mode(item.mode, default_mode)));
            }
            None if optional == Some(true) => {}
            None => {
                return Err(format!(
                    "{kind} references non-existent {} key: {}",
                    if kind == "secret" { "secret" } else { "config" },
                    item.key
                ));
            }
        }
    }
    Ok(())
}

fn downward_api(
    node: &Node,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    ips: &[String],
    out: &mut Payload,
) -> Result<(), String> {
    let facts = Facts { host_ips: node.ips.clone(), pod_ips: ips.to_vec(), allocatable_milli: node.allocatable_milli.clone() };
    for item in items {
        let text = if let Some(f) = &item.field_ref {
            downward::field(&f.field_path, pod, &facts)?
        } else if let Some(r) = &item.resource_field_ref {
            let name = r.container_name.as_deref().unwrap_or_default();
            let spec = pod.spec.as_ref();
            let c = spec.and_then(|s| s.containers.iter().chain(s.init_containers.iter().flatten()).find(|c| c.name == name));
            downward::resource(r, c.ok_or_else(|| format!("container {name:?} not found"))?, &facts)?
        } else {
            continue;
        };
        out.insert(item.path.clone(), (text.into_bytes(), mode(item.mode, default_mode)));
    }
    Ok(())
}
