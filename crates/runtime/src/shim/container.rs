//! A container as its shim holds it: streams, log, attached clients, exit.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;

use super::log::{LineSplitter, LogFile, Stream, format_entry, now};
use super::process::Stdio;
use super::protocol::{ContainerSpec, ContainerState, Exit, PidMode};
use super::spawn::{Namespaces, PidNamespace, Spawned, container, pipe};
use crate::cgroup::Cgroup;

/// Bytes kept for a slow attached client; the container's stream is not read further meanwhile.
const CHUNK_BYTES: usize = 16 * 1024;
/// Of an interactive container, so much is kept of each stream for whoever attaches first.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// A client that sees a copy of a stream.
struct Sink {
    pipe: OwnedFd,
    pending: Vec<u8>,
}

/// What an interactive container said before anybody listened: its client attaches only when it is seen to run.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    /// There was more than is kept.
    cut: bool,
}

impl Kept {
    fn push(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
        let over = self.bytes.len().saturating_sub(KEPT_BYTES_MAX);
        self.cut |= over > 0;
        self.bytes.drain(..over);
    }
}

/// One output stream of a container: read here, logged, copied to who is attached.
pub struct Output {
    pub fd: Option<OwnedFd>,
    stream: Stream,
    splitter: LineSplitter,
    sinks: Vec<Sink>,
    /// Until somebody attaches.
    kept: Option<Kept>,
}

impl Output {
    fn new(fd: OwnedFd, stream: Stream, keep: bool) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        Ok(Self { fd: Some(fd), stream, splitter: LineSplitter::default(), sinks: Vec::new(), kept: keep.then(Kept::default) })
    }

    /// Whether somebody who attaches now sees anything, or all there was.
    fn tells(&self) -> bool {
        self.fd.is_some() || self.kept.as_ref().is_some_and(|kept| !kept.cut)
    }

    /// Whether a slow client keeps this stream from being read.
    pub fn blocked(&self) -> bool {
        self.sinks.iter().any(|sink| !sink.pending.is_empty())
    }

    /// The pipes of the clients that are behind, to wait for.
    pub fn waiting(&self) -> impl Iterator<Item = &OwnedFd> {
        self.sinks.iter().filter(|sink| !sink.pending.is_empty()).map(|sink| &sink.pipe)
    }

    /// Sends what clients are behind by. Clients that went away are dropped, and, after the end, who has all.
    pub fn flush(&mut self) {
        let open = self.fd.is_some();
        self.sinks.retain_mut(|sink| {
            while !sink.pending.is_empty() {
                match rustix::io::write(&sink.pipe, &sink.pending) {
                    Ok(sent) => drop(sink.pending.drain(..sent)),
                    Err(rustix::io::Errno::AGAIN) => return true,
                    Err(_) => return false,
                }
            }
            open
        });
    }

    /// Reads once. Returns false when nothing more can be read now.
    fn read(&mut self, log: &mut Option<LogFile>) -> bool {
        let Some(fd) = &self.fd else { return false };
        let mut chunk = [0; CHUNK_BYTES];
        let data = match rustix::io::read(fd, &mut chunk) {
            Ok(0) | Err(rustix::io::Errno::IO) => return self.end(log), // EIO: the terminal has no one left
            Ok(count) => &chunk[..count],
            Err(rustix::io::Errno::INTR) => return true,
            Err(rustix::io::Errno::AGAIN) => return false,
            Err(_) => return self.end(log),
        };
        if let Some(log) = log {
            let (mut entries, time, stream) = (Vec::with_capacity(data.len() + 64), now(), self.stream);
            self.splitter.push(data, |line, full| format_entry(&mut entries, &time, stream, line, full));
            log.write(&entries);
        }
        if let Some(kept) = &mut self.kept {
            kept.push(data);
        }
        for sink in &mut self.sinks {
            sink.pending.extend_from_slice(data);
        }
        self.flush();
        true
    }

    /// The stream ended: logs what is left, and lets clients see the end.
    fn end(&mut self, log: &mut Option<LogFile>) -> bool {
        if let Some(log) = log {
            let (mut entries, time, stream) = (Vec::new(), now(), self.stream);
            self.splitter.finish(|line, full| format_entry(&mut entries, &time, stream, line, full));
            log.write(&entries);
        }
        self.fd = None;
        self.flush();
        false
    }

    /// Reads as long as there is something.
    pub fn drain(&mut self, log: &mut Option<LogFile>, rounds: usize) {
        for _ in 0..rounds {
            if self.blocked() || !self.read(log) {
                return;
            }
        }
    }

    fn attach(&mut self) -> io::Result<OwnedFd> {
        let (read, write) = pipe()?;
        set_nonblocking(&write)?;
        let pending = self.kept.take().map(|kept| kept.bytes).unwrap_or_default();
        self.sinks.push(Sink { pipe: write, pending });
        self.flush();
        Ok(read)
    }
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

pub struct Container {
    pub state: ContainerState,
    pub cgroup: String,
    pub outputs: Vec<Output>,
    pub log: Option<LogFile>,
    /// What execs join; dropped at the exit.
    pub namespaces: Option<Namespaces>,
    terminal: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdin_once: bool,
    dir: std::path::PathBuf,
    own_pid_namespace: bool,
}

/// Now, in nanoseconds since the epoch.
pub fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

