//! A CRI server in memory: sandboxes and containers are entries, a test says when one ends. Serves on a unix socket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use cri::v1;
use cri::v1::image_service_server::{ImageService, ImageServiceServer};
use cri::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Clone)]
pub struct Container {
    pub sandbox: String,
    pub config: v1::ContainerConfig,
    pub status: v1::ContainerStatus,
}

#[derive(Default)]
pub struct State {
    pub sandboxes: BTreeMap<String, v1::PodSandboxStatus>,
    pub configs: BTreeMap<String, v1::PodSandboxConfig>,
    pub containers: BTreeMap<String, Container>,
    pub images: Vec<String>,
    /// Every call that changes something.
    pub calls: Vec<String>,
    /// What exec probes exit with, by container name.
    pub exec: BTreeMap<String, i32>,
    /// What exec answers, and what it was asked.
    pub streaming_url: String,
    pub execs: Vec<Vec<String>>,
    next: u32,
}

#[derive(Clone)]
pub struct Fake {
    pub state: Arc<Mutex<State>>,
    events: broadcast::Sender<v1::ContainerEventResponse>,
    streaming: bool,
}

pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn ok<T>(value: T) -> Answer<T> {
    Ok(Response::new(value))
}

impl Fake {
    pub fn start(socket: &Path, streaming: bool, tasks: &mut tokio::task::JoinSet<()>) -> Fake {
        let fake = Fake { state: Arc::default(), events: broadcast::channel(256).0, streaming };
        fake.state.lock().unwrap().images.push("docker.io/skiff/hello:latest".into());
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(RuntimeServiceServer::new(fake.clone()))
            .add_service(ImageServiceServer::new(fake.clone()));
        tasks.spawn(async move { server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap() });
        fake
    }

    fn tell(&self, sandbox: &str, id: &str) {
        let state = self.state.lock().unwrap();
        let event = v1::ContainerEventResponse {
            container_id: id.to_owned(),
            pod_sandbox_status: state.sandboxes.get(sandbox).cloned(),
            ..Default::default()
        };
        drop(state);
        if self.events.receiver_count() > 0 {
            self.events.send(event).unwrap();
        }
    }

    fn call(&self, text: impl Into<String>) {
        self.state.lock().unwrap().calls.push(text.into());
    }

    pub fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// The running instance of a container.
    pub fn running(&self, name: &str) -> Option<Container> {
        let state = self.state.lock().unwrap();
        let is = |c: &&Container| c.status.metadata.as_ref().unwrap().name == name && c.status.state == 1;
        state.containers.values().find(is).cloned()
    }

    /// Ends an instance.
    pub fn exit(&self, id: &str, code: i32) {
        let mut state = self.state.lock().unwrap();
        let Some(c) = state.containers.get_mut(id).filter(|c| c.status.state != 2) else { return };
        c.status.state = 2;
        c.status.exit_code = code;
        c.status.finished_at = now();
        c.status.reason = if code == 0 { "Completed".into() } else { "Error".into() };
        let sandbox = c.sandbox.clone();
        drop(state);
        self.tell(&sandbox, id);
    }
}

fn matches(labels: &std::collections::HashMap<String, String>, wanted: &std::collections::HashMap<String, String>) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}

