//! What the binary decides about the runtime: where its state lives and what its host objects are called.
//!
//! Everything on the host is named from these: one cluster instance never touches another's.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Limits of what an image may hold; beyond them it is refused as hostile.
#[derive(Clone, Debug)]
pub struct ImageLimits {
    /// Bytes of one unpacked layer.
    pub layer_bytes_max: u64,
    /// Entries in one layer.
    pub layer_entries_max: u64,
    /// Unpacked bytes per packed byte, once past 64 MiB.
    pub ratio_max: u64,
    /// Layers in one image.
    pub layers_max: usize,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { layer_bytes_max: 64 << 30, layer_entries_max: 4_000_000, ratio_max: 1000, layers_max: 256 }
    }
}

/// The configuration of one runtime.
#[derive(Clone, Debug)]
pub struct Config {
    /// Images, layers, writable layers, state of sandboxes and containers.
    pub data_dir: PathBuf,
    /// Sockets; may be lost on reboot.
    pub run_dir: PathBuf,
    /// The cluster's (or node's) instance id.
    pub instance: String,
    /// Absolute path inside the cgroup hierarchies under which shims live, and pods whose sandbox names no parent.
    pub cgroup_parent: String,
    /// The socket the CRI is served on.
    pub socket: PathBuf,
    /// Program and arguments that end in [`crate::zygote::main`].
    pub zygote: Vec<OsString>,
    /// Registries (`host:port`) spoken to without TLS. Loopback ones are by default.
    pub insecure_registries: Vec<String>,
    /// Localhost seccomp profiles live here.
    pub seccomp_dir: PathBuf,
    pub image_limits: ImageLimits,
}

impl Config {
    /// The defaults: state in `data_dir`, sockets in `run_dir`, names from `instance`, this executable as zygote.
    pub fn new(data_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>, instance: impl Into<String>) -> Self {
        let (data_dir, run_dir, instance) = (data_dir.into(), run_dir.into(), instance.into());
        Self {
            cgroup_parent: format!("/skiff-{instance}"),
            socket: run_dir.join("cri.sock"),
            zygote: vec!["/proc/self/exe".into(), "zygote".into()],
            insecure_registries: Vec::new(),
            seccomp_dir: PathBuf::from("/var/lib/kubelet/seccomp"),
            image_limits: ImageLimits::default(),
            data_dir,
            run_dir,
            instance,
        }
    }

    pub(crate) fn images_dir(&self) -> PathBuf {
        self.data_dir.join("images")
    }

    pub(crate) fn sandboxes_dir(&self) -> PathBuf {
        self.data_dir.join("sandboxes")
    }

    pub(crate) fn containers_dir(&self) -> PathBuf {
        self.data_dir.join("containers")
    }

    /// Sockets have a path limit of 107 bytes, so the name is short.
    pub(crate) fn shim_socket(&self, sandbox: &str) -> PathBuf {
        shim_socket(&self.run_dir, sandbox)
    }

    pub(crate) fn shim_cgroup(&self, sandbox: &str) -> String {
        format!("{}/shims/{sandbox}", self.cgroup_parent)
    }
}

fn shim_socket(run_dir: &Path, sandbox: &str) -> PathBuf {
    run_dir.join("shims").join(sandbox.get(..16).unwrap_or(sandbox))
}
