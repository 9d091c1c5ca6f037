//! Executes the actions of a plan: CRI calls, volumes, images, hooks. Each is one future that ends with the action's
//! result; nothing is decided here. Called by the pod's worker.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use podsync::downward::Facts;
use podsync::{Action, Failure, Record, env, service_env};

use crate::images::error_text;
use crate::kubelet::Node;
use crate::volumes::{self, Prepared, Tokens};
use crate::{container, dns, hooks, hosts, images, labels, sandbox};

/// Containers always get a moment to shut down.
const GRACE_SECONDS_MIN: i64 = 2;

/// What the actions of one pod share.
#[derive(Default)]
pub struct Shared {
    pub prepared: Mutex<Prepared>,
    pub tokens: tokio::sync::Mutex<Tokens>,
    pub ips: Mutex<Vec<String>>,
}

fn locked<T: Clone>(m: &Mutex<T>) -> T {
    m.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn find(pod: &Pod, name: &str) -> Option<Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name).cloned()
}

fn rpc(reason: &str) -> impl Fn(tonic::Status) -> Failure {
    move |status| Failure::new(reason, error_text(&status))
}

/// What is already gone is well stopped and removed.
fn gone_is_fine<T>(result: Result<tonic::Response<T>, tonic::Status>) -> Result<String, Failure> {
    match result {
        Ok(_) => Ok(String::new()),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(String::new()),
        Err(status) => Err(Failure::new("KillContainerError", error_text(&status))),
    }
}

pub async fn execute(node: Arc<Node>, pod: Arc<Pod>, shared: Arc<Shared>, action: &Action) -> Result<String, Failure> {
    let mut runtime = node.cri.runtime.clone();
    match action {
        Action::PrepareVolumes => prepare(&node, &pod, &shared).await,
        Action::EnsureImage { container } => match find(&pod, container) {
            Some(c) => images::ensure(&node, &pod, &c).await,
            None => Err(Failure::new("ImageInspectError", "no such container")),
        },
        Action::CreateSandbox { attempt } => create_sandbox(&node, &pod, *attempt).await,
        Action::StopSandbox { id } => {
            gone_is_fine(runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await)
        }
        Action::RemoveSandbox { id } => {
            gone_is_fine(runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await)?;
            gone_is_fine(runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: id.clone() }).await)
        }
        Action::StartContainer { container, sandbox, attempt, image_id } => {
            start(&node, &pod, &shared, container, sandbox, *attempt, image_id).await
        }
        Action::PostStart { container, id } => {
            let c = find(&pod, container).unwrap_or_default();
            let Some(hook) = c.lifecycle.as_ref().and_then(|l| l.post_start.clone()) else { return Ok(String::new()) };
            let ip = locked(&shared.ips).first().cloned().unwrap_or_default();
            hooks::run(&node, &ip, &c, id, &hook).await.map(|()| String::new()).map_err(|e| Failure::new("PostStartHookError", e))
        }
        Action::StopContainer { container, id, grace_seconds, pre_stop } => {
            stop(&node, &pod, &shared, container, id, *grace_seconds, *pre_stop).await
        }
        Action::RemoveContainer { id } => {
            gone_is_fine(runtime.remove_container(v1::RemoveContainerRequest { container_id: id.clone() }).await)
        }
        Action::CleanUp => {
            let dir = node.config.pod_dir(labels::identity(&pod).2);
            let removed = tokio::task::spawn_blocking(move || volumes::remove(&dir)).await;
            removed
                .map_err(|e| e.to_string())
                .and_then(|r| r.map_err(|e| e.to_string()))
                .map(|()| String::new())
                .map_err(|e| Failure::new("CleanUp", e))
        }
        Action::DeletePod => delete(&node, &pod).await,
        Action::Probe { .. } | Action::Record(_) | Action::Finished => Ok(String::new()),
    }
}

async fn prepare(node: &Node, pod: &Pod, shared: &Shared) -> Result<String, Failure> {
    let ips = locked(&shared.ips);
    let mut tokens = shared.tokens.lock().await;
    let prepared = volumes::prepare(node, pod, &ips, &mut tokens).await.map_err(|e| Failure::new("FailedMount", e))?;
    *shared.prepared.lock().unwrap_or_else(PoisonError::into_inner) = prepared;
    Ok(String::new())
}

async fn create_sandbox(node: &Node, pod: &Pod, attempt: u32) -> Result<String, Failure> {
    let host_dns = read_dns(node).await;
    let (config, warnings) = sandbox::config(&node.config, pod, &host_dns, attempt);
    for (reason, message) in warnings {
        node.record(pod, &Record { warning: true, reason, message, container: None });
    }
    let dir = PathBuf::from(&config.log_directory);
    tokio::fs::create_dir_all(&dir).await.map_err(|e| Failure::new("CreatePodSandboxError", format!("{}: {e}", dir.display())))?;
    let handler = pod.spec.as_ref().and_then(|s| s.runtime_class_name.clone()).unwrap_or_default();
    let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
    let answer = node.cri.runtime.clone().run_pod_sandbox(request).await.map_err(rpc("CreatePodSandboxError"))?;
    Ok(answer.into_inner().pod_sandbox_id)
}

async fn read_dns(node: &Node) -> v1::DnsConfig {
    match tokio::fs::read_to_string(&node.config.resolv_conf).await {
        Ok(text) => dns::parse(&text),
        Err(error) => {
            tracing::debug!(path = %node.config.resolv_conf.display(), %error, "no resolv.conf to inherit from");
            v1::DnsConfig::default()
        }
    }
}

