//! The CRI's RuntimeService: every call, translated to what [`Server`] does.

use std::pin::Pin;
use std::sync::Arc;

use cri::v1::runtime_service_server::RuntimeService;
use cri::v1::*;
use futures::{Stream, StreamExt};
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use super::{Server, blocking, internal, spec, stats, status};
use crate::cgroup::Cgroup;
use crate::shim::protocol;
use crate::streaming::Ticket;

pub(super) struct Service(pub Arc<Server>);

type Answer<T> = Result<Response<T>, Status>;
type Many<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn once<T: Send + 'static>(message: T) -> Response<Many<T>> {
    Response::new(Box::pin(futures::stream::iter([Ok(message)])))
}

fn ok<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

impl Service {
    fn sandboxes(&self, filter: Option<PodSandboxFilter>) -> Vec<PodSandbox> {
        let filter = filter.unwrap_or_default();
        let state = self.0.state();
        let kept = state.sandboxes.values().filter(|s| {
            s.id.starts_with(&filter.id)
                && filter.state.as_ref().is_none_or(|wanted| wanted.state == i32::from(status::sandbox_state(s)))
                && status::selects(&filter.label_selector, &s.config.0.labels)
        });
        kept.map(status::sandbox_item).collect()
    }

    fn containers(&self, filter: Option<ContainerFilter>) -> Vec<Container> {
        let filter = filter.unwrap_or_default();
        let state = self.0.state();
        let kept = state.containers.values().filter(|c| {
            c.id.starts_with(&filter.id)
                && c.sandbox.starts_with(&filter.pod_sandbox_id)
                && filter.state.as_ref().is_none_or(|wanted| wanted.state == i32::from(status::container_state(c)))
                && status::selects(&filter.label_selector, &c.config.0.labels)
        });
        kept.map(status::container_item).collect()
    }

    async fn container_stats_of(&self, filter: ContainerStatsFilter) -> Result<Vec<ContainerStats>, Status> {
        let kept: Vec<_> = {
            let state = self.0.state();
            let kept = state.containers.values().filter(|c| {
                c.started_ns != 0
                    && c.exit.is_none()
                    && c.id.starts_with(&filter.id)
                    && c.sandbox.starts_with(&filter.pod_sandbox_id)
                    && status::selects(&filter.label_selector, &c.config.0.labels)
            });
            kept.cloned().collect()
        };
        blocking(move || Ok(kept.iter().map(stats::container).collect())).await
    }

