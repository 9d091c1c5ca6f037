//! The far ends: privileged containers, host namespaces, devices, terminals without clients, hostile container paths.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use cri::v1::*;
use support::Rig;

fn context(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_on_the_host_network() {
    let Some(rig) = Rig::new().await else { return };
    let mut pod = rig.sandbox_config("privileged");
    let options = NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
        ipc: NamespaceMode::Node.into(),
        ..Default::default()
    };
    pod.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = Some(options);
    let pod = rig.sandbox_with(pod).await;
    let mut config = Rig::container_config(&["sleep"]);
    context(&mut config).privileged = true;
    let id = rig.run_with(&pod, config).await;
    let (status, _) = rig.exec(&id, &["cat", "/proc/1/status"]).await;
    assert!(status.contains("Seccomp:\t0"), "{status}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(rig.exec(&id, &["cat", "/proc/sys/kernel/hostname"]).await.0, host);
    let (links, _) = rig.exec(&id, &["cat", "/proc/net/dev"]).await;
    assert_eq!(links.lines().count(), std::fs::read_to_string("/proc/net/dev").unwrap().lines().count());
    assert!(rig.exec(&id, &["ls", "/sys/fs/cgroup"]).await.0.len() > 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_has_its_own_network_with_loopback() {
    let Some(rig) = Rig::new().await else { return };
    let mut pod = rig.sandbox_config("own");
    pod.linux.as_mut().unwrap().sysctls = [("net.ipv4.ip_local_port_range".to_owned(), "2000 3000".to_owned())].into();
    let pod = rig.sandbox_with(pod).await;
    let id = rig.run(&pod, &["sleep"]).await;
    assert!(rig.exec(&id, &["cat", "/proc/net/dev"]).await.0.contains("lo:"));
    assert_eq!(rig.exec(&id, &["cat", "/proc/sys/net/ipv4/ip_local_port_range"]).await.0, "2000\t3000\n");
    let mut bad = rig.sandbox_config("sysctl");
    bad.linux.as_mut().unwrap().sysctls = [("kernel.panic".to_owned(), "1".to_owned())].into();
    let request = RunPodSandboxRequest { config: Some(bad), ..Default::default() };
    let error = rig.cri.runtime.clone().run_pod_sandbox(request).await.unwrap_err();
    assert!(error.message().contains("kernel.panic"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_given_one_by_one() {
    let Some(rig) = Rig::new().await else { return };
    let pod = rig.sandbox("devices").await;
    let mut config = Rig::container_config(&["sleep"]);
    config.devices = vec![Device { container_path: "/dev/my/null".into(), host_path: "/dev/null".into(), permissions: "rw".into() }];
    let id = rig.run_with(&pod, config).await;
    assert_eq!(rig.exec(&id, &["write", "/dev/my/null", "x"]).await, ("written\n".into(), 0));
    let (listing, _) = rig.exec(&id, &["ls", "/dev"]).await;
    for name in ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "tty", "urandom", "zero"] {
        assert!(listing.contains(&format!("\"{name}\"")), "{listing}");
    }
    assert!(!listing.contains("kmsg") && !listing.contains("mem"), "{listing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_mounts_travel_as_asked() {
    let Some(rig) = Rig::new().await else { return };
    let pod = rig.sandbox("propagation").await;
    let shared = rig.path("shared");
    std::fs::create_dir(&shared).unwrap();
    rustix::mount::mount_bind(&shared, &shared).unwrap();
    let _unmount = Unmount(shared.clone());
    rustix::mount::mount_change(&shared, rustix::mount::MountPropagationFlags::SHARED).unwrap();
    let mut config = Rig::container_config(&["sleep"]);
    let mount = |target: &str, propagation: MountPropagation| Mount {
        container_path: target.into(),
        host_path: shared.display().to_string(),
        propagation: propagation.into(),
        ..Default::default()
    };
    config.mounts = vec![
        mount("/private", MountPropagation::PropagationPrivate),
        mount("/slave", MountPropagation::PropagationHostToContainer),
        mount("/both", MountPropagation::PropagationBidirectional),
    ];
    let id = rig.run_with(&pod, config).await;
    let inner = shared.join("inner");
    std::fs::create_dir(&inner).unwrap();
    rustix::mount::mount("none", &inner, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let _inner = Unmount(inner.clone());
    std::fs::write(inner.join("late"), "mounted later").unwrap();
    assert_eq!(rig.exec(&id, &["cat", "/private/inner/late"]).await.1, 1);
    for target in ["/slave", "/both"] {
        assert_eq!(rig.exec(&id, &["cat", &format!("{target}/inner/late")]).await.0, "mounted later", "{target}");
    }
    let (mounts, _) = rig.exec(&id, &["cat", "/proc/self/mountinfo"]).await;
    let options = |target: &str| mounts.lines().find(|l| l.split(' ').nth(4) == Some(target)).unwrap().to_owned();
    assert!(options("/both").contains(" shared:") && options("/slave").contains(" master:"), "{mounts}");
    assert!(!options("/private").contains(" shared:") && !options("/private").contains(" master:"), "{mounts}");
}

/// Takes a test's mount away, however the test ends.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH) {
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}
