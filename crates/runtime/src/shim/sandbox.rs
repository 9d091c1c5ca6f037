//! Making a sandbox: the steps a fresh shim takes before it serves.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Component, Path};

use nix::sched::{CloneFlags, unshare};
use sys::process::Forked;

use super::protocol::SandboxSpec;
use super::rootfs::{Result, doing};
use super::server::Shim;
use super::spawn::{PidNamespace, fork_into};
use crate::cgroup::Cgroup;

/// Runs in the child that the zygote forked: makes the sandbox, says so on `report` (empty text: it stands), serves until
/// told to end.
pub(crate) fn run(spec: &SandboxSpec, report: OwnedFd) -> i32 {
    let report = File::from(report);
    match set_up(spec) {
        Ok(mut shim) => {
            if let Err(error) = tell(&report, &Ok(nix::unistd::getpid().as_raw())) {
                eprintln!("report to the daemon: {error}");
                return 1;
            }
            drop(report);
            shim.serve();
            if let Err(error) = std::fs::remove_file(&spec.socket) {
                eprintln!("remove {}: {error}", spec.socket.display());
            }
            0
        }
        Err(message) => {
            if let Err(error) = tell(&report, &Err(message.clone())) {
                eprintln!("report {message:?} to the daemon: {error}");
            }
            1
        }
    }
}

fn tell(mut report: &File, outcome: &std::result::Result<i32, String>) -> std::io::Result<()> {
    use std::io::Write;
    report.write_all(&serde_json::to_vec(outcome)?)
}

fn set_up(spec: &SandboxSpec) -> Result<Shim> {
    rustix::process::setsid().map_err(doing("setsid"))?;
    sys::process::keep_children().map_err(doing("wait for children"))?;
    redirect(&spec.log)?;
    let cgroup = Cgroup::new(spec.cgroup.clone()).map_err(doing("shim cgroup"))?;
    cgroup.create().and_then(|()| cgroup.join(0)).map_err(doing("enter the shim's cgroup"))?;
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-998") {
        eprintln!("set oom_score_adj to -998: {error}");
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(doing("adopt orphans"))?;
    let mut flags = CloneFlags::empty();
    if !spec.host_network {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    if !spec.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    unshare(flags).map_err(doing("new namespaces"))?;
    if !spec.host_network {
        sys::link::loopback_up().map_err(doing("bring up loopback"))?;
        if !spec.hostname.is_empty() {
            nix::unistd::sethostname(&spec.hostname).map_err(doing("set the host name"))?;
        }
    }
    set_sysctls(spec)?;
    let own_pid = OwnedFd::from(File::open("/proc/self/ns/pid").map_err(doing("open PID namespace"))?);
    let init = if spec.shared_pid { Some(start_init(&own_pid)?) } else { None };
    if let Some(dir) = spec.socket.parent() {
        std::fs::create_dir_all(dir).map_err(doing(format_args!("make {}", dir.display())))?;
    }
    let listener = UnixListener::bind(&spec.socket).map_err(doing(format_args!("listen on {}", spec.socket.display())))?;
    Shim::new(listener, own_pid, init).map_err(doing("start serving"))
}

/// Standard streams must not tie the shim to the daemon's terminal or pipes.
fn redirect(log: &Path) -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null").map_err(doing("open /dev/null"))?;
    let log = File::options().append(true).create(true).open(log).map_err(doing("open the shim's log"))?;
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&log))
        .map_err(doing("redirect standard streams"))
}

/// Namespaced sysctls only, by both spellings (`net.core.somaxconn`, `net/core/somaxconn`).
fn set_sysctls(spec: &SandboxSpec) -> Result<()> {
    for (name, value) in &spec.sysctls {
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        let network = path.starts_with("net/") && !spec.host_network;
        let ipc =
            (path.starts_with("fs/mqueue/") || path.starts_with("kernel/shm") || path.starts_with("kernel/msg") || path == "kernel/sem")
                && !spec.host_ipc;
        let plain = Path::new(&path).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || !(network || ipc) {
            return Err(format!("sysctl {name:?} is not in a namespace of the pod"));
        }
        std::fs::write(Path::new("/proc/sys").join(path), value).map_err(doing(format_args!("set sysctl {name} to {value:?}")))?;
    }
    Ok(())
}

/// The first process of a shared PID namespace: reaps, and ends with the shim.
fn start_init(own: &OwnedFd) -> Result<i32> {
    match fork_into(&PidNamespace::New, own.as_fd())? {
        Forked::Parent(pid) => Ok(pid.as_raw()),
        Forked::Child => sys::process::run_init(),
    }
}
