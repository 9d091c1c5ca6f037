//! Keeps the daemon and the agents of extra nodes running. One thread, no allocation to speak of, nothing that could fail
//! with what it supervises: it is the one process that must not die.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::instance::{Dirs, make_private, write_atomically};
use crate::process::Identity;

/// A child that ends with this code cannot start for a reason that will not go away by itself; it has written why.
pub const EXIT_HOPELESS: i32 = 78;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A child that ran for so long starts its backoff anew.
const SETTLED: Duration = Duration::from_secs(60);
/// How long children may take to end after TERM.
const GRACE: Duration = Duration::from_secs(20);

/// What the supervisor tells others, in `supervisor.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub supervisor: Identity,
    /// By name: `daemon`, or a node's name.
    pub children: BTreeMap<String, ChildReport>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ChildReport {
    /// `None`: it does not run at the moment.
    pub process: Option<Identity>,
    pub restarts: u32,
    /// It will not be started again; says why.
    pub given_up: Option<String>,
}

impl Report {
    /// The report of a supervisor that is alive.
    pub fn read(dirs: &Dirs) -> Option<Self> {
        let report: Self = serde_json::from_slice(&fs::read(dirs.supervisor()).ok()?).ok()?;
        report.supervisor.alive().then_some(report)
    }
}

/// What to keep running.
pub struct Task {
    pub name: String,
    pub arguments: Vec<String>,
    /// Stays down when it was killed: extra nodes are there to try out the loss of a machine.
    pub stays_dead: bool,
}

struct Running {
    task: Task,
    child: Option<Child>,
    report: ChildReport,
    since: Instant,
    backoff: Duration,
    /// When to start it (again).
    due: Option<Instant>,
}

/// Where a child leaves the reason for a hopeless end.
pub fn error_file(dirs: &Dirs, name: &str) -> PathBuf {
    dirs.run.join(format!("{name}.error"))
}

/// The signals that come through the descriptor.
fn watched() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD, Signal::SIGHUP].into_iter().collect()
}

/// Runs until TERM or INT, then ends the children and returns.
pub fn supervise(dirs: &Dirs, executable: PathBuf, tasks: Vec<Task>) -> Result<()> {
    make_private(&dirs.run)?;
    let signals = watched();
    signals.thread_block().context("blocking signals")?;
    let descriptor = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("opening a signalfd")?;
    let now = Instant::now();
    let start = |task| Running { task, child: None, report: ChildReport::default(), since: now, backoff: BACKOFF_FIRST, due: Some(now) };
    let mut supervisor =
        Supervisor { dirs: dirs.clone(), executable, running: tasks.into_iter().map(start).collect(), own: Identity::own()? };
    supervisor.turn()?;
    loop {
        let mut fds = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, supervisor.wait()).or_else(|e| if e == nix::Error::EINTR { Ok(0) } else { Err(e) })?;
        while let Some(info) = descriptor.read_signal().with_context(|| format!("reading signalfd {}", descriptor.as_raw_fd()))? {
            match Signal::try_from(i32::try_from(info.ssi_signo).unwrap_or(0)) {
                Ok(Signal::SIGCHLD) => {}
                Ok(Signal::SIGHUP) => supervisor.revive(),
                _ => return supervisor.end(),
            }
        }
        supervisor.turn()?;
    }
}

struct Supervisor {
    dirs: Dirs,
    executable: PathBuf,
    running: Vec<Running>,
    own: Identity,
}

impl Supervisor {
    /// Takes in what ended and starts what is due; tells others if anything changed.
    fn turn(&mut self) -> Result<()> {
        let mut changed = false;
        for running in &mut self.running {
            if let Some(child) = &mut running.child
                && let Some(status) = child.try_wait().context("waiting for a child")?
            {
                running.child = None;
                running.ended(&self.dirs, status);
                changed = true;
            }
            if running.due.is_some_and(|due| due <= Instant::now()) {
                running.start(&self.dirs, &self.executable);
                changed = true;
            }
        }
        if changed {
            self.tell()?;
        }
        Ok(())
    }

    /// Starts again what had given up.
    fn revive(&mut self) {
        for running in self.running.iter_mut().filter(|r| r.report.given_up.is_some()) {
            running.report.given_up = None;
            running.due = Some(Instant::now());
        }
    }

    fn tell(&self) -> Result<()> {
        let children = self.running.iter().map(|r| (r.task.name.clone(), r.report.clone())).collect();
        write_atomically(&self.dirs.supervisor(), &serde_json::to_vec_pretty(&Report { supervisor: self.own, children })?)
    }

    fn wait(&self) -> PollTimeout {
        let next = self.running.iter().filter_map(|r| r.due).min();
        let wait = next.map(|due| due.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        wait.and_then(|w| PollTimeout::try_from(w).ok()).unwrap_or(PollTimeout::NONE)
    }

    fn end(mut self) -> Result<()> {
        for running in &self.running {
            if let Some(child) = &running.child {
                running.signal(child, Signal::SIGTERM);
            }
        }
        let until = Instant::now() + GRACE;
        for running in &mut self.running {
            let Some(mut child) = running.child.take() else { continue };
            while child.try_wait().context("waiting for a child")?.is_none() {
                if Instant::now() >= until {
                    eprintln!("{}: did not end in time and is killed", running.task.name);
                    running.signal(&child, Signal::SIGKILL);
                    child.wait().context("waiting for a killed child")?;
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        fs::remove_file(self.dirs.supervisor()).context("removing the supervisor's report")
    }
}

impl Running {
    fn signal(&self, child: &Child, signal: Signal) {
        let Ok(pid) = i32::try_from(child.id()) else { return };
        // Not reaped yet, so the pid is still its own.
        if let Err(error) = kill(Pid::from_raw(pid), signal) {
            eprintln!("{}: sending {signal}: {error}", self.task.name);
        }
    }

    fn start(&mut self, dirs: &Dirs, executable: &PathBuf) {
        self.due = None;
        self.since = Instant::now();
        let log = OpenOptions::new().create(true).append(true).open(dirs.log());
        let spawned = log.and_then(|log| {
            let errors = log.try_clone()?;
            Command::new(executable).args(&self.task.arguments).stdin(Stdio::null()).stdout(log).stderr(errors).spawn()
        });
        match spawned {
            Ok(child) => {
                self.report.process = i32::try_from(child.id()).ok().and_then(Identity::of);
                self.child = Some(child);
            }
            Err(error) => {
                eprintln!("{}: starting {}: {error}", self.task.name, executable.display());
                self.again();
            }
        }
    }

    fn ended(&mut self, dirs: &Dirs, status: ExitStatus) {
        self.report.process = None;
        eprintln!("{}: ended: {status}", self.task.name);
        if status.code() == Some(EXIT_HOPELESS) {
            let why = fs::read_to_string(error_file(dirs, &self.task.name)).unwrap_or_else(|_| status.to_string());
            self.report.given_up = Some(why);
        } else if self.task.stays_dead && status.signal().is_some() {
            self.report.given_up = Some(format!("killed ({status}); `skiff node start {}` brings it back", self.task.name));
        } else {
            self.again();
        }
    }

    fn again(&mut self) {
        if self.since.elapsed() >= SETTLED {
            self.backoff = BACKOFF_FIRST;
        }
        self.due = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        self.report.restarts += 1;
    }
}
