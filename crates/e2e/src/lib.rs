//! Real clients, real containers, real packets: a whole cluster per test, in a network namespace of its own, started and
//! driven through the `skiff` binary as a user would. Everything is removed again, also when a test fails.

pub mod archive;
pub mod balancer;
mod cluster;
pub mod extension;
pub mod fleet;
pub mod kills;
pub mod script;
mod shared;
mod typed;
mod wait;

pub use cluster::{Cluster, Output, skiff};
pub use shared::{Space, shared};
pub use trial::is_root;
pub use wait::{eventually, eventually_within};

/// As a kubeconfig says, but for where the server is. An answer is taken as it comes, also where it is "not now".
pub async fn config_of(kubeconfig: &std::path::Path, server: &str) -> anyhow::Result<kube::Config> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    config.cluster_url = format!("https://{server}").parse()?;
    config.default_retry = false;
    Ok(config)
}

/// Why a request was refused.
pub fn refused(answer: anyhow::Result<serde_json::Value>) -> String {
    answer.map_or_else(|error| format!("{error:#}"), |value| panic!("not refused: {value}"))
}

/// Whether kubectl is installed; says so where not.
pub fn has_kubectl() -> bool {
    let found = std::process::Command::new("kubectl").args(["version", "--client"]).output().is_ok_and(|o| o.status.success());
    if !found {
        println!("skipped: kubectl is not installed");
    }
    found
}
