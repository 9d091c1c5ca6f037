//! Forking, safely: only a process with a single thread may, so the child can run any Rust code.

use std::io;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::unistd::{ForkResult, Pid};

/// What [`fork`] returned.
#[derive(Debug)]
pub enum Forked {
    Child,
    Parent(Pid),
}

/// Forks the calling process. Fails when it has more than one thread: locks held by another thread (the allocator's,
/// say) would never be released in the child.
pub fn fork() -> io::Result<Forked> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("fork: the process has {threads} threads, not one")));
    }
    // SAFETY: the process has exactly one thread, so no lock can be held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Forked::Child),
        ForkResult::Parent { child } => Ok(Forked::Parent(child)),
    }
}

/// Gives every signal its default action and unblocks all: what a program expects at its start. (Rust ignores
/// SIGPIPE, and ignored signals survive `execve`.)
pub fn reset_signals() -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: SIG_DFL runs no code of ours.
        unsafe { sigaction(signal, &default) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Lets the kernel reap the children of this process (SIGCHLD ignored).
pub fn ignore_children() -> io::Result<()> {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::SA_NOCLDWAIT, SigSet::empty());
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { sigaction(Signal::SIGCHLD, &ignore) }?;
    Ok(())
}

/// Restores the default handling of SIGCHLD, so that children can be waited for.
pub fn keep_children() -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { sigaction(Signal::SIGCHLD, &default) }?;
    Ok(())
}

/// Sends `signal` (any number, real-time ones too) to the process `pid`.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill takes plain integers and touches no memory.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the process at once, without running destructors or `atexit` handlers: for forked children.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Becomes the do-nothing first process of a PID namespace: ends with its parent, lets the kernel reap, and holds no
/// descriptor of the process it was forked from (which would keep others' pipes open).
pub fn run_init() -> ! {
    let ready = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).is_ok() && ignore_children().is_ok();
    // SAFETY: this function never returns, so nothing uses the descriptors' owners again.
    let closed = unsafe { libc::close_range(0, libc::c_uint::MAX, 0) } == 0;
    if !(ready && closed) {
        exit_now(1);
    }
    loop {
        nix::unistd::pause();
    }
}

/// The raw wait status of one exited child, or none: `(pid, exit code, terminating signal)`.
pub fn reap_any() -> io::Result<Option<(i32, i32, Option<i32>)>> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match pid {
        0 => Ok(None),
        -1 => {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) }
        }
        pid if libc::WIFSIGNALED(status) => Ok(Some((pid, 128 + libc::WTERMSIG(status), Some(libc::WTERMSIG(status))))),
        pid => Ok(Some((pid, libc::WEXITSTATUS(status), None))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_to_fork_with_threads() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        assert!(fork().is_err());
        drop(stop);
        assert!(other.join().is_ok());
    }

    #[test]
    fn kill_refuses_groups() {
        assert!(kill(0, 0).is_err() && kill(-1, 0).is_err());
    }
}
