//! What the daemon and a shim say to each other: one JSON frame each way per connection, file descriptors beside it.
//!
//! Versioned, because a shim outlives the daemon that started it: fields are only ever added, with defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Raised when an older shim could misread a newer daemon.
pub const VERSION: u32 = 1;

/// What a new shim is told by way of the zygote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxSpec {
    pub id: String,
    pub socket: PathBuf,
    /// Where the shim writes its log.
    pub log: PathBuf,
    /// Empty: keep the host's.
    pub hostname: String,
    pub host_network: bool,
    pub host_ipc: bool,
    /// One PID namespace for all containers, with a tiny init.
    pub shared_pid: bool,
    pub sysctls: BTreeMap<String, String>,
    /// The shim's own cgroup.
    pub cgroup: String,
    pub version: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    #[default]
    Container,
    Pod,
    Host,
    /// The namespace of the process with this host PID.
    Target(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    Private,
    HostToContainer,
    Bidirectional,
}

/// A bind mount from the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BindMount {
    pub source: PathBuf,
    pub target: String,
    pub readonly: bool,
    pub recursive_readonly: bool,
    pub propagation: MountPropagation,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceSpec {
    pub host_path: PathBuf,
    pub container_path: String,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum SeccompSpec {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// The text of a profile in the OCI JSON form.
    Profile(String),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rlimit {
    pub resource: String,
    pub soft: u64,
    pub hard: u64,
}

/// A program to run, and as whom.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessSpec {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    /// `user[:group]`, numbers or names of the container's `/etc/passwd` and `/etc/group`.
    pub user: String,
    pub supplemental_groups: Vec<u32>,
    /// Do not add the groups that the container's `/etc/group` lists for the user.
    pub strict_groups: bool,
    /// Numbers of the capabilities in the bounding, permitted, effective sets.
    pub capabilities: Vec<u32>,
    pub ambient: Vec<u32>,
    pub no_new_privileges: bool,
    pub seccomp: SeccompSpec,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    pub tty: bool,
    #[serde(default)]
    pub apparmor: Option<String>,
}

/// Limits, in the units of the cgroup v1 files; zero means unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    pub cpu_shares: u64,
    pub cpu_quota: i64,
    pub cpu_period: u64,
    pub memory_limit_bytes: i64,
    pub memory_swap_limit_bytes: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub hugepages: Vec<(String, u64)>,
    pub pids_limit: i64,
    pub unified: BTreeMap<String, String>,
}

/// A container to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub id: String,
    /// Holds `rootfs`, `upper`, `work`, `exit.json`.
    pub dir: PathBuf,
    /// Unpacked layers, lowest first.
    pub layers: Vec<PathBuf>,
    pub readonly_rootfs: bool,
    pub mounts: Vec<BindMount>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub devices: Vec<DeviceSpec>,
    pub privileged: bool,
    pub process: ProcessSpec,
    pub pid_mode: PidMode,
    pub cgroup: String,
    pub resources: Resources,
    pub shm: Option<PathBuf>,
    pub stdin: bool,
    pub stdin_once: bool,
    pub log: Option<PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecSpec {
    pub container: String,
    pub process: ProcessSpec,
    pub stdin: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    State,
    Start(Box<ContainerSpec>),
    /// Answered with [`Response::Spawned`] and, in order, the descriptors: the terminal, or stdin (when asked for),
    /// stdout, stderr. Later [`Response::Exited`] follows on the same connection.
    Exec(Box<ExecSpec>),
    Signal {
        container: String,
        signal: i32,
        /// Every process of the container, not only its first.
        all: bool,
    },
    /// Descriptors: stdout, stderr (or the terminal's output), then stdin or the terminal if the container has one.
    Attach {
        container: String,
    },
    ReopenLog {
        container: String,
    },
    /// Forgets an exited container.
    Remove {
        container: String,
    },
    /// A fresh TCP socket in the pod's network namespace.
    Socket {
        ipv6: bool,
    },
    /// The connection becomes a stream of [`Event`]s, the current state first.
    Subscribe,
    /// Kills every container and ends the shim.
    Shutdown,
}

/// How a container's first process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: i32,
    pub finished_ns: i64,
    pub oom_killed: bool,
    /// The shim died first: the code is a guess.
    #[serde(default)]
    pub lost: bool,
}

/// Whom a container's first process runs as, once names were looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerState {
    pub id: String,
    pub pid: i32,
    pub started_ns: i64,
    pub identity: Identity,
    pub exit: Option<Exit>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShimState {
    pub version: u32,
    pub pid: i32,
    pub init_pid: Option<i32>,
    pub containers: Vec<ContainerState>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Response {
    Done,
    Failed(String),
    NotFound(String),
    State(ShimState),
    Started(ContainerState),
    Spawned { pid: i32 },
    Exited { code: i32 },
    Attached { tty: bool, stdin: bool },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    State(ShimState),
    Exited { container: String, exit: Exit },
}
