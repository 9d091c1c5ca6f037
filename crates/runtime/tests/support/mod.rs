//! A runtime of its own per test, with an image made from the guest program. Everything goes when the rig is dropped.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, unused_macros, clippy::allow_attributes, reason = "each test file uses its part")]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cri::v1::*;
use runtime::images::{ImageConfig, Program};
use runtime::{Config, Handle, LoopbackOnly, Runtime};
use tokio_util::sync::CancellationToken;

/// A rig, or the end of the test where the machine cannot have one.
macro_rules! rig {
    () => {
        match $crate::support::Rig::new().await {
            Some(rig) => rig,
            None => return,
        }
    };
}

pub const IMAGE: &str = "test/guest";

/// The static guest program, compiled once per test run; None when this machine cannot.
pub fn guest() -> Option<&'static [u8]> {
    static GUEST: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let compile = || {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("guest");
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/guest/program.rs");
        let status = std::process::Command::new("rustc")
            .args(["--edition=2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-A", "warnings", "-o"])
            .arg(&out)
            .arg(source)
            .status();
        if !status.is_ok_and(|s| s.success()) {
            return None;
        }
        std::fs::read(out).ok()
    };
    GUEST.get_or_init(compile).as_deref()
}

pub struct Rig {
    pub config: Config,
    pub handle: Option<Handle>,
    pub cri: cri::Clients,
    cancel: CancellationToken,
    dir: tempfile::TempDir,
}

impl Rig {
    /// None (said why) when the machine cannot run containers.
    pub async fn new() -> Option<Self> {
        if !trial::is_root() {
            return None;
        }
        let Some(bytes) = tokio::task::spawn_blocking(guest).await.unwrap() else {
            println!("skipped: rustc cannot link a static program here");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        let mut config = Config::new(dir.path().join("data"), dir.path().join("run"), format!("test-{name}"));
        config.zygote = vec![env!("CARGO_BIN_EXE_skiff-runtime").into(), "zygote".into()];
        config.seccomp_dir = dir.path().join("seccomp");
        let cancel = CancellationToken::new();
        let handle = Runtime::start(config.clone(), Arc::new(LoopbackOnly), cancel.clone()).await.unwrap();
        let images = handle.images();
        let program = Program { image: IMAGE, bytes, path: "/bin/guest", links: &["/bin/alias"], config: ImageConfig::default() };
        images.build(&program).unwrap();
        let cri = cri::connect(&config.socket).await.unwrap();
        Some(Self { config, handle: Some(handle), cri, cancel, dir })
    }

    /// Ends the daemon and starts another on the same state.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub async fn stop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.stop().await;
        }
    }

    pub async fn start(&mut self) {
        self.start_with(Arc::new(LoopbackOnly)).await;
    }

    pub async fn start_with(&mut self, network: Arc<dyn runtime::PodNetwork>) {
        self.handle = Some(Runtime::start(self.config.clone(), network, self.cancel.clone()).await.unwrap());
        self.cri = cri::connect(&self.config.socket).await.unwrap();
    }

    pub fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn sandbox_config(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata { name: name.into(), uid: format!("uid-{name}"), namespace: "default".into(), attempt: 0 }),
            hostname: name.into(),
            log_directory: self.logs().display().to_string(),
            labels: [("app".to_owned(), name.to_owned())].into(),
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub async fn sandbox(&self, name: &str) -> String {
        self.sandbox_with(self.sandbox_config(name)).await
    }

    pub async fn sandbox_with(&self, config: PodSandboxConfig) -> String {
        let request = RunPodSandboxRequest { config: Some(config), ..Default::default() };
        self.cri.runtime.clone().run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    }

    pub fn container_config(args: &[&str]) -> ContainerConfig {
        let name = args.first().copied().unwrap_or("none").to_owned();
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.clone(), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
            command: vec!["guest".into()],
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() }),
                    seccomp: Some(SecurityProfile::default()),
                    masked_paths: vec!["/proc/interrupts".into(), "/proc/acpi".into()],
                    readonly_paths: vec!["/proc/sys".into()],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub async fn create(&self, sandbox: &str, config: ContainerConfig) -> String {
        let request = CreateContainerRequest { pod_sandbox_id: sandbox.into(), config: Some(config), sandbox_config: None };
        self.cri.runtime.clone().create_container(request).await.unwrap().into_inner().container_id
    }

    pub async fn try_start(&self, id: &str) -> Result<(), tonic::Status> {
        self.cri.runtime.clone().start_container(StartContainerRequest { container_id: id.into() }).await.map(drop)
    }

    /// Creates and starts a container that runs the guest with `args`.
    pub async fn run(&self, sandbox: &str, args: &[&str]) -> String {
        self.run_with(sandbox, Self::container_config(args)).await
    }

    pub async fn run_with(&self, sandbox: &str, config: ContainerConfig) -> String {
        let id = self.create(sandbox, config).await;
        self.try_start(&id).await.unwrap();
        id
    }

    pub async fn status(&self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        self.cri.runtime.clone().container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    pub async fn pid(&self, id: &str) -> i32 {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: true };
        let info = self.cri.runtime.clone().container_status(request).await.unwrap().into_inner().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        i32::try_from(info["pid"].as_i64().unwrap()).unwrap()
    }

    pub async fn exited(&self, id: &str) -> ContainerStatus {
        let exited = async || Some(self.status(id).await).filter(|status| status.state() == ContainerState::ContainerExited);
        trial::found(&format!("container {id} exits"), exited).await
    }

    pub async fn exec(&self, id: &str, args: &[&str]) -> (String, i32) {
        let cmd = std::iter::once("guest").chain(args.iter().copied()).map(str::to_owned).collect();
        let request = ExecSyncRequest { container_id: id.into(), cmd, timeout: 10 };
        let response = self.cri.runtime.clone().exec_sync(request).await.unwrap().into_inner();
        (String::from_utf8(response.stdout).unwrap(), response.exit_code)
    }

    /// The log's lines, without times; waits until `enough`.
    pub async fn log_until(&self, name: &str, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let path = self.logs().join(format!("{name}.log"));
        let mut lines = Vec::new();
        for _ in 0..500 {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            lines = text.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect();
            if enough(&lines) {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name}: {lines:?}");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Err(error) = runtime::teardown(&self.config, false) {
            eprintln!("teardown: {error}");
        }
    }
}