impl Container {
    /// Starts the container of `spec`.
    pub fn start(spec: &ContainerSpec, namespace: &PidNamespace<'_>, own: &OwnedFd) -> Result<Self, String> {
        let io = |error: io::Error| format!("start container: {error}");
        let log = spec.log.as_deref().map(LogFile::open).transpose().map_err(|e| format!("open the container's log: {e}"))?;
        let (mut outputs, mut stdin) = (Vec::new(), None);
        let stdio = if spec.process.tty {
            Stdio::Terminal
        } else {
            let (stdout, stderr) = (pipe().map_err(io)?, pipe().map_err(io)?);
            outputs.push(Output::new(stdout.0, Stream::Stdout, spec.stdin_once).map_err(io)?);
            outputs.push(Output::new(stderr.0, Stream::Stderr, spec.stdin_once).map_err(io)?);
            let mut read = None;
            if spec.stdin {
                let ends = pipe().map_err(io)?;
                (read, stdin) = (Some(ends.0), Some(ends.1));
            }
            Stdio::Pipes(read, stdout.1, stderr.1)
        };
        let Spawned { pid, identity, terminal, warning } = container(spec, stdio, namespace, own.as_fd())?;
        if let Some(warning) = warning {
            eprintln!("container {}: {warning}", spec.id);
        }
        if let Some(master) = &terminal {
            outputs.push(Output::new(master.try_clone().map_err(io)?, Stream::Stdout, spec.stdin_once).map_err(io)?);
        }
        let state = ContainerState { id: spec.id.clone(), pid, started_ns: now_ns(), identity, exit: None };
        Ok(Self {
            state,
            cgroup: spec.cgroup.clone(),
            outputs,
            log,
            namespaces: Namespaces::of(pid).ok(),
            terminal,
            stdin,
            stdin_once: spec.stdin_once,
            dir: spec.dir.clone(),
            own_pid_namespace: spec.pid_mode == PidMode::Container,
        })
    }

    /// Its first process ended.
    pub fn exited(&mut self, code: i32) -> Exit {
        let cgroup = Cgroup::new(self.cgroup.clone());
        let oom_killed = code == 137 && cgroup.as_ref().is_ok_and(|c| c.oom_kills() > 0);
        if let (false, Ok(cgroup)) = (self.own_pid_namespace, &cgroup) {
            cgroup.kill();
        }
        let exit = Exit { code, finished_ns: now_ns(), oom_killed, lost: false };
        if let Err(error) = write_exit(&self.dir, &exit) {
            eprintln!("container {}: write its exit: {error}", self.state.id);
        }
        self.state.exit = Some(exit.clone());
        (self.namespaces, self.stdin) = (None, None);
        for output in &mut self.outputs {
            output.drain(&mut self.log, 4096);
        }
        exit
    }

    /// Descriptors for a client: output streams, then input if any. An error after the end, when there is nothing to tell: the
    /// client then takes the log.
    pub fn attach(&mut self) -> io::Result<(Vec<OwnedFd>, bool)> {
        if self.state.exit.is_some() && !self.outputs.iter().all(Output::tells) {
            return Err(io::Error::other("container is in CONTAINER_EXITED state"));
        }
        let mut descriptors = self.outputs.iter_mut().map(Output::attach).collect::<io::Result<Vec<_>>>()?;
        let input = match (&self.terminal, &self.stdin) {
            (Some(master), _) => Some(master.try_clone()?),
            (None, Some(_)) if self.stdin_once => self.stdin.take(),
            (None, Some(stdin)) => Some(stdin.try_clone()?),
            (None, None) => None,
        };
        let has_input = input.is_some();
        descriptors.extend(input);
        Ok((descriptors, has_input))
    }

    pub fn is_tty(&self) -> bool {
        self.terminal.is_some()
    }
}

/// Leaves the exit where a daemon finds it even when the shim is gone.
fn write_exit(dir: &Path, exit: &Exit) -> io::Result<()> {
    let temporary = dir.join("exit.json.new");
    std::fs::write(&temporary, serde_json::to_vec(exit)?)?;
    std::fs::rename(&temporary, dir.join("exit.json"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn output(keep: bool) -> (Output, std::fs::File) {
        let (read, write) = pipe().unwrap();
        (Output::new(read, Stream::Stdout, keep).unwrap(), write.into())
    }

    fn rest(output: &mut Output, client: OwnedFd) -> Vec<u8> {
        let (mut seen, mut client, mut chunk) = (Vec::new(), std::fs::File::from(client), vec![0; 4096]);
        loop {
            output.flush();
            match client.read(&mut chunk).unwrap() {
                0 => return seen,
                count => seen.extend_from_slice(&chunk[..count]),
            }
        }
    }

    #[test]
    fn what_was_said_before_somebody_attached_is_told_once() {
        let (mut output, mut program) = output(true);
        program.write_all(b"early ").unwrap();
        output.drain(&mut None, 4);
        let (first, second) = (output.attach().unwrap(), output.attach().unwrap());
        program.write_all(b"late").unwrap();
        drop(program);
        output.drain(&mut None, 4);
        assert_eq!(rest(&mut output, first), b"early late");
        assert_eq!(rest(&mut output, second), b"late");
        assert!(!output.tells(), "nothing is left for a third one");
    }

    #[test]
    fn it_is_told_after_the_end_too_unless_it_was_too_much() {
        for (bytes, tells) in [(KEPT_BYTES_MAX, true), (KEPT_BYTES_MAX + 1, false)] {
            let (mut output, mut program) = output(true);
            let writer = std::thread::spawn(move || program.write_all(&vec![b'x'; bytes]).unwrap());
            while output.fd.is_some() {
                output.drain(&mut None, 4);
            }
            writer.join().unwrap();
            assert_eq!(output.tells(), tells);
            let client = output.attach().unwrap();
            assert_eq!(rest(&mut output, client).len(), KEPT_BYTES_MAX);
        }
        let (plain, _program) = output(false);
        assert!(plain.kept.is_none(), "only interactive containers keep anything");
    }
}
