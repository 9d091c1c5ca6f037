//! The skiff binary: the composition root. Only wiring, command lines and the life of a local cluster live here.

mod claim;
mod commands;
mod component;
mod configz;
mod control;
mod daemon;
mod hello_image;
mod instance;
mod kubeconfig;
mod log;
mod node;
mod own_objects;
mod process;
mod progress;
mod review;
mod roles;
mod signer;
mod snapshots;
mod supervisor;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use instance::Dirs;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Kubernetes in Rust, complete, in one small binary.
#[derive(Parser)]
#[command(name = "skiff", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where a cluster lives.
#[derive(Args, Clone)]
pub struct Place {
    /// Where the cluster's data is kept
    #[arg(long, global = true, env = "SKIFF_DATA_DIR", default_value = "/var/lib/skiff")]
    data_dir: PathBuf,
    /// Where sockets and pid files are kept
    #[arg(long, global = true, env = "SKIFF_RUN_DIR", default_value = "/run/skiff")]
    run_dir: PathBuf,
}

impl Place {
    fn dirs(&self) -> anyhow::Result<Dirs> {
        Ok(Dirs { data: std::path::absolute(&self.data_dir)?, run: std::path::absolute(&self.run_dir)? })
    }
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster, or bring it back after `down`
    Up(commands::up::UpArgs),
    /// Stop the cluster; its data stays
    Down {
        #[command(flatten)]
        place: Place,
    },
    /// Stop the cluster and remove its data
    Delete {
        #[command(flatten)]
        place: Place,
    },
    /// Show nodes, components, versions, addresses and resource use
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Container images of the cluster
    Image(commands::image::ImageArgs),
    /// Extra nodes of the cluster
    Node(commands::node::NodeArgs),
    /// Snapshots of the datastore, restoring, checking, compacting
    Datastore(commands::datastore::DatastoreArgs),
    /// Say what this machine lacks
    Doctor,
    /// Run the API server alone
    #[command(name = "kube-apiserver")]
    KubeApiserver(Box<roles::kube_apiserver::Flags>),
    /// Run the controllers alone
    #[command(name = "kube-controller-manager")]
    KubeControllerManager(roles::kube_controller_manager::Flags),
    /// Run the scheduler alone
    #[command(name = "kube-scheduler")]
    KubeScheduler(roles::kube_scheduler::Flags),
    /// Run API server, controllers and scheduler in one process, for nodes that run elsewhere
    #[command(name = "control-plane")]
    ControlPlane(Box<roles::control_plane::Flags>),
    /// Run a node's agent and its container runtime alone
    Kubelet(Box<roles::kubelet::Flags>),
    /// Run a node's service proxy alone
    #[command(name = "kube-proxy")]
    KubeProxy(roles::kube_proxy::Flags),
    /// What `up` starts
    #[command(hide = true)]
    Supervise {
        #[command(flatten)]
        place: Place,
    },
    #[command(hide = true)]
    Daemon {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        snapshots: snapshots::Flags,
    },
    /// An extra node's agent
    #[command(hide = true)]
    NodeAgent {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        node: u16,
    },
}

impl Command {
    /// It prints and ends; servers must live through a connection that closes.
    fn is_brief(&self) -> bool {
        matches!(
            self,
            Self::Up(_) | Self::Down { .. } | Self::Delete { .. } | Self::Status { .. } | Self::Image(_) | Self::Node(_) | Self::Doctor
        )
    }
}

fn main() -> ExitCode {
    // The zygote forks: it must come before any thread, allocator pool or signal handler of ours.
    if std::env::args_os().nth(1).is_some_and(|a| a == "zygote") {
        return runtime::zygote::main();
    }
    let command = Cli::parse().command;
    // Rust ignores SIGPIPE: printing into `head` would panic.
    if command.is_brief()
        && let Err(error) = sys::process::reset_signals()
    {
        eprintln!("skiff: a closed pipe will look like a failure: {error}");
    }
    let result = match command {
        Command::Up(arguments) => commands::up::run(&arguments),
        Command::Down { place } => place.dirs().and_then(|d| commands::down::run(&d)),
        Command::Delete { place } => place.dirs().and_then(|d| commands::down::delete(&d)),
        Command::Status { place } => place.dirs().and_then(|d| commands::status::run(&d)),
        Command::Image(arguments) => commands::image::run(&arguments),
        Command::Node(arguments) => commands::node::run(&arguments),
        Command::Datastore(arguments) => commands::datastore::run(&arguments),
        Command::Doctor => commands::doctor::run(),
        Command::KubeApiserver(flags) => roles::kube_apiserver::run(&flags),
        Command::KubeControllerManager(flags) => roles::kube_controller_manager::run(&flags),
        Command::KubeScheduler(flags) => roles::kube_scheduler::run(&flags),
        Command::ControlPlane(flags) => roles::control_plane::run(&flags),
        Command::Kubelet(flags) => roles::kubelet::run(&flags),
        Command::KubeProxy(flags) => roles::kube_proxy::run(&flags),
        Command::Supervise { place } => place.dirs().and_then(|d| commands::up::supervise(&d)),
        Command::Daemon { place, snapshots } => return place.dirs().map_or_else(|e| failed(&e), |d| daemon::main(&d, &snapshots)),
        Command::NodeAgent { place, node } => return place.dirs().map_or_else(|e| failed(&e), |d| daemon::node_main(&d, node)),
    };
    result.map_or_else(|e| failed(&e), |()| ExitCode::SUCCESS)
}

/// Prints what was being done, what went wrong and what to try, innermost cause last.
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("skiff: {error:#}");
    ExitCode::FAILURE
}