#[tonic::async_trait]
impl RuntimeService for Fake {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        ok(v1::VersionResponse { runtime_name: "fake".into(), runtime_version: "1".into(), ..Default::default() })
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let condition = |kind: &str| v1::RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        let status = v1::RuntimeStatus { conditions: vec![condition("RuntimeReady"), condition("NetworkReady")] };
        ok(v1::StatusResponse { status: Some(status), ..Default::default() })
    }

    async fn run_pod_sandbox(&self, r: Request<v1::RunPodSandboxRequest>) -> Answer<v1::RunPodSandboxResponse> {
        let config = r.into_inner().config.unwrap();
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        let id = format!("s{}", state.next);
        let network = v1::PodSandboxNetworkStatus { ip: "127.0.0.1".into(), additional_ips: Vec::new() };
        let status = v1::PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: 0,
            created_at: now(),
            network: Some(network),
            labels: config.labels.clone(),
            ..Default::default()
        };
        state.sandboxes.insert(id.clone(), status);
        state.configs.insert(id.clone(), config);
        state.calls.push("run sandbox".into());
        ok(v1::RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(&self, r: Request<v1::StopPodSandboxRequest>) -> Answer<v1::StopPodSandboxResponse> {
        let id = r.into_inner().pod_sandbox_id;
        let inside: Vec<String> = {
            let mut state = self.state.lock().unwrap();
            if let Some(s) = state.sandboxes.get_mut(&id) {
                s.state = 1;
            }
            state.calls.push("stop sandbox".into());
            state.containers.iter().filter(|(_, c)| c.sandbox == id).map(|(id, _)| id.clone()).collect()
        };
        inside.iter().for_each(|c| self.exit(c, 137));
        ok(v1::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, r: Request<v1::RemovePodSandboxRequest>) -> Answer<v1::RemovePodSandboxResponse> {
        let id = r.into_inner().pod_sandbox_id;
        let mut state = self.state.lock().unwrap();
        state.sandboxes.remove(&id);
        state.containers.retain(|_, c| c.sandbox != id);
        state.calls.push("remove sandbox".into());
        ok(v1::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, r: Request<v1::PodSandboxStatusRequest>) -> Answer<v1::PodSandboxStatusResponse> {
        let id = r.into_inner().pod_sandbox_id;
        let status = self.state.lock().unwrap().sandboxes.get(&id).cloned();
        let status = status.ok_or_else(|| Status::not_found(id))?;
        ok(v1::PodSandboxStatusResponse { status: Some(status), ..Default::default() })
    }

    async fn list_pod_sandbox(&self, r: Request<v1::ListPodSandboxRequest>) -> Answer<v1::ListPodSandboxResponse> {
        let filter = r.into_inner().filter.unwrap_or_default();
        let state = self.state.lock().unwrap();
        let all = state.sandboxes.values().filter(|s| matches(&s.labels, &filter.label_selector));
        let items = all.map(|s| v1::PodSandbox {
            id: s.id.clone(),
            metadata: s.metadata.clone(),
            state: s.state,
            created_at: s.created_at,
            labels: s.labels.clone(),
            ..Default::default()
        });
        ok(v1::ListPodSandboxResponse { items: items.collect() })
    }

    async fn create_container(&self, r: Request<v1::CreateContainerRequest>) -> Answer<v1::CreateContainerResponse> {
        let r = r.into_inner();
        let config = r.config.unwrap();
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        let id = format!("c{}", state.next);
        let log_path = format!("{}/{}", r.sandbox_config.unwrap().log_directory, config.log_path);
        let status = v1::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            created_at: now(),
            image: config.image.clone(),
            image_ref: "sha256:1".into(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            log_path,
            ..Default::default()
        };
        state.calls.push(format!("create {}", config.metadata.as_ref().unwrap().name));
        state.containers.insert(id.clone(), Container { sandbox: r.pod_sandbox_id, config, status });
        ok(v1::CreateContainerResponse { container_id: id })
    }

    async fn start_container(&self, r: Request<v1::StartContainerRequest>) -> Answer<v1::StartContainerResponse> {
        let id = r.into_inner().container_id;
        let sandbox = {
            let mut state = self.state.lock().unwrap();
            let c = state.containers.get_mut(&id).ok_or_else(|| Status::not_found("no such container"))?;
            c.status.state = 1;
            c.status.started_at = now();
            std::fs::write(&c.status.log_path, "2026-01-01T00:00:00Z stdout F hello\n").unwrap();
            let (sandbox, name) = (c.sandbox.clone(), c.config.metadata.as_ref().unwrap().name.clone());
            state.calls.push(format!("start {name}"));
            sandbox
        };
        self.tell(&sandbox, &id);
        ok(v1::StartContainerResponse {})
    }

    async fn stop_container(&self, r: Request<v1::StopContainerRequest>) -> Answer<v1::StopContainerResponse> {
        let r = r.into_inner();
        self.call(format!("stop {}", r.timeout));
        self.exit(&r.container_id, 143);
        ok(v1::StopContainerResponse {})
    }

    async fn remove_container(&self, r: Request<v1::RemoveContainerRequest>) -> Answer<v1::RemoveContainerResponse> {
        let id = r.into_inner().container_id;
        self.state.lock().unwrap().containers.remove(&id);
        ok(v1::RemoveContainerResponse {})
    }

    async fn list_containers(&self, r: Request<v1::ListContainersRequest>) -> Answer<v1::ListContainersResponse> {
        let filter = r.into_inner().filter.unwrap_or_default();
        let state = self.state.lock().unwrap();
        let wanted = |c: &&Container| {
            matches(&c.status.labels, &filter.label_selector) && filter.state.as_ref().is_none_or(|s| s.state == c.status.state)
        };
        let items = state.containers.values().filter(wanted).map(|c| v1::Container {
            id: c.status.id.clone(),
            pod_sandbox_id: c.sandbox.clone(),
            metadata: c.status.metadata.clone(),
            state: c.status.state,
            created_at: c.status.created_at,
            labels: c.status.labels.clone(),
            annotations: c.status.annotations.clone(),
            ..Default::default()
        });
        ok(v1::ListContainersResponse { containers: items.collect() })
    }

    async fn container_status(&self, r: Request<v1::ContainerStatusRequest>) -> Answer<v1::ContainerStatusResponse> {
        let id = r.into_inner().container_id;
        let status = self.state.lock().unwrap().containers.get(&id).map(|c| c.status.clone());
        let status = status.ok_or_else(|| Status::not_found(id))?;
        ok(v1::ContainerStatusResponse { status: Some(status), ..Default::default() })
    }

    async fn reopen_container_log(&self, _: Request<v1::ReopenContainerLogRequest>) -> Answer<v1::ReopenContainerLogResponse> {
        ok(v1::ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, r: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        let r = r.into_inner();
        let state = self.state.lock().unwrap();
        let c = state.containers.get(&r.container_id).ok_or_else(|| Status::not_found("no such container"))?;
        let name = &c.config.metadata.as_ref().unwrap().name;
        let exit_code = state.exec.get(name).copied().unwrap_or(0);
        ok(v1::ExecSyncResponse { stdout: r.cmd.join(" ").into_bytes(), exit_code, ..Default::default() })
    }

    async fn list_container_stats(&self, _: Request<v1::ListContainerStatsRequest>) -> Answer<v1::ListContainerStatsResponse> {
        let state = self.state.lock().unwrap();
        let stats = state.containers.values().map(|c| v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes { id: c.status.id.clone(), labels: c.status.labels.clone(), ..Default::default() }),
            cpu: Some(v1::CpuUsage { usage_core_nano_seconds: Some(v1::UInt64Value { value: 2_000_000_000 }), ..Default::default() }),
            ..Default::default()
        });
        ok(v1::ListContainerStatsResponse { stats: stats.collect() })
    }

    type GetContainerEventsStream = ReceiverStream<Result<v1::ContainerEventResponse, Status>>;
    async fn get_container_events(&self, _: Request<v1::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        if !self.streaming {
            return Err(Status::unimplemented("events"));
        }
        let (sender, receiver) = mpsc::channel(64);
        let mut events = self.events.subscribe();
        tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        });
        ok(ReceiverStream::new(receiver))
    }

    async fn attach(&self, _: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        Err(Status::unimplemented("attach"))
    }
    async fn exec(&self, r: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        let mut state = self.state.lock().unwrap();
        state.execs.push(r.into_inner().cmd);
        ok(v1::ExecResponse { url: state.streaming_url.clone() })
    }
    async fn port_forward(&self, _: Request<v1::PortForwardRequest>) -> Answer<v1::PortForwardResponse> {
        Err(Status::unimplemented("port_forward"))
    }
    async fn update_container_resources(
        &self,
        _: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        Err(Status::unimplemented("update_container_resources"))
    }
    async fn container_stats(&self, _: Request<v1::ContainerStatsRequest>) -> Answer<v1::ContainerStatsResponse> {
        Err(Status::unimplemented("container_stats"))
    }
    async fn pod_sandbox_stats(&self, _: Request<v1::PodSandboxStatsRequest>) -> Answer<v1::PodSandboxStatsResponse> {
        Err(Status::unimplemented("pod_sandbox_stats"))
    }
    async fn list_pod_sandbox_stats(&self, _: Request<v1::ListPodSandboxStatsRequest>) -> Answer<v1::ListPodSandboxStatsResponse> {
        Err(Status::unimplemented("list_pod_sandbox_stats"))
    }
    async fn update_runtime_config(&self, _: Request<v1::UpdateRuntimeConfigRequest>) -> Answer<v1::UpdateRuntimeConfigResponse> {
        Err(Status::unimplemented("update_runtime_config"))
    }
    async fn checkpoint_container(&self, _: Request<v1::CheckpointContainerRequest>) -> Answer<v1::CheckpointContainerResponse> {
        Err(Status::unimplemented("checkpoint_container"))
    }
    async fn list_metric_descriptors(&self, _: Request<v1::ListMetricDescriptorsRequest>) -> Answer<v1::ListMetricDescriptorsResponse> {
        Err(Status::unimplemented("list_metric_descriptors"))
    }
    async fn list_pod_sandbox_metrics(&self, _: Request<v1::ListPodSandboxMetricsRequest>) -> Answer<v1::ListPodSandboxMetricsResponse> {
        Err(Status::unimplemented("list_pod_sandbox_metrics"))
    }
    async fn runtime_config(&self, _: Request<v1::RuntimeConfigRequest>) -> Answer<v1::RuntimeConfigResponse> {
        Err(Status::unimplemented("runtime_config"))
    }
    async fn update_pod_sandbox_resources(
        &self,
        _: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        Err(Status::unimplemented("update_pod_sandbox_resources"))
    }
    type StreamPodSandboxesStream = ReceiverStream<Result<v1::StreamPodSandboxesResponse, Status>>;
    async fn stream_pod_sandboxes(&self, _: Request<v1::StreamPodSandboxesRequest>) -> Answer<Self::StreamPodSandboxesStream> {
        Err(Status::unimplemented("stream_pod_sandboxes"))
    }
    type StreamContainersStream = ReceiverStream<Result<v1::StreamContainersResponse, Status>>;
    async fn stream_containers(&self, _: Request<v1::StreamContainersRequest>) -> Answer<Self::StreamContainersStream> {
        Err(Status::unimplemented("stream_containers"))
    }
    type StreamContainerStatsStream = ReceiverStream<Result<v1::StreamContainerStatsResponse, Status>>;
    async fn stream_container_stats(&self, _: Request<v1::StreamContainerStatsRequest>) -> Answer<Self::StreamContainerStatsStream> {
        Err(Status::unimplemented("stream_container_stats"))
    }
    type StreamPodSandboxStatsStream = ReceiverStream<Result<v1::StreamPodSandboxStatsResponse, Status>>;
    async fn stream_pod_sandbox_stats(&self, _: Request<v1::StreamPodSandboxStatsRequest>) -> Answer<Self::StreamPodSandboxStatsStream> {
        Err(Status::unimplemented("stream_pod_sandbox_stats"))
    }
    type StreamPodSandboxMetricsStream = ReceiverStream<Result<v1::StreamPodSandboxMetricsResponse, Status>>;
    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        Err(Status::unimplemented("stream_pod_sandbox_metrics"))
    }
}

