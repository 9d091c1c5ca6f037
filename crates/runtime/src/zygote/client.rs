//! The daemon's side of the zygote: starts it, asks it for shims, restarts it when it died.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::shim::frame;
use crate::shim::protocol::SandboxSpec;

struct Running {
    child: Child,
    control: UnixStream,
}

/// Starts shims.
pub struct Zygote {
    command: Vec<OsString>,
    running: Mutex<Option<Running>>,
}

impl Zygote {
    /// `command` is a program and arguments that end in [`super::main`].
    pub fn new(command: Vec<OsString>) -> Self {
        Self { command, running: Mutex::new(None) }
    }

    fn start(&self) -> io::Result<Running> {
        let (program, args) = self.command.split_first().ok_or_else(|| io::Error::other("no zygote command"))?;
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .env_remove("RUST_BACKTRACE")
            .current_dir("/")
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("start the zygote {}: {e}", program.display())))?;
        Ok(Running { child, control: ours })
    }

    /// Has a shim forked for `spec`. Blocks until the sandbox stands; returns its PID, or why it does not stand.
    pub fn spawn(&self, spec: &SandboxSpec) -> io::Result<i32> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let mut sent = match running.as_ref() {
                Some(zygote) => frame::send(&zygote.control, spec, &[write.as_fd()]),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            if sent.is_err() {
                if let Some(dead) = running.take() {
                    end(dead)?;
                }
                let fresh = self.start()?;
                sent = frame::send(&fresh.control, spec, &[write.as_fd()]);
                *running = Some(fresh);
            }
            sent?;
        }
        drop(write);
        let mut text = Vec::new();
        std::fs::File::from(read).read_to_end(&mut text)?;
        if text.is_empty() {
            return Err(io::Error::other("the shim died while it made the sandbox"));
        }
        serde_json::from_slice::<Result<i32, String>>(&text)?.map_err(io::Error::other)
    }
}

fn end(zygote: Running) -> io::Result<()> {
    drop(zygote.control);
    let mut child = zygote.child;
    child.wait().map(drop)
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = running.map(end) {
            tracing::warn!(%error, "end the zygote");
        }
    }
}
