//! Pulling from a registry with `oci-client`: blobs to a temporary directory, three at a time, then the same path as `load`.

use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use super::ImageError;
use super::reference::{normalize, repository};
use super::store::{Image, Images, LayerSource};

/// Who pulls.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    #[default]
    Anonymous,
    Basic(String, String),
    Bearer(String),
}

const PARALLEL: usize = 3;

fn client(images: &Images) -> Client {
    // Loopback registries are spoken to in the clear, as upstream runtimes do.
    let mut plain: Vec<String> = images.insecure_registries().to_vec();
    plain.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
    Client::new(ClientConfig { protocol: ClientProtocol::HttpsExcept(plain), ..Default::default() })
}

/// `HttpsExcept` compares whole `host:port` names: adds this one when it is on loopback.
fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(registry, |(host, _)| host);
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub async fn pull(images: &Images, name: &str, credentials: Credentials) -> Result<Image, ImageError> {
    // The image that ships inside the binary has no registry: what is here is all there is of it.
    if let Some(image) = images.find(name).filter(|i| i.pinned) {
        return Ok(image);
    }
    let reference = normalize(name)?;
    let failed = |reason: String| ImageError::Pull { image: reference.whole(), reason };
    let client = if is_loopback(reference.registry()) {
        Client::new(ClientConfig { protocol: ClientProtocol::Http, ..Default::default() })
    } else {
        client(images)
    };
    let auth = match credentials {
        Credentials::Anonymous => RegistryAuth::Anonymous,
        Credentials::Basic(user, password) => RegistryAuth::Basic(user, password),
        Credentials::Bearer(token) => RegistryAuth::Bearer(token),
    };
    let (manifest, digest, config) = client.pull_manifest_and_config(&reference, &auth).await.map_err(|e| failed(e.to_string()))?;
    if manifest.layers.len() > images.limits().layers_max {
        return Err(ImageError::TooLarge(format!("it has {} layers", manifest.layers.len())));
    }
    let temporary = images.temporary()?;
    // `buffered` keeps the manifest's order, whichever blob comes first.
    let sources: Vec<LayerSource> = futures::stream::iter(manifest.layers.into_iter().enumerate())
        .map(|(number, layer)| fetch(&client, &reference, layer, temporary.0.join(number.to_string())))
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    let tags: Vec<String> = reference.tag().is_some().then(|| reference.whole()).into_iter().filter(|t| !t.contains('@')).collect();
    let digests = vec![format!("{}@{digest}", repository(&reference))];
    let images = images.clone();
    let installed = tokio::task::spawn_blocking(move || {
        let image = images.install(config.as_bytes(), &sources, &tags, &digests, false);
        drop(temporary);
        image
    });
    installed.await.map_err(|e| failed(e.to_string()))?
}

async fn fetch(client: &Client, reference: &Reference, layer: OciDescriptor, path: PathBuf) -> Result<LayerSource, ImageError> {
    let file = tokio::fs::File::create_new(&path).await.map_err(ImageError::io("store a layer"))?;
    client
        .pull_blob(reference, &layer, file)
        .await
        .map_err(|e| ImageError::Pull { image: reference.whole(), reason: format!("layer {}: {e}", layer.digest) })?;
    Ok(LayerSource { file: path, digest: Some(layer.digest) })
}