    async fn sandbox_stats_of(&self, filter: PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>, Status> {
        let kept: Vec<_> = {
            let state = self.0.state();
            let running = |id: &str| {
                state.containers.values().filter(|c| c.sandbox == id && c.started_ns != 0 && c.exit.is_none()).cloned().collect::<Vec<_>>()
            };
            let kept = state
                .sandboxes
                .values()
                .filter(|s| s.ready && s.id.starts_with(&filter.id) && status::selects(&filter.label_selector, &s.config.0.labels));
            kept.map(|s| (s.clone(), running(&s.id))).collect()
        };
        blocking(move || Ok(kept.iter().map(|(s, c)| stats::sandbox(s, c)).collect())).await
    }
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "skiff".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let pod_sandbox_id = self.0.run_sandbox(request.config.unwrap_or_default(), request.runtime_handler).await?;
        ok(RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        self.0.stop_sandbox(&request.into_inner().pod_sandbox_id).await?;
        ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        self.0.remove_sandbox(&request.into_inner().pod_sandbox_id).await?;
        ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        let mut info = std::collections::HashMap::new();
        if request.verbose {
            let netns = sandbox.netns().display().to_string();
            info.insert(
                "info".into(),
                serde_json::json!({ "pid": sandbox.shim_pid, "netns": netns, "cgroup": sandbox.cgroup }).to_string(),
            );
        }
        let containers_statuses = self.0.state().containers.values().filter(|c| c.sandbox == sandbox.id).map(status::container).collect();
        ok(PodSandboxStatusResponse {
            status: Some(status::sandbox(&sandbox)),
            info,
            containers_statuses,
            timestamp: crate::shim::now_ns(),
        })
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        ok(ListPodSandboxResponse { items: self.sandboxes(request.into_inner().filter) })
    }

    type StreamPodSandboxesStream = Many<StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(&self, request: Request<StreamPodSandboxesRequest>) -> Answer<Self::StreamPodSandboxesStream> {
        Ok(once(StreamPodSandboxesResponse { pod_sandboxes: self.sandboxes(request.into_inner().filter) }))
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let container_id = self.0.create_container(&request.pod_sandbox_id, request.config.unwrap_or_default()).await?;
        ok(CreateContainerResponse { container_id })
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        self.0.start_container(&request.into_inner().container_id).await?;
        ok(StartContainerResponse {})
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        self.0.stop_container(&request.container_id, request.timeout).await?;
        ok(StopContainerResponse {})
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        self.0.remove_container(&request.into_inner().container_id).await?;
        ok(RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        ok(ListContainersResponse { containers: self.containers(request.into_inner().filter) })
    }

    type StreamContainersStream = Many<StreamContainersResponse>;

    async fn stream_containers(&self, request: Request<StreamContainersRequest>) -> Answer<Self::StreamContainersStream> {
        Ok(once(StreamContainersResponse { containers: self.containers(request.into_inner().filter) }))
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let request = request.into_inner();
        let container = self.0.container(&request.container_id)?;
        let mut info = std::collections::HashMap::new();
        if request.verbose {
            let text =
                serde_json::json!({ "sandboxID": container.sandbox, "pid": container.pid, "cgroup": container.spec.cgroup }).to_string();
            info.insert("info".into(), text);
        }
        ok(ContainerStatusResponse { status: Some(status::container(&container)), info })
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        self.0.update_resources(&request.container_id, request.linux.unwrap_or_default()).await?;
        ok(UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(&self, request: Request<ReopenContainerLogRequest>) -> Answer<ReopenContainerLogResponse> {
        let container = self.0.running(&request.into_inner().container_id)?;
        let reopen = protocol::Request::ReopenLog { container: container.id.clone() };
        self.0.ask(&container.sandbox, reopen).await.map_err(internal("reopen the container's log"))?;
        ok(ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        ok(self.0.exec_sync(&request.container_id, request.cmd, request.timeout).await?)
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let request = request.into_inner();
        if request.tty && request.stderr {
            return Err(Status::invalid_argument("tty and stderr cannot both be true"));
        }
        let container = self.0.running(&request.container_id)?.id;
        let url = self.0.streams.ticket(
            "exec",
            Ticket::Exec {
                container,
                command: request.cmd,
                tty: request.tty,
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
            },
        );
        ok(ExecResponse { url })
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let request = request.into_inner();
        let container = self.0.running(&request.container_id)?.id;
        ok(AttachResponse {
            url: self.0.streams.ticket(
                "attach",
                Ticket::Attach { container, tty: request.tty, stdin: request.stdin, stdout: request.stdout, stderr: request.stderr },
            ),
        })
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        if !sandbox.ready {
            return Err(Status::failed_precondition(format!("sandbox {:?} is not ready", sandbox.id)));
        }
        let ports = request.port.iter().filter_map(|p| u16::try_from(*p).ok()).collect();
        ok(PortForwardResponse { url: self.0.streams.ticket("portforward", Ticket::PortForward { sandbox: sandbox.id, ports }) })
    }

    async fn container_stats(&self, request: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        let container = self.0.container(&request.into_inner().container_id)?;
        let stats = blocking(move || Ok(stats::container(&container))).await?;
        ok(ContainerStatsResponse { stats: Some(stats) })
    }

    async fn list_container_stats(&self, request: Request<ListContainerStatsRequest>) -> Answer<ListContainerStatsResponse> {
        ok(ListContainerStatsResponse { stats: self.container_stats_of(request.into_inner().filter.unwrap_or_default()).await? })
    }

    type StreamContainerStatsStream = Many<StreamContainerStatsResponse>;

    async fn stream_container_stats(&self, request: Request<StreamContainerStatsRequest>) -> Answer<Self::StreamContainerStatsStream> {
        Ok(once(StreamContainerStatsResponse {
            container_stats: self.container_stats_of(request.into_inner().filter.unwrap_or_default()).await?,
        }))
    }

    async fn pod_sandbox_stats(&self, request: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        let id = self.0.sandbox(&request.into_inner().pod_sandbox_id)?.id;
        let filter = PodSandboxStatsFilter { id, ..Default::default() };
        ok(PodSandboxStatsResponse { stats: self.sandbox_stats_of(filter).await?.pop() })
    }

    async fn list_pod_sandbox_stats(&self, request: Request<ListPodSandboxStatsRequest>) -> Answer<ListPodSandboxStatsResponse> {
        ok(ListPodSandboxStatsResponse { stats: self.sandbox_stats_of(request.into_inner().filter.unwrap_or_default()).await? })
    }

    type StreamPodSandboxStatsStream = Many<StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(&self, request: Request<StreamPodSandboxStatsRequest>) -> Answer<Self::StreamPodSandboxStatsStream> {
        Ok(once(StreamPodSandboxStatsResponse {
            pod_sandbox_stats: self.sandbox_stats_of(request.into_inner().filter.unwrap_or_default()).await?,
        }))
    }

    async fn update_runtime_config(&self, _: Request<UpdateRuntimeConfigRequest>) -> Answer<UpdateRuntimeConfigResponse> {
        // The pod CIDR reaches the pod network by way of the Node object.
        ok(UpdateRuntimeConfigResponse {})
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let condition = |kind: &str, reason: &str, problem: Option<String>| RuntimeCondition {
            r#type: kind.into(),
            status: problem.is_none(),
            reason: if problem.is_some() { reason.into() } else { String::new() },
            message: problem.unwrap_or_default(),
        };
        let network = self.0.network.ready().await.err().map(|e| e.to_string());
        let conditions = vec![condition("RuntimeReady", "", None), condition("NetworkReady", "NetworkPluginNotReady", network)];
        let features = RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
        ok(StatusResponse {
            status: Some(RuntimeStatus { conditions }),
            info: Default::default(),
            runtime_handlers: vec![RuntimeHandler { name: String::new(), features: Some(features) }],
            features: Some(RuntimeFeatures { supplemental_groups_policy: true, user_namespaces_host_network: false }),
        })
    }

    async fn checkpoint_container(&self, _: Request<CheckpointContainerRequest>) -> Answer<CheckpointContainerResponse> {
        Err(Status::unimplemented("checkpoints are not supported"))
    }

    type GetContainerEventsStream = Many<ContainerEventResponse>;

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let events = BroadcastStream::new(self.0.events.subscribe());
        let events = events.map(|event| event.map_err(|lagged| Status::resource_exhausted(lagged.to_string())));
        Ok(Response::new(Box::pin(events.take_until(self.0.cancel.clone().cancelled_owned()))))
    }

    async fn list_metric_descriptors(&self, _: Request<ListMetricDescriptorsRequest>) -> Answer<ListMetricDescriptorsResponse> {
        ok(ListMetricDescriptorsResponse::default())
    }

    async fn list_pod_sandbox_metrics(&self, _: Request<ListPodSandboxMetricsRequest>) -> Answer<ListPodSandboxMetricsResponse> {
        ok(ListPodSandboxMetricsResponse::default())
    }

    type StreamPodSandboxMetricsStream = Many<StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(&self, _: Request<StreamPodSandboxMetricsRequest>) -> Answer<Self::StreamPodSandboxMetricsStream> {
        Ok(once(StreamPodSandboxMetricsResponse::default()))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        ok(RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() }) })
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        if let Some(resources) = request.resources {
            let limits = spec::resources(&resources);
            blocking(move || Cgroup::new(sandbox.cgroup).and_then(|c| c.limit(&limits)).map_err(internal("update the pod's limits")))
                .await?;
        }
        ok(UpdatePodSandboxResourcesResponse {})
    }
}
