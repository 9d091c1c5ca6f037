//! The servers under load: one of our own in a process of its own, one that runs already, or both; and what they use.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Options;
use crate::connection::{Call, Connection};
use crate::kubeconfig::{self, Access};

const START_MAX: Duration = Duration::from_secs(120);

pub struct Server {
    /// As the table calls it.
    pub name: String,
    pub access: Access,
    pid: Option<u32>,
    /// From the start of the process to the first good /readyz.
    pub started_in: Duration,
    _process: Option<Process>,
    _dir: Option<tempfile::TempDir>,
}

/// Killed when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(|_| ())) {
            eprintln!("a process could not be stopped: {error}");
        }
    }
}

impl Server {
    /// Whom the options name: our own, the one of a kubeconfig, or with `--against` both.
    pub async fn all(options: &Options) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        if options.kubeconfig.is_none() || options.against.is_some() {
            let (dir, temporary) = data_dir(options)?;
            let mut server = Self::start(options, &dir.join("apiserver")).await?;
            server._dir = temporary;
            all.push(server);
        }
        if let Some(path) = &options.kubeconfig {
            let access = kubeconfig::read(path, options.against.as_deref())?;
            let name = if options.against.is_some() { "other" } else { "given" };
            all.push(Self::running(name, access, options.pid));
        }
        Ok(all)
    }

    /// One that somebody else started.
    pub fn running(name: &str, access: Access, pid: Option<u32>) -> Self {
        Server { name: name.to_owned(), access, pid, started_in: Duration::ZERO, _process: None, _dir: None }
    }

    /// Starts the binary on a directory and waits until it is ready. What it logs is beside that directory.
    pub async fn start(options: &Options, dir: &Path) -> Result<Self> {
        Self::start_as(options, "kube-apiserver", dir).await
    }

    /// As [`Server::start`], of another role that has an API server in it.
    pub async fn start_as(options: &Options, role: &str, dir: &Path) -> Result<Self> {
        let port = trial::free_port()?;
        let log = dir.with_extension("log");
        std::fs::create_dir_all(dir)?;
        let arguments = ["--bind-address", "127.0.0.1", "--secure-port", &port.to_string(), "--data-dir"].map(std::ffi::OsString::from);
        let binary = options.binary()?;
        let begin = Instant::now();
        let mut process = spawn(&binary, role, arguments.into_iter().chain([dir.into()]), &log)?;
        let pid = process.0.id();
        let kubeconfig = dir.join("admin.kubeconfig");
        loop {
            if let Some(status) = process.0.try_wait()? {
                bail!("the server ended: {status}; see {}", log.display());
            }
            if let Ok(access) = kubeconfig::read(&kubeconfig, Some(&format!("https://127.0.0.1:{port}")))
                && ready(&access).await
            {
                let started_in = begin.elapsed();
                let name = "skiff".to_owned();
                return Ok(Server { name, access, pid: Some(pid), started_in, _process: Some(process), _dir: None });
            }
            if begin.elapsed() > START_MAX {
                bail!("the server was not ready after {START_MAX:?}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// CPU time used so far, of all threads.
    pub fn cpu(&self) -> Option<Duration> {
        cpu(self.pid?)
    }

    /// The most memory it had resident since [`Server::forget_peak`].
    pub fn peak_bytes(&self) -> Option<u64> {
        kib(&format!("/proc/{}/status", self.pid?), "VmHWM:")
    }

    /// Peaks count from now on, where the kernel lets us say so.
    pub fn forget_peak(&self) {
        if let Some(pid) = self.pid
            && let Err(error) = std::fs::write(format!("/proc/{pid}/clear_refs"), "5")
        {
            eprintln!("peaks are those since the start of {}: {error}", self.name);
        }
    }

    /// What it holds in memory of its own: no code, no files.
    pub fn own_bytes(&self) -> Option<u64> {
        kib(&format!("/proc/{}/smaps_rollup", self.pid?), "Pss_Anon:")
    }
}

/// Starts a role of the binary.
pub fn spawn(binary: &Path, role: &str, arguments: impl Iterator<Item = std::ffi::OsString>, log: &Path) -> Result<Process> {
    let log = std::fs::File::create(log).with_context(|| format!("making {}", log.display()))?;
    let mut command = Command::new(binary);
    command.arg(role).args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn();
    child.map(Process).with_context(|| format!("starting {}", binary.display()))
}

/// CPU time a process used so far, of all threads.
pub fn cpu(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // Linux shows these in hundredths of a second everywhere.
    Some(Duration::from_millis(ticks * 10))
}

/// Proportional set size: shared pages count in part.
pub fn pss_bytes(pid: u32) -> Option<u64> {
    kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

fn kib(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

async fn ready(access: &Access) -> bool {
    let asked = async { Connection::open(access).await?.count(Call::get("/readyz")).await };
    matches!(asked.await, Ok((200, _)))
}

/// The directory to use, and, if it is a temporary one, what removes it.
pub fn data_dir(options: &Options) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    match &options.data_dir {
        Some(dir) => Ok((dir.clone(), None)),
        None => {
            let temporary = tempfile::tempdir().context("making a temporary directory")?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
    }
}
