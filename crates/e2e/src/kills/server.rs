//! The API server that is killed: `skiff kube-apiserver` on a directory of its own, on one port for all its lives.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;

use super::start::{LOOK_EVERY, Start};

const START_MAX: Duration = Duration::from_secs(60);
/// What a start tells of itself.
const LOG: &str = "info,kube_client=off,skiff=debug,apiserver::server=debug,apiserver::listen=debug,store=debug";

pub(super) struct Server {
    /// Built before any clock runs: the slowest of the first 1,000 starts was `cargo build`.
    program: &'static Path,
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    pub(super) fn new() -> Result<Self> {
        let port = trial::free_port()?;
        Ok(Server { program: crate::skiff(), dir: tempfile::Builder::new().prefix("skiff-kills-").tempdir()?, port, child: None })
    }

    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Starts it and waits until it answers.
    pub(super) async fn start(&mut self) -> Result<Start> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let from = log.metadata()?.len();
        let mut start = Start::new();
        let child = Command::new(self.program)
            .args(["kube-apiserver", "--bind-address", "127.0.0.1", "--secure-port", &self.port.to_string(), "--data-dir"])
            .arg(self.dir.path())
            .env("SKIFF_LOG", std::env::var("SKIFF_LOG").unwrap_or_else(|_| LOG.to_owned()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let pid = child.id();
        self.child = Some(child);
        while start.elapsed() < START_MAX {
            let child = self.child.as_mut().context("no server runs")?;
            if let Some(status) = child.try_wait()? {
                bail!("the server ended: {status}; it said:\n{}", fs::read_to_string(self.log())?);
            }
            let mut asked = std::pin::pin!(self.is_ready());
            let told = loop {
                tokio::select! { biased;
                    told = &mut asked => break told,
                    () = tokio::time::sleep(LOOK_EVERY) => start.look_where_due(pid, self.port),
                }
            };
            match told {
                Ok(()) => return Ok(start.ready(&self.log(), from)),
                Err(error) => start.told(format!("{error:#}")),
            }
            start.look_where_due(pid, self.port);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("the server is not ready after {START_MAX:?}: {start:?}; it said:\n{}", fs::read_to_string(self.log())?)
    }

    async fn is_ready(&self) -> Result<()> {
        let client = self.client().await?;
        client.request_text(http::Request::get("/readyz").body(Vec::new())?).await?;
        Ok(())
    }

    /// `kill -9`; when this returns, it is gone.
    pub(super) async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("no server runs")?;
        tokio::task::spawn_blocking(move || child.kill().and_then(|()| child.wait())).await??;
        Ok(())
    }

    pub(super) async fn client(&self) -> Result<kube::Client> {
        client(&self.dir.path().join("admin.kubeconfig"), self.port).await
    }

    pub(super) async fn config(&self) -> Result<kube::Config> {
        config(&self.dir.path().join("admin.kubeconfig"), self.port).await
    }

    pub(super) fn disk_bytes(&self) -> Result<u64> {
        fs::read_dir(self.dir.path().join("store"))?.map(|entry| Ok(entry?.metadata()?.len())).sum()
    }
}

async fn config(path: &Path, port: u16) -> Result<kube::Config> {
    let mut kubeconfig = Kubeconfig::read_from(path)?;
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|c| c.cluster.as_mut()) {
        cluster.server = Some(format!("https://127.0.0.1:{port}"));
    }
    Ok(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}

async fn client(path: &Path, port: u16) -> Result<kube::Client> {
    Ok(kube::Client::try_from(config(path, port).await?)?)
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take()
            && let Err(error) = child.kill().and_then(|()| child.wait())
        {
            eprintln!("the server could not be stopped: {error}");
        }
    }
}
