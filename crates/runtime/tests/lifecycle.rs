//! Sandboxes and containers through the CRI, with real namespaces, cgroups and overlays. As root; skipped otherwise.

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use cri::v1::*;
use support::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_and_exit_codes() {
    let rig = rig!();
    let pod = rig.sandbox("logs").await;
    let both = rig.run(&pod, &["both"]).await;
    let failed = rig.run(&pod, &["exit", "3"]).await;
    let partial = rig.run(&pod, &["print", "no newline"]).await;
    let status = rig.exited(&both).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    assert!(status.started_at > 0 && status.finished_at >= status.started_at);
    let mut lines = rig.log_until("both", |lines| lines.len() == 2).await;
    lines.sort();
    assert_eq!(lines, ["stderr F err", "stdout F out"]);
    let status = rig.exited(&failed).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    rig.exited(&partial).await;
    assert_eq!(rig.log_until("print", |lines| lines.len() == 1).await, ["stdout P no newline"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_sees_the_container() {
    let rig = rig!();
    let pod = rig.sandbox("exec").await;
    let mut config = Rig::container_config(&["sleep"]);
    config.envs = vec![KeyValue { key: "GREETING".into(), value: "hello".into() }];
    let volume = rig.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "from the host").unwrap();
    let mount = |target: &str, readonly| Mount {
        container_path: target.into(),
        host_path: volume.display().to_string(),
        readonly,
        ..Default::default()
    };
    config.mounts = vec![mount("/data", false), mount("/data-ro", true)];
    let id = rig.run_with(&pod, config).await;
    assert_eq!(rig.exec(&id, &["env", "GREETING"]).await, ("hello\n".into(), 0));
    assert_eq!(rig.exec(&id, &["cat", "/etc/hostname"]).await, ("exec\n".into(), 0));
    assert_eq!(rig.exec(&id, &["cat", "/proc/sys/kernel/hostname"]).await, ("exec\n".into(), 0));
    assert_eq!(rig.exec(&id, &["cat", "/data/file"]).await, ("from the host".into(), 0));
    assert_eq!(rig.exec(&id, &["write", "/data/new", "x"]).await.1, 0);
    assert_eq!(std::fs::read_to_string(volume.join("new")).unwrap(), "x");
    assert_eq!(rig.exec(&id, &["write", "/data-ro/new", "y"]).await.1, 1);
    assert_eq!(rig.exec(&id, &["write", "/proc/sys/kernel/hostname", "y"]).await.1, 1);
    assert_eq!(rig.exec(&id, &["cat", "/proc/interrupts"]).await, (String::new(), 0));
    assert_eq!(rig.exec(&id, &["exit", "42"]).await.1, 42);
    let (status, _) = rig.exec(&id, &["cat", "/proc/1/status"]).await;
    assert!(status.contains("Name:\tguest") && status.contains("Seccomp:\t2"), "{status}");
    assert!(status.contains("CapEff:\t00000000a80425fb"), "{status}");
    let (own, _) = rig.exec(&id, &["cat", "/proc/self/status"]).await;
    assert!(own.contains("SigBlk:\t0000000000000000"), "{own}");
    assert_eq!(rig.exec(&id, &["ls", "/"]).await.0.matches("data").count(), 2);
    let timeout = ExecSyncRequest { container_id: id.clone(), cmd: vec!["guest".into(), "sleep".into()], timeout: 1 };
    let error = rig.cri.runtime.clone().exec_sync(timeout).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_read_only_roots() {
    let rig = rig!();
    let pod = rig.sandbox("users").await;
    let mut config = Rig::container_config(&["sleep"]);
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.run_as_username = "nobody".into();
    context.supplemental_groups = vec![1234];
    context.readonly_rootfs = true;
    context.no_new_privs = true;
    let id = rig.run_with(&pod, config).await;
    let user = rig.status(&id).await.user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid, user.supplemental_groups), (65534, 65534, vec![65534, 1234]));
    let (status, _) = rig.exec(&id, &["cat", "/proc/1/status"]).await;
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("CapEff:\t0000000000000000"), "{status}");
    assert!(rig.exec(&id, &["write", "/tmp/x", "x"]).await.0.contains("Read-only file system"));
    let mut config = Rig::container_config(&["sleep"]);
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().run_as_username = "nosuch".into();
    let id = rig.create(&pod, config).await;
    assert!(rig.try_start(&id).await.unwrap_err().message().contains("unable to find user nosuch"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_commands_say_so() {
    let rig = rig!();
    let pod = rig.sandbox("missing").await;
    for (command, text) in [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        let mut config = Rig::container_config(&["x"]);
        config.command = vec![command.into()];
        let id = rig.create(&pod, config).await;
        let error = rig.try_start(&id).await.unwrap_err();
        assert!(error.message().contains(text), "{error}");
        let status = rig.status(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str(), status.state()), (128, "StartError", ContainerState::ContainerExited));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_waits_then_kills() {
    let rig = rig!();
    let pod = rig.sandbox("stop").await;
    // PID 1 without a handler ignores SIGTERM, so only the kill ends it.
    let id = rig.run(&pod, &["sleep"]).await;
    let started = Instant::now();
    rig.cri.runtime.clone().stop_container(StopContainerRequest { container_id: id.clone(), timeout: 1 }).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    let status = rig.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    // In the host's PID namespace SIGTERM works.
    let mut config = Rig::container_config(&["sleep"]);
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options =
        Some(NamespaceOption { pid: NamespaceMode::Node.into(), ..Default::default() });
    let id = rig.run_with(&pod, config).await;
    let started = Instant::now();
    rig.cri.runtime.clone().stop_container(StopContainerRequest { container_id: id.clone(), timeout: 30 }).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(rig.exited(&id).await.exit_code, 143);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_oom_kills() {
    let rig = rig!();
    let pod = rig.sandbox("oom").await;
    let mut config = Rig::container_config(&["eat"]);
    config.linux.as_mut().unwrap().resources = Some(LinuxContainerResources {
        memory_limit_in_bytes: 32 << 20,
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        oom_score_adj: 1000,
        ..Default::default()
    });
    let id = rig.run_with(&pod, config).await;
    let status = rig.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    let id = rig.run(&pod, &["sleep"]).await;
    let linux = Some(LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() });
    let request = UpdateContainerResourcesRequest { container_id: id.clone(), linux, ..Default::default() };
    rig.cri.runtime.clone().update_container_resources(request).await.unwrap();
    let stats =
        rig.cri.runtime.clone().container_stats(ContainerStatsRequest { container_id: id }).await.unwrap().into_inner().stats.unwrap();
    let memory = stats.memory.unwrap();
    assert!(memory.usage_bytes.unwrap().value > 0);
    assert!(memory.available_bytes.unwrap().value <= 64 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_rotated() {
    let rig = rig!();
    let pod = rig.sandbox("rotate").await;
    let id = rig.run(&pod, &["tick"]).await;
    rig.log_until("tick", |lines| lines.len() > 2).await;
    let (log, old) = (rig.logs().join("tick.log"), rig.logs().join("tick.log.1"));
    std::fs::rename(&log, &old).unwrap();
    rig.cri.runtime.clone().reopen_container_log(ReopenContainerLogRequest { container_id: id }).await.unwrap();
    let fresh = rig.log_until("tick", |lines| lines.len() > 2).await;
    let last_old = std::fs::read_to_string(old).unwrap().lines().count();
    assert_eq!(fresh[0], format!("stdout F tick {last_old}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_pid_namespace_has_an_init() {
    let rig = rig!();
    let mut config = rig.sandbox_config("shared");
    let pod_pids = Some(NamespaceOption { pid: NamespaceMode::Pod.into(), ..Default::default() });
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = pod_pids;
    let pod = rig.sandbox_with(config).await;
    let start = |args: &'static [&'static str]| {
        let mut config = Rig::container_config(args);
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = pod_pids_again();
        rig.run_with(&pod, config)
    };
    let (a, b) = (start(&["sleep"]).await, start(&["tick"]).await);
    let (listing, _) = rig.exec(&a, &["ls", "/proc"]).await;
    for pid in ["\"1\"", "\"2\"", "\"3\""] {
        assert!(listing.contains(pid), "{listing}");
    }
    rig.cri.runtime.clone().stop_container(StopContainerRequest { container_id: a, timeout: 0 }).await.unwrap();
    assert_eq!(rig.status(&b).await.state(), ContainerState::ContainerRunning);
}

fn pod_pids_again() -> Option<NamespaceOption> {
    Some(NamespaceOption { pid: NamespaceMode::Pod.into(), ..Default::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_sandboxes_at_once() {
    let rig = rig!();
    let names: Vec<String> = (0..8).map(|n| format!("many-{n}")).collect();
    let pods = futures::future::join_all(names.iter().map(|name| rig.sandbox(name))).await;
    let started = futures::future::join_all(pods.iter().map(|pod| rig.run(pod, &["sleep"]))).await;
    let listed = rig.cri.runtime.clone().list_containers(ListContainersRequest::default()).await.unwrap().into_inner().containers;
    assert_eq!(listed.len(), 8);
    for id in &started {
        assert_eq!(rig.status(id).await.state(), ContainerState::ContainerRunning);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seccomp_profiles_hold() {
    let rig = rig!();
    let pod = rig.sandbox("seccomp").await;
    std::fs::create_dir(&rig.config.seccomp_dir).unwrap();
    let deny = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#;
    std::fs::write(rig.config.seccomp_dir.join("deny.json"), deny).unwrap();
    std::fs::write(rig.config.seccomp_dir.join("odd.json"), r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).unwrap();
    let config = |profile_type, localhost_ref: &str| {
        let mut config = Rig::container_config(&["sleep"]);
        let profile = SecurityProfile { profile_type, localhost_ref: localhost_ref.into() };
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().seccomp = Some(profile);
        config
    };
    // RuntimeDefault is two filters: the list, and the one that answers clone3.
    for (kind, name, filters, mkdir) in [(0, "", 2, "Ok(())\n"), (1, "", 0, "Ok(())\n"), (2, "deny.json", 1, "Err(PermissionDenied)\n")] {
        let id = rig.run_with(&pod, config(kind, name)).await;
        let (status, _) = rig.exec(&id, &["cat", "/proc/self/status"]).await;
        assert!(status.contains(&format!("Seccomp_filters:\t{filters}")), "{status}");
        assert_eq!(rig.exec(&id, &["mkdir", "/made"]).await.0, mkdir, "{kind} {name}");
    }
    for name in ["nosuch.json", "odd.json"] {
        let request = CreateContainerRequest { pod_sandbox_id: pod.clone(), config: Some(config(2, name)), sandbox_config: None };
        assert!(rig.cri.runtime.clone().create_container(request).await.unwrap_err().message().contains(name));
    }
}
