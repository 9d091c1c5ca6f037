//! The shim's loop: sockets, containers' streams and exits, all in one thread with `poll`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};

use super::container::Container;
use super::frame;
use super::process::Stdio;
use super::protocol::{ContainerSpec, Event, ExecSpec, PidMode, Request, Response, ShimState, VERSION};
use super::spawn::{self, PidNamespace, pipe};
use crate::cgroup::Cgroup;

/// Connections beyond this many are closed at once.
const CONNECTIONS_MAX: usize = 256;

struct Connection {
    socket: UnixStream,
    buffer: Vec<u8>,
    subscribed: bool,
    /// The exec that this connection waits for.
    exec_pid: Option<i32>,
    closed: bool,
}

pub struct Shim {
    listener: UnixListener,
    signals: SignalFd,
    own_pid: OwnedFd,
    init: Option<i32>,
    containers: BTreeMap<String, Container>,
    connections: Vec<Connection>,
    ending: bool,
}

/// What a descriptor in the poll set stands for.
enum Source {
    Listener,
    Signals,
    Connection(usize),
    Output(String, usize),
    Sink(String, usize),
}

impl Shim {
    pub fn new(listener: UnixListener, own_pid: OwnedFd, init: Option<i32>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { listener, signals, own_pid, init, containers: BTreeMap::new(), connections: Vec::new(), ending: false })
    }

    /// Serves until told to shut down.
    pub fn serve(&mut self) {
        while !self.ending {
            for source in self.wait() {
                match source {
                    Source::Listener => self.accept(),
                    Source::Signals => self.reap(),
                    Source::Connection(index) => self.read(index),
                    Source::Output(id, index) => {
                        if let Some(c) = self.containers.get_mut(&id) {
                            c.outputs[index].drain(&mut c.log, 16);
                        }
                    }
                    Source::Sink(id, index) => {
                        if let Some(c) = self.containers.get_mut(&id) {
                            c.outputs[index].flush();
                        }
                    }
                }
            }
            self.connections.retain(|c| !c.closed);
        }
    }

    /// Blocks until something is ready.
    fn wait(&self) -> Vec<Source> {
        let mut sources = vec![Source::Listener, Source::Signals];
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        for (index, connection) in self.connections.iter().enumerate() {
            sources.push(Source::Connection(index));
            fds.push(PollFd::new(&connection.socket, PollFlags::IN));
        }
        for (id, container) in &self.containers {
            for (index, output) in container.outputs.iter().enumerate() {
                for pipe in output.waiting() {
                    sources.push(Source::Sink(id.clone(), index));
                    fds.push(PollFd::new(pipe, PollFlags::OUT));
                }
                if let (Some(fd), false) = (&output.fd, output.blocked()) {
                    sources.push(Source::Output(id.clone(), index));
                    fds.push(PollFd::new(fd, PollFlags::IN));
                }
            }
        }
        if let Err(error) = poll(&mut fds, None)
            && error != rustix::io::Errno::INTR
        {
            eprintln!("poll: {error}");
            std::thread::sleep(Duration::from_millis(100));
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        sources.into_iter().zip(ready).filter(|(_, ready)| *ready).map(|(source, _)| source).collect()
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            // A daemon that stops reading must not stop the pod.
            let limited = socket.set_nonblocking(false).and_then(|()| socket.set_write_timeout(Some(Duration::from_secs(2))));
            if limited.is_ok() && self.connections.len() < CONNECTIONS_MAX {
                self.connections.push(Connection { socket, buffer: Vec::new(), subscribed: false, exec_pid: None, closed: false });
            }
        }
    }

    fn read(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let mut descriptors = Vec::new();
        match frame::receive(&connection.socket, &mut connection.buffer, &mut descriptors) {
            Ok(0) | Err(_) => {
                connection.closed = true;
                return;
            }
            Ok(_) => {}
        }
        let request = match frame::decode::<Request>(&connection.buffer) {
            Ok(None) => return,
            Ok(Some((request, used))) => {
                connection.buffer.drain(..used);
                request
            }
            Err(error) => return self.answer(index, &Response::Failed(format!("request not understood: {error}")), &[]),
        };
        self.handle(index, request);
    }

    fn answer(&mut self, index: usize, response: &Response, descriptors: &[OwnedFd]) {
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        if frame::send(&self.connections[index].socket, response, &descriptors).is_err() {
            self.connections[index].closed = true;
        }
    }

    fn state(&self) -> ShimState {
        let containers = self.containers.values().map(|c| c.state.clone()).collect();
        ShimState { version: VERSION, pid: nix::unistd::getpid().as_raw(), init_pid: self.init, containers }
    }

    fn handle(&mut self, index: usize, request: Request) {
        let mut descriptors = Vec::new();
        let outcome = match request {
            Request::State => Ok(Response::State(self.state())),
            Request::Start(spec) => self.start(&spec),
            Request::Exec(spec) => self.exec(index, &spec, &mut descriptors),
            Request::Signal { container, signal, all } => self.signal(&container, signal, all),
            Request::Attach { container } => self.attach(&container, &mut descriptors),
            Request::ReopenLog { container } => self.reopen_log(&container),
            Request::Remove { container } => {
                self.containers.remove(&container);
                Ok(Response::Done)
            }
            Request::Socket { ipv6 } => Self::socket(ipv6, &mut descriptors),
            Request::Subscribe => {
                self.connections[index].subscribed = true;
                let event = Event::State(self.state());
                if frame::send(&self.connections[index].socket, &event, &[]).is_err() {
                    self.connections[index].closed = true;
                }
                return;
            }
            Request::Shutdown => {
                self.shut_down();
                Ok(Response::Done)
            }
        };
        self.answer(index, &outcome.unwrap_or_else(Response::Failed), &descriptors);
    }

    fn start(&mut self, spec: &ContainerSpec) -> Result<Response, String> {
        if self.containers.contains_key(&spec.id) {
            return Err(format!("container {} exists already", spec.id));
        }
        let joined;
        let namespace = match spec.pid_mode {
            PidMode::Container => PidNamespace::New,
            PidMode::Host => PidNamespace::Own,
            PidMode::Pod | PidMode::Target(_) => {
                let pid =
                    if let PidMode::Target(pid) = spec.pid_mode { pid } else { self.init.ok_or("the pod has no shared PID namespace")? };
                joined = std::fs::File::open(format!("/proc/{pid}/ns/pid")).map_err(|e| format!("join the PID namespace of {pid}: {e}"))?;
                PidNamespace::Join(joined.as_fd())
            }
        };
        let container = Container::start(spec, &namespace, &self.own_pid)?;
        let state = container.state.clone();
        self.containers.insert(spec.id.clone(), container);
        Ok(Response::Started(state))
    }

    fn exec(&mut self, index: usize, spec: &ExecSpec, descriptors: &mut Vec<OwnedFd>) -> Result<Response, String> {
        let io = |error: io::Error| format!("exec: {error}");
        let Some(container) = self.containers.get(&spec.container) else { return Ok(Response::NotFound(spec.container.clone())) };
        let namespaces = container.namespaces.as_ref().ok_or("container is not running")?;
        let stdio = if spec.process.tty {
            Stdio::Terminal
        } else {
            let (stdout, stderr) = (pipe().map_err(io)?, pipe().map_err(io)?);
            let mut read = None;
            if spec.stdin {
                let ends = pipe().map_err(io)?;
                read = Some(ends.0);
                descriptors.push(ends.1);
            }
            descriptors.extend([stdout.0, stderr.0]);
            Stdio::Pipes(read, stdout.1, stderr.1)
        };
        let spawned = match spawn::exec(spec, &container.cgroup, namespaces, stdio, self.own_pid.as_fd()) {
            Ok(spawned) => spawned,
            Err(message) => {
                descriptors.clear();
                return Err(message);
            }
        };
        descriptors.extend(spawned.terminal);
        self.connections[index].exec_pid = Some(spawned.pid);
        Ok(Response::Spawned { pid: spawned.pid })
    }

    fn signal(&mut self, id: &str, signal: i32, all: bool) -> Result<Response, String> {
        let Some(container) = self.containers.get(id) else { return Ok(Response::NotFound(id.to_owned())) };
        if all && signal == Signal::SIGKILL as i32 {
            Cgroup::new(container.cgroup.clone()).map_err(|e| e.to_string())?.kill();
        } else if container.state.exit.is_none() {
            sys::process::kill(container.state.pid, signal).map_err(|e| format!("signal {signal}: {e}"))?;
        }
        Ok(Response::Done)
    }

    fn attach(&mut self, id: &str, descriptors: &mut Vec<OwnedFd>) -> Result<Response, String> {
        let Some(container) = self.containers.get_mut(id) else { return Ok(Response::NotFound(id.to_owned())) };
        let (fds, stdin) = container.attach().map_err(|e| format!("attach: {e}"))?;
        descriptors.extend(fds);
        Ok(Response::Attached { tty: container.is_tty(), stdin })
    }

    fn reopen_log(&mut self, id: &str) -> Result<Response, String> {
        let Some(container) = self.containers.get_mut(id) else { return Ok(Response::NotFound(id.to_owned())) };
        container.log.as_mut().map_or(Ok(()), super::log::LogFile::reopen).map_err(|e| format!("reopen the log: {e}"))?;
        Ok(Response::Done)
    }

    fn socket(ipv6: bool, descriptors: &mut Vec<OwnedFd>) -> Result<Response, String> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
        let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
            .map_err(|e| format!("socket: {e}"))?;
        descriptors.push(socket);
        Ok(Response::Done)
    }

    /// Takes the exits of all children that ended.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            match sys::process::reap_any() {
                Ok(Some((pid, code, _))) => self.ended(pid, code),
                Ok(None) => return,
                Err(error) => return eprintln!("wait for children: {error}"),
            }
        }
    }

    fn ended(&mut self, pid: i32, code: i32) {
        if let Some(container) = self.containers.values_mut().find(|c| c.state.pid == pid && c.state.exit.is_none()) {
            let exit = container.exited(code);
            let event = Event::Exited { container: container.state.id.clone(), exit };
            for connection in self.connections.iter_mut().filter(|c| c.subscribed) {
                connection.closed |= frame::send(&connection.socket, &event, &[]).is_err();
            }
        }
        for connection in self.connections.iter_mut().filter(|c| c.exec_pid == Some(pid)) {
            connection.closed = true;
            if let Err(error) = frame::send(&connection.socket, &Response::Exited { code }, &[]) {
                eprintln!("report the end of exec {pid}: {error}");
            }
        }
    }

    fn shut_down(&mut self) {
        for _ in 0..200 {
            let running: Vec<_> = self.containers.values().filter(|c| c.state.exit.is_none()).map(|c| c.cgroup.clone()).collect();
            if running.is_empty() {
                break;
            }
            for cgroup in running.into_iter().filter_map(|path| Cgroup::new(path).ok()) {
                cgroup.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
            self.reap();
        }
        if let Some(init) = self.init
            && let Err(error) = sys::process::kill(init, Signal::SIGKILL as i32)
        {
            eprintln!("end the init: {error}");
        }
        self.ending = true;
    }
}
