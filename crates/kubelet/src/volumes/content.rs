//! What configMap, secret, downwardAPI and projected volumes hold, with upstream's messages.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, SecretProjection, Volume, VolumeProjection};
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
        let wanted = Wanted { name: &s.name, items: s.items.as_deref(), optional: s.optional, default_mode: s.default_mode };
        config_map(node, namespace, &wanted, &mut out).await?;
        return Ok(Some(("configmap", out)));
    }
    if let Some(s) = &volume.secret {
        let name = s.secret_name.as_deref().unwrap_or_default();
        let wanted = Wanted { name, items: s.items.as_deref(), optional: s.optional, default_mode: s.default_mode };
        secret(node, namespace, &wanted, &mut out).await?;
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
        let wanted = Wanted { name: &s.name, items: s.items.as_deref(), optional: s.optional, default_mode };
        config_map(node, namespace, &wanted, out).await?;
    }
    if let Some(SecretProjection { items, name, optional }) = &source.secret {
        let wanted = Wanted { name, items: items.as_deref(), optional: *optional, default_mode };
        secret(node, namespace, &wanted, out).await?;
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

/// Which keys of a ConfigMap or a Secret become files.
struct Wanted<'a> {
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    optional: Option<bool>,
    default_mode: Option<i32>,
}

type Content<'a> = BTreeMap<&'a str, &'a [u8]>;

async fn config_map(node: &Node, namespace: &str, wanted: &Wanted<'_>, out: &mut Payload) -> Result<(), String> {
    let found = node.objects.config_map(namespace, wanted.name).get().await?;
    let content = found.as_deref().map(|map| {
        let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
        let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
        binary.chain(text).collect()
    });
    project(content, "configmap", "config", wanted, out)
}

async fn secret(node: &Node, namespace: &str, wanted: &Wanted<'_>, out: &mut Payload) -> Result<(), String> {
    let found = node.objects.secret(namespace, wanted.name).get().await?;
    let content = found.as_deref().map(|s| s.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())).collect());
    project(content, "secret", "secret", wanted, out)
}

/// `kind` and `short`: how errors call it.
fn project(content: Option<Content<'_>>, kind: &str, short: &str, wanted: &Wanted<'_>, out: &mut Payload) -> Result<(), String> {
    let is_optional = wanted.optional == Some(true);
    let Some(content) = content else {
        return if is_optional { Ok(()) } else { Err(format!("{kind} {:?} not found", wanted.name)) };
    };
    let Some(items) = wanted.items.filter(|i| !i.is_empty()) else {
        out.extend(content.iter().map(|(key, value)| ((*key).to_owned(), (value.to_vec(), mode(None, wanted.default_mode)))));
        return Ok(());
    };
    for item in items {
        match content.get(item.key.as_str()) {
            Some(value) => {
                out.insert(item.path.clone(), (value.to_vec(), mode(item.mode, wanted.default_mode)));
            }
            None if is_optional => {}
            None => return Err(format!("{kind} references non-existent {short} key: {}", item.key)),
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