#[tonic::async_trait]
impl ImageService for Fake {
    async fn list_images(&self, _: Request<v1::ListImagesRequest>) -> Answer<v1::ListImagesResponse> {
        let images = self
            .state
            .lock()
            .unwrap()
            .images
            .iter()
            .map(|i| v1::Image { id: "sha256:1".into(), repo_tags: vec![i.clone()], size: 7, ..Default::default() })
            .collect();
        ok(v1::ListImagesResponse { images })
    }

    type StreamImagesStream = ReceiverStream<Result<v1::StreamImagesResponse, Status>>;
    async fn stream_images(&self, _: Request<v1::StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
        Err(Status::unimplemented("stream_images"))
    }

    async fn image_status(&self, r: Request<v1::ImageStatusRequest>) -> Answer<v1::ImageStatusResponse> {
        let name = r.into_inner().image.unwrap().image;
        let known = name == "sha256:1" || self.state.lock().unwrap().images.iter().any(|i| i.ends_with(&name));
        let image =
            known.then(|| v1::Image { id: "sha256:1".into(), size: 7, uid: Some(v1::Int64Value { value: 0 }), ..Default::default() });
        ok(v1::ImageStatusResponse { image, ..Default::default() })
    }

    async fn pull_image(&self, r: Request<v1::PullImageRequest>) -> Answer<v1::PullImageResponse> {
        let name = r.into_inner().image.unwrap().image;
        self.call(format!("pull {name}"));
        Err(Status::not_found(format!("failed to pull and unpack image \"{name}\"")))
    }

    async fn remove_image(&self, _: Request<v1::RemoveImageRequest>) -> Answer<v1::RemoveImageResponse> {
        ok(v1::RemoveImageResponse {})
    }

    async fn image_fs_info(&self, _: Request<v1::ImageFsInfoRequest>) -> Answer<v1::ImageFsInfoResponse> {
        ok(v1::ImageFsInfoResponse::default())
    }
}
