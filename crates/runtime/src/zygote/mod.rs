//! The zygote: a single-threaded process that forks shims, so that they share its pages and start in a millisecond.
//!
//! The binary's `main` calls [`main`] before anything that starts a thread. [`client::Zygote`] is the daemon's side.
//! It ends when the daemon's end of its socket closes; shims live on.

pub mod client;

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use sys::process::Forked;

use crate::shim;
use crate::shim::protocol::SandboxSpec;

/// Serves spawn requests on standard input, a unix socket. Each carries the descriptor that its shim reports to.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zygote: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> std::io::Result<()> {
    // Containers must not reach this program through /proc/PID/exe while a shim sets them up.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    sys::process::ignore_children()?;
    let control = rustix::stdio::stdin();
    let (mut buffer, mut descriptors) = (Vec::new(), Vec::new());
    loop {
        let spec: SandboxSpec = match shim::frame::read(control, &mut buffer, &mut descriptors) {
            Ok(spec) => spec,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        if descriptors.is_empty() {
            return Err(std::io::Error::other("a request came without a descriptor to report to"));
        }
        spawn(&spec, descriptors.remove(0), &mut descriptors)?;
    }
}

fn spawn(spec: &SandboxSpec, report: OwnedFd, others: &mut Vec<OwnedFd>) -> std::io::Result<()> {
    if let Forked::Parent(_) = sys::process::fork()? {
        return Ok(());
    }
    // The shim must not hold the reports of later shims; the control socket goes when it redirects its stdin.
    others.clear();
    sys::process::exit_now(shim::run(spec, report))
}
