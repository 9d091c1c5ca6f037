//! The server under load: one of our own in a process of its own, or one that runs already; and what it uses.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Options;
use crate::connection::{Call, Connection};
use crate::kubeconfig::{self, Access};

const START_MAX: Duration = Duration::from_secs(60);

pub struct Server {
    pub access: Access,
    pid: Option<u32>,
    /// From the start of the process to the first good /readyz.
    pub started_in: Duration,
    process: Option<Process>,
    _dir: Option<tempfile::TempDir>,
}

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(|_| ())) {
            eprintln!("the server could not be stopped: {error}");
        }
    }
}

impl Server {
    pub async fn get(options: &Options) -> Result<Self> {
        if let Some(path) = &options.kubeconfig {
            let access = kubeconfig::read(path, options.against.as_deref())?;
            return Ok(Self::running(access, options.pid));
        }
        let (dir, temporary) = data_dir(options)?;
        let mut server = Self::start(options, &dir.join("apiserver")).await?;
        server._dir = temporary;
        Ok(server)
    }

    /// One that somebody else started.
    pub fn running(access: Access, pid: Option<u32>) -> Self {
        Server { access, pid, started_in: Duration::ZERO, process: None, _dir: None }
    }

    /// Starts the binary on a directory and waits until it is ready.
    pub async fn start(options: &Options, dir: &Path) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let begin = Instant::now();
        let child = Command::new(&options.binary)
            .arg("kube-apiserver")
            .args(["--bind-address", "127.0.0.1", "--secure-port", &port.to_string(), "--data-dir"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {} (build it, or name another with --binary)", options.binary.display()))?;
        let pid = child.id();
        let mut process = Process(child);
        let kubeconfig = dir.join("admin.kubeconfig");
        loop {
            if let Some(status) = process.0.try_wait()? {
                bail!("the server ended: {status}");
            }
            if let Ok(access) = kubeconfig::read(&kubeconfig, Some(&format!("https://127.0.0.1:{port}")))
                && ready(&access).await
            {
                return Ok(Server { access, pid: Some(pid), started_in: begin.elapsed(), process: Some(process), _dir: None });
            }
            if begin.elapsed() > START_MAX {
                bail!("the server was not ready after {START_MAX:?}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn is_own(&self) -> bool {
        self.process.is_some()
    }

    /// CPU time used so far, of all threads.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid?)).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        // Linux shows these in hundredths of a second everywhere.
        Some(Duration::from_millis(ticks * 10))
    }

    pub fn peak_bytes(&self) -> Option<u64> {
        kib(&format!("/proc/{}/status", self.pid?), "VmHWM:")
    }

    /// Proportional set size: shared pages count in part.
    pub fn pss_bytes(&self) -> Option<u64> {
        kib(&format!("/proc/{}/smaps_rollup", self.pid?), "Pss:")
    }
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
