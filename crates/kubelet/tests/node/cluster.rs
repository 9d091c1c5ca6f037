//! One API server, one fake runtime, one kubelet, in a temporary directory.

use std::sync::Arc;

use auth::User;
use client::{Client, Informers};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kubelet::{Config, Kubelet, ServerConfig};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trial::found;

use crate::fake_cri::Fake;

pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub admin: Client,
    pub fake: Fake,
    pub config: Config,
    pub api: apiserver::Handle,
    cancel: CancellationToken,
    kubelet: JoinSet<Result<(), kubelet::Error>>,
    _runtime: JoinSet<()>,
}

/// Pods that a test leaves running have their tokens on tmpfs, which would outlive the temporary directory.
impl Drop for Cluster {
    fn drop(&mut self) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| std::path::Path::new(p).starts_with(self.dir.path()));
        for point in points {
            if let Err(error) = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH) {
                eprintln!("unmount {point}: {error}");
            }
        }
    }
}

impl Cluster {
    pub async fn start(streaming: bool) -> Cluster {
        // RUST_LOG shows what happens; a second subscriber in the process is refused, which is fine.
        tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_test_writer().try_init().ok();
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(store::Embedded::in_memory());
        let mut server = apiserver::Config::new(dir.path().join("pki"));
        server.secure_port = 0;
        server.bind_address = [127, 0, 0, 1].into();
        server.advertise_address = Some([192, 168, 7, 1].into());
        let api = apiserver::Server::start(server, store).await.unwrap();
        let admin = client::in_process(api.service_as(User::new("admin", &["system:masters"])));
        let mut runtime = JoinSet::new();
        let fake = Fake::start(&dir.path().join("cri.sock"), streaming, &mut runtime);
        let mut config = Config::new("n1");
        config.node_ips = vec!["192.168.7.1".parse().unwrap()];
        config.root_dir = dir.path().join("kubelet");
        config.pod_logs_dir = dir.path().join("logs");
        let mut cluster =
            Cluster { dir, admin, fake, config, api, cancel: CancellationToken::new(), kubelet: JoinSet::new(), _runtime: runtime };
        cluster.prepare().await;
        cluster.start_kubelet();
        cluster
    }

    async fn prepare(&self) {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), "default");
        accounts.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap()).await.unwrap();
        self.config_map("kube-root-ca.crt", json!({"ca.crt": "CA"})).await;
    }

    pub fn serve(&mut self, server: ServerConfig) {
        self.config.server = Some(server);
    }

    pub fn start_kubelet(&mut self) {
        self.cancel = CancellationToken::new();
        let client = client::in_process(self.api.service_as(User::new("system:node:n1", &["system:nodes"])));
        let informers = Informers::new(client.clone());
        let run = Kubelet::run(self.config.clone(), client, informers, self.dir.path().join("cri.sock"), self.cancel.clone());
        self.kubelet.spawn(run);
    }

    pub async fn stop_kubelet(&mut self) {
        self.cancel.cancel();
        while let Some(ended) = self.kubelet.join_next().await {
            ended.unwrap().unwrap();
        }
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), "default")
    }

    pub async fn config_map(&self, name: &str, data: Value) {
        let api: Api<ConfigMap> = Api::namespaced(self.admin.clone(), "default");
        api.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).unwrap())
            .await
            .unwrap();
    }

    pub async fn secret(&self, name: &str, data: Value) {
        let api: Api<Secret> = Api::namespaced(self.admin.clone(), "default");
        api.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": name}, "stringData": data})).unwrap())
            .await
            .unwrap();
    }

    pub async fn pod(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = json!("n1");
        let pod = serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap()
    }

    pub async fn node(&self) -> Node {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        found("the node is ready", || async {
            let node = nodes.get_opt("n1").await.unwrap()?;
            let conditions = node.status.clone()?.conditions?;
            conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True").then_some(node)
        })
        .await
    }

    /// The pod once `check` holds for its JSON.
    pub async fn until(&self, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        let pods = self.pods();
        found(&format!("{name} {what}"), || async {
            let pod = serde_json::to_value(pods.get_opt(name).await.unwrap()?).unwrap();
            check(&pod).then_some(pod)
        })
        .await
    }

    pub async fn running(&self, name: &str) -> Value {
        self.until(name, "runs", |p| p["status"]["phase"] == "Running").await
    }

    pub async fn gone(&self, name: &str) {
        let pods = self.pods();
        found(&format!("{name} is gone"), || async { pods.get_opt(name).await.unwrap().is_none().then_some(()) }).await;
    }

    pub async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn events(&self) -> Vec<String> {
        let api: Api<Event> = Api::namespaced(self.admin.clone(), "default");
        let list = api.list(&ListParams::default()).await.unwrap();
        list.items.into_iter().map(|e| format!("{} {}", e.reason.unwrap_or_default(), e.message.unwrap_or_default())).collect()
    }
}
