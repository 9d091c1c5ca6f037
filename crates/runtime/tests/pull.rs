//! Pulling from a registry on loopback, and what happens when the registry or the pod network misbehaves.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use cri::v1::*;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use runtime::{NetworkError, PodNetwork, SandboxNetwork};
use sha2::{Digest, Sha256};
use support::Rig;
use tokio::net::TcpListener;

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn layer(name: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder.append_data(&mut header, name, &b"x"[..]).unwrap();
    builder.into_inner().unwrap()
}

/// Serves `paths` (path to content type and body) and answers 404 to the rest. Ends with the test's runtime.
async fn registry(paths: HashMap<String, (&'static str, Vec<u8>)>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let paths = Arc::new(paths);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let paths = Arc::clone(&paths);
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let found = paths.get(request.uri().path()).cloned();
                async move {
                    Ok::<_, Infallible>(match found {
                        Some((kind, body)) => Response::builder()
                            .header("content-type", kind)
                            .header("docker-content-digest", digest(&body))
                            .body(Full::new(Bytes::from(body)))
                            .unwrap(),
                        None => Response::builder().status(404).body(Full::default()).unwrap(),
                    })
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    port
}

/// What the registry holds for `test/pulled:v1`; `damage` is done to the second layer's bytes.
fn contents(damage: bool) -> HashMap<String, (&'static str, Vec<u8>)> {
    let (low, high) = (layer("low"), layer("high"));
    let config = serde_json::json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [digest(&low), digest(&high)] } });
    let config = config.to_string().into_bytes();
    let descriptor = |kind: &str, bytes: &[u8]| serde_json::json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({ "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config), "layers": [descriptor(LAYER, &low), descriptor(LAYER, &high)] });
    let manifest = manifest.to_string().into_bytes();
    let (high_digest, mut high) = (digest(&high), high);
    if damage {
        high[0] ^= 1;
    }
    let mut paths = HashMap::from([("/v2/".to_owned(), ("application/json", b"{}".to_vec()))]);
    paths.insert("/v2/test/pulled/manifests/v1".into(), (MANIFEST, manifest));
    for (name, bytes) in [(digest(&low), low), (high_digest, high), (digest(&config), config)] {
        paths.insert(format!("/v2/test/pulled/blobs/{name}"), ("application/octet-stream", bytes));
    }
    paths
}

async fn pull(rig: &Rig, image: String) -> Result<String, tonic::Status> {
    let request = PullImageRequest { image: Some(ImageSpec { image, ..Default::default() }), ..Default::default() };
    rig.cri.images.clone().pull_image(request).await.map(|r| r.into_inner().image_ref)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_from_a_registry() {
    let Some(rig) = Rig::new().await else { return };
    let port = registry(contents(false)).await;
    let name = format!("localhost:{port}/test/pulled:v1");
    let id = pull(&rig, name.clone()).await.unwrap();
    let request = ImageStatusRequest { image: Some(ImageSpec { image: name, ..Default::default() }), verbose: false };
    let image = rig.cri.images.clone().image_status(request).await.unwrap().into_inner().image.unwrap();
    assert_eq!(image.id, id);
    assert!(image.repo_digests[0].starts_with(&format!("localhost:{port}/test/pulled@sha256:")));
    let stored = rig.handle.as_ref().unwrap().images();
    let layers = stored.layer_dirs(&stored.find(&id).unwrap());
    assert!(layers[0].join("low").exists() && layers[1].join("high").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_missing_image_is_an_error() {
    let Some(rig) = Rig::new().await else { return };
    let port = registry(contents(true)).await;
    for name in ["pulled:v1", "pulled:v2", "nosuch:v1"] {
        let error = pull(&rig, format!("localhost:{port}/test/{name}")).await.unwrap_err();
        assert!(!error.message().is_empty(), "{name}");
    }
    assert!(pull(&rig, "not a name".into()).await.unwrap_err().code() == tonic::Code::InvalidArgument);
    let stored = rig.handle.as_ref().unwrap().images();
    assert_eq!(stored.list().len(), 1, "only the guest image");
    assert_eq!(std::fs::read_dir(stored.dir().join("tmp")).unwrap().count(), 0);
}

/// A network that says no.
struct Broken;

#[async_trait::async_trait]
impl PodNetwork for Broken {
    async fn attach(&self, sandbox: &SandboxNetwork) -> Result<Vec<IpAddr>, NetworkError> {
        assert!(sandbox.netns.exists());
        Err("no addresses left".into())
    }

    async fn detach(&self, _: &SandboxNetwork) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn check(&self, _: &SandboxNetwork) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), NetworkError> {
        Err("no pod CIDR yet".into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_network_leaves_no_sandbox() {
    let Some(mut rig) = Rig::new().await else { return };
    rig.stop().await;
    rig.start_with(Arc::new(Broken)).await;
    let request = RunPodSandboxRequest { config: Some(rig.sandbox_config("nonet")), ..Default::default() };
    let error = rig.cri.runtime.clone().run_pod_sandbox(request).await.unwrap_err();
    assert!(error.message().contains("no addresses left"), "{error}");
    assert!(rig.cri.runtime.clone().list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner().items.is_empty());
    assert_eq!(std::fs::read_dir(rig.config.data_dir.join("sandboxes")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(rig.config.run_dir.join("shims")).unwrap().count(), 0);
    let status = rig.cri.runtime.clone().status(StatusRequest::default()).await.unwrap().into_inner().status.unwrap();
    let network = status.conditions.iter().find(|c| c.r#type == "NetworkReady").unwrap();
    assert_eq!((network.status, network.message.as_str()), (false, "no pod CIDR yet"));
}
