//! Starting processes from a shim: fork, let the child set itself up, and hear from it whether the program runs.
//!
//! Serial by construction: the shim is single-threaded and waits for the child's report.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};
use sys::process::Forked;

use super::frame;
use super::process::{self, Stdio};
use super::protocol::{ContainerSpec, ExecSpec, Identity};
use super::rootfs::{self, Result, doing};
use crate::cgroup::Cgroup;

/// Setting a process up takes milliseconds; beyond this it hangs.
const SET_UP_WITHIN: std::time::Duration = std::time::Duration::from_secs(45);

/// What a child says before it becomes the program, and if it fails to.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Ready { identity: Identity, warning: Option<String> },
    Failed(String),
}

/// A running program.
pub struct Spawned {
    pub pid: i32,
    pub identity: Identity,
    /// The master side of its terminal.
    pub terminal: Option<OwnedFd>,
    pub warning: Option<String>,
}

/// Which PID namespace the child is born into.
pub enum PidNamespace<'a> {
    Own,
    New,
    Join(BorrowedFd<'a>),
}

/// The namespaces of a running container that an exec joins.
pub struct Namespaces {
    pub mount: OwnedFd,
    pub pid: OwnedFd,
    pub cgroup: OwnedFd,
}

impl Namespaces {
    pub fn of(pid: i32) -> io::Result<Self> {
        let open = |name: &str| std::fs::File::open(format!("/proc/{pid}/ns/{name}")).map(OwnedFd::from);
        Ok(Self { mount: open("mnt")?, pid: open("pid")?, cgroup: open("cgroup")? })
    }
}

/// A pipe, both ends close-on-exec: (read, write).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Forks into the PID namespace. `own` is the shim's, to go back to.
pub fn fork_into(namespace: &PidNamespace<'_>, own: BorrowedFd<'_>) -> Result<Forked> {
    match namespace {
        PidNamespace::Own => {}
        PidNamespace::New => unshare(CloneFlags::CLONE_NEWPID).map_err(doing("new PID namespace"))?,
        PidNamespace::Join(fd) => setns(fd, CloneFlags::CLONE_NEWPID).map_err(doing("join PID namespace"))?,
    }
    let forked = sys::process::fork().map_err(doing("fork"))?;
    if let (Forked::Parent(_), false) = (&forked, matches!(namespace, PidNamespace::Own)) {
        setns(own, CloneFlags::CLONE_NEWPID).map_err(doing("leave PID namespace"))?;
    }
    Ok(forked)
}

fn run(
    namespace: &PidNamespace<'_>,
    own: BorrowedFd<'_>,
    child: impl FnOnce(&UnixStream) -> Result<std::convert::Infallible>,
) -> Result<Spawned> {
    let (ours, theirs) = UnixStream::pair().map_err(doing("socket pair"))?;
    let pid = match fork_into(namespace, own)? {
        Forked::Child => {
            drop(ours);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| child(&theirs)));
            let message = match outcome {
                Ok(Err(message)) => message,
                Ok(Ok(never)) => match never {},
                Err(_) => "setting the process up panicked".to_owned(),
            };
            // Nobody is left to tell if this fails too; the parent then sees the end of the stream and the exit.
            let code = if frame::send(&theirs, &Report::Failed(message), &[]).is_ok() { 128 } else { 129 };
            sys::process::exit_now(code)
        }
        Forked::Parent(pid) => pid.as_raw(),
    };
    drop(theirs);
    // A child that hangs (on a dead network file system, say) must not hang the pod's other containers for ever.
    ours.set_read_timeout(Some(SET_UP_WITHIN)).map_err(doing("limit the wait for the new process"))?;
    let (mut buffer, mut descriptors) = (Vec::new(), Vec::new());
    let mut ready = None;
    loop {
        match frame::read::<Report>(&ours, &mut buffer, &mut descriptors) {
            Ok(Report::Ready { identity, warning }) => ready = Some((identity, warning)),
            Ok(Report::Failed(message)) => return Err(message),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => {
                if let Err(error) = sys::process::kill(pid, nix::sys::signal::Signal::SIGKILL as i32) {
                    eprintln!("kill the process that did not start: {error}");
                }
                return Err(format!("hear from the new process: {error}"));
            }
        }
    }
    let (identity, warning) = ready.ok_or("the new process died while it was set up")?;
    Ok(Spawned { pid, identity, terminal: descriptors.pop(), warning })
}

/// Starts a container's first process.
pub fn container(spec: &ContainerSpec, stdio: Stdio, namespace: &PidNamespace<'_>, own: BorrowedFd<'_>) -> Result<Spawned> {
    let cgroup = Cgroup::new(spec.cgroup.clone()).map_err(doing("container cgroup"))?;
    cgroup.create().map_err(doing("make the container's cgroup"))?;
    cgroup.limit(&spec.resources).map_err(doing("set the container's limits"))?;
    cgroup.allow_devices(&spec.devices, spec.privileged).map_err(doing("allow devices"))?;
    run(namespace, own, |report| {
        cgroup.join(0).map_err(doing("join the container's cgroup"))?;
        let warning = process::set_oom_score(&spec.process);
        let detached = rootfs::prepare(spec)?;
        rootfs::enter(spec, detached)?;
        let user = process::resolve_user(&spec.process)?;
        let terminal = process::connect(stdio)?;
        process::execute(&spec.process, &user, || tell(report, &user.identity, warning, terminal.as_ref()))
    })
}

/// Starts another process in a running container.
pub fn exec(spec: &ExecSpec, cgroup: &str, namespaces: &Namespaces, stdio: Stdio, own: BorrowedFd<'_>) -> Result<Spawned> {
    let cgroup = Cgroup::new(cgroup).map_err(doing("container cgroup"))?;
    run(&PidNamespace::Join(namespaces.pid.as_fd()), own, |report| {
        cgroup.join(0).map_err(doing("join the container's cgroup"))?;
        let warning = process::set_oom_score(&spec.process);
        setns(&namespaces.cgroup, CloneFlags::CLONE_NEWCGROUP).map_err(doing("join cgroup namespace"))?;
        setns(&namespaces.mount, CloneFlags::CLONE_NEWNS).map_err(doing("join mount namespace"))?;
        let user = process::resolve_user(&spec.process)?;
        let terminal = process::connect(stdio)?;
        process::execute(&spec.process, &user, || tell(report, &user.identity, warning, terminal.as_ref()))
    })
}

fn tell(report: &UnixStream, identity: &Identity, warning: Option<String>, terminal: Option<&OwnedFd>) -> Result<()> {
    let descriptors: Vec<_> = terminal.map(AsFd::as_fd).into_iter().collect();
    frame::send(report, &Report::Ready { identity: identity.clone(), warning }, &descriptors).map_err(doing("report to the shim"))
}
