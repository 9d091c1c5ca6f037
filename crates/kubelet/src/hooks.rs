//! Runs postStart and preStop hooks: exec, httpGet, sleep (and tcpSocket, which upstream accepts and refuses to run).

use std::time::Duration;

use cri::v1;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::images::error_text;
use crate::kubelet::Node;
use crate::probes;

/// Runs a hook to its end; the caller bounds its time.
pub async fn run(node: &Node, pod_ip: &str, c: &Container, id: &str, hook: &LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let request = v1::ExecSyncRequest { container_id: id.to_owned(), cmd: exec.command.clone().unwrap_or_default(), timeout: 0 };
        let answer = node.cri.runtime.clone().exec_sync(request).await.map_err(|s| error_text(&s))?.into_inner();
        return if answer.exit_code == 0 {
            Ok(())
        } else {
            Err(format!(
                "command '{}' exited with {}: {}",
                exec.command.clone().unwrap_or_default().join(" "),
                answer.exit_code,
                String::from_utf8_lossy(&answer.stderr)
            ))
        };
    }
    if let Some(action) = &hook.http_get {
        let target = probes::target(action, c, pod_ip)?;
        return probes::http::get(&target).await.map(|_| ());
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("cannot run handler: invalid handler".to_owned())
}