async fn environment(node: &Node, pod: &Pod, c: &Container, ips: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let bad = |e: String| Failure::new("CreateContainerConfigError", e);
    let (namespace, _, _) = labels::identity(pod);
    let (map_names, secret_names) = env::references(pod);
    let (mut maps, mut secrets) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    for name in map_names {
        if let Some(found) = node.objects.config_map(namespace, &name).get().await.map_err(bad)? {
            maps.insert(name, (*found).clone());
        }
    }
    for name in secret_names {
        if let Some(found) = node.objects.secret(namespace, &name).get().await.map_err(bad)? {
            secrets.insert(name, (*found).clone());
        }
    }
    if !node.services.has_synced() {
        let waited = tokio::time::timeout(Duration::from_secs(10), node.services.synced()).await;
        if !matches!(waited, Ok(Ok(()))) {
            return Err(bad("services have not yet been read at least once, cannot construct envvars".to_owned()));
        }
    }
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links) != Some(false);
    let services = node.services.list();
    let variables = service_env::variables(services.iter().map(|s| &**s), namespace, links);
    let facts = Facts { host_ips: node.ips.clone(), pod_ips: ips.to_vec(), allocatable_milli: node.allocatable_milli.clone() };
    let sources = env::Sources { config_map: &|n| maps.get(n).cloned(), secret: &|n| secrets.get(n).cloned() };
    env::environment(pod, c, &variables, &sources, &facts).map_err(bad)
}

async fn start(
    node: &Arc<Node>,
    pod: &Arc<Pod>,
    shared: &Shared,
    name: &str,
    sandbox_id: &str,
    attempt: u32,
    image_id: &str,
) -> Result<String, Failure> {
    let c = find(pod, name).ok_or_else(|| Failure::new("CreateContainerError", "no such container"))?;
    let ips = locked(&shared.ips);
    let env = environment(node, pod, &c, &ips).await?;
    let spec = v1::ImageSpec { image: image_id.to_owned(), ..Default::default() };
    let request = v1::ImageStatusRequest { image: Some(spec), verbose: false };
    let image =
        node.cri.images.clone().image_status(request).await.map_err(rpc("CreateContainerError"))?.into_inner().image.unwrap_or_default();
    let (namespace, pod_name, uid) = labels::identity(pod);
    let pod_dir = node.config.pod_dir(uid);
    let log_dir = node.config.pod_log_dir(namespace, pod_name, uid).join(name);
    let (short, domain) = hosts::names(pod, &node.config.node_name, &node.config.cluster_domain);
    let volumes = locked(&shared.prepared).paths;
    let (pod2, image_id, memory) = (pod.clone(), image_id.to_owned(), node.memory_bytes);
    let make = move || -> Result<v1::ContainerConfig, Failure> {
        let broken = |e: std::io::Error| Failure::new("CreateContainerError", e.to_string());
        std::fs::create_dir_all(&log_dir).map_err(broken)?;
        let node_file = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        std::fs::write(pod_dir.join("etc-hosts"), hosts::file(&pod2, &ips, &short, &domain, &node_file)).map_err(broken)?;
        container::config(&container::Inputs {
            pod: &pod2,
            container: &c,
            attempt,
            image_id: &image_id,
            image_uid: image.uid.map(|u| u.value),
            image_user: &image.username,
            env,
            volumes: &volumes,
            pod_dir: &pod_dir,
            node_memory_bytes: memory,
        })
    };
    let config = tokio::task::spawn_blocking(make).await.map_err(|e| Failure::new("CreateContainerError", e.to_string()))??;
    let (sandbox_config, _) = sandbox::config(&node.config, pod, &read_dns(node).await, 0);
    let request =
        v1::CreateContainerRequest { pod_sandbox_id: sandbox_id.to_owned(), config: Some(config), sandbox_config: Some(sandbox_config) };
    let mut runtime = node.cri.runtime.clone();
    let id = runtime.create_container(request).await.map_err(rpc("CreateContainerError"))?.into_inner().container_id;
    runtime.start_container(v1::StartContainerRequest { container_id: id.clone() }).await.map_err(rpc("RunContainerError"))?;
    Ok(id)
}

async fn stop(node: &Node, pod: &Pod, shared: &Shared, name: &str, id: &str, grace: i64, pre_stop: bool) -> Result<String, Failure> {
    let begun = Instant::now();
    let c = find(pod, name).unwrap_or_default();
    if let Some(hook) = c.lifecycle.as_ref().and_then(|l| l.pre_stop.clone()).filter(|_| pre_stop) {
        let ip = locked(&shared.ips).first().cloned().unwrap_or_default();
        let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        if let Ok(Err(error)) = tokio::time::timeout(limit, hooks::run(node, &ip, &c, id, &hook)).await {
            tracing::info!(container = name, %error, "preStop hook");
            let message = "PreStopHook failed".to_owned();
            node.record(pod, &Record { warning: true, reason: "FailedPreStopHook", message, container: Some(name.to_owned()) });
        }
    }
    let spent = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
    let timeout = grace.saturating_sub(spent).max(GRACE_SECONDS_MIN);
    gone_is_fine(node.cri.runtime.clone().stop_container(v1::StopContainerRequest { container_id: id.to_owned(), timeout }).await)
}

async fn delete(node: &Node, pod: &Pod) -> Result<String, Failure> {
    let (namespace, name, uid) = labels::identity(pod);
    let pods: Api<Pod> = Api::namespaced(node.client.clone(), namespace);
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
    match pods.delete(name, &params).await {
        Ok(_) => Ok(String::new()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(String::new()),
        Err(error) => Err(Failure::new("DeletePod", error.to_string())),
    }
}
