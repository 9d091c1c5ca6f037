//! What outlives what: containers the daemon, cleanup everything; and what a dead shim takes with it.
#![expect(clippy::unwrap_used, reason = "tests")]

#[macro_use]
mod support;

use std::path::Path;
use std::time::Duration;

use cri::v1::*;
use support::Rig;

async fn sandbox_info(rig: &Rig, id: &str) -> (PodSandboxState, i32) {
    let request = PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: true };
    let response = rig.cri.runtime.clone().pod_sandbox_status(request).await.unwrap().into_inner();
    let info: serde_json::Value = serde_json::from_str(&response.info["info"]).unwrap();
    (response.status.unwrap().state(), i32::try_from(info["pid"].as_i64().unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_outlive_the_daemon() {
    let mut rig = rig!();
    let pod = rig.sandbox("restart").await;
    let ticking = rig.run(&pod, &["tick"]).await;
    let mut config = Rig::container_config(&["lines"]);
    (config.stdin, config.stdin_once) = (true, false);
    let waiting = rig.run_with(&pod, config).await;
    let pids = (rig.pid(&ticking).await, rig.pid(&waiting).await);
    rig.stop().await;
    let before = rig.log_until("tick", |lines| lines.len() > 1).await.len();
    rig.log_until("tick", |lines| lines.len() > before + 3).await; // with no daemon at all
    sys::process::kill(pids.1, 9).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.start().await;
    assert_eq!((rig.pid(&ticking).await, rig.status(&ticking).await.state()), (pids.0, ContainerState::ContainerRunning));
    let ended = rig.exited(&waiting).await;
    assert_eq!(ended.exit_code, 137); // it died while nobody watched, and is known to have
    assert_eq!(rig.exec(&ticking, &["exit", "5"]).await.1, 5);
    assert_eq!(sandbox_info(&rig, &pod).await.0, PodSandboxState::SandboxReady);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_shim_fails_its_pod() {
    let rig = rig!();
    let pod = rig.sandbox("deadshim").await;
    let id = rig.run(&pod, &["sleep"]).await;
    let pid = rig.pid(&id).await;
    let (_, shim) = sandbox_info(&rig, &pod).await;
    sys::process::kill(shim, 9).unwrap();
    rig.exited(&id).await;
    assert_eq!(sandbox_info(&rig, &pod).await.0, PodSandboxState::SandboxNotready);
    assert!(
        !Path::new(&format!("/proc/{pid}/root")).exists()
            || std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| s.contains("zombie"))
    );
    rig.cri.runtime.clone().remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod }).await.unwrap();
    assert!(rig.cri.runtime.clone().list_containers(ListContainersRequest::default()).await.unwrap().into_inner().containers.is_empty());
}

fn traces(instance: &str) -> Vec<String> {
    let mut found = Vec::new();
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let path = hierarchy.path().join(format!("skiff-{instance}"));
        if path.exists() {
            found.push(path.display().to_string());
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|l| l.contains(instance.trim_start_matches("test-"))).map(str::to_owned));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removal_and_teardown_leave_nothing() {
    let mut rig = rig!();
    let removed = rig.sandbox("removed").await;
    rig.run(&removed, &["sleep"]).await;
    rig.cri.runtime.clone().stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: removed.clone() }).await.unwrap();
    rig.cri.runtime.clone().remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: removed }).await.unwrap();
    for dir in ["sandboxes", "containers"] {
        assert_eq!(std::fs::read_dir(rig.config.data_dir.join(dir)).unwrap().count(), 0, "{dir}");
    }
    assert_eq!(std::fs::read_dir(rig.config.run_dir.join("shims")).unwrap().count(), 0);
    let kept = rig.sandbox("kept").await;
    let id = rig.run(&kept, &["sleep"]).await;
    let (pid, (_, shim)) = (rig.pid(&id).await, sandbox_info(&rig, &kept).await);
    assert!(!traces(&rig.config.instance).is_empty());
    rig.stop().await;
    runtime::teardown(&rig.config, true).unwrap();
    assert_eq!(traces(&rig.config.instance), Vec::<String>::new());
    for pid in [pid, shim] {
        assert!(std::fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |s| s.contains("(zombie)")), "{pid} runs");
    }
    rig.start().await;
    assert_eq!(rig.cri.images.clone().list_images(ListImagesRequest::default()).await.unwrap().into_inner().images.len(), 1);
}
