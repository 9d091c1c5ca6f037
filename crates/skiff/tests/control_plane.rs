//! `skiff control-plane` as a user runs it: what is written is acted on by controllers and scheduler of the same process.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn one_process_serves_controls_and_schedules() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_skiff"));
    command.args(["control-plane", "--bind-address", "127.0.0.1", "--secure-port", "0", "--data-dir"]).arg(dir.path());
    let _process = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let told = async {
        let kubeconfig = dir.path().join("admin.kubeconfig");
        while !kubeconfig.exists() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let client = client::from_kubeconfig(&kubeconfig).await.unwrap();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": "there"}})).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "there");
        while accounts.get_opt("default").await.unwrap().is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let pods: Api<Pod> = Api::namespaced(client, "there");
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        let told = loop {
            let conditions = pods.get("p").await.unwrap().status.and_then(|s| s.conditions).unwrap_or_default();
            if let Some(told) = conditions.into_iter().find_map(|c| c.message) {
                break told;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        namespaces.delete("there", &DeleteParams::default()).await.unwrap();
        while namespaces.get_opt("there").await.unwrap().is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        told
    };
    let told = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(told.contains("no nodes available"), "{told}");
}
