//! One cluster of a test.

use std::fs;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use network::{Links, NetNs};
use serde_json::Value;
use tempfile::TempDir;

/// What a command said.
#[derive(Debug)]
pub struct Output {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Its standard output, or an error with all it said.
    pub fn ok(self) -> Result<String> {
        if self.success { Ok(self.stdout) } else { bail!("failed: {}{}", self.stdout, self.stderr) }
    }
}

/// A cluster's place: a network namespace and folders, with whatever `skiff` makes of them.
pub struct Cluster {
    netns: NetNs,
    netns_path: PathBuf,
    dir: TempDir,
    /// Several places may share one namespace; the one that made it removes it.
    owns_netns: bool,
}

/// The binary of this build, or that of `SKIFF`.
///
/// # Panics
/// If it does not build.
pub fn skiff() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| std::env::var_os("SKIFF").map_or_else(|| trial::skiff().expect("skiff builds"), PathBuf::from))
}

impl Cluster {
    /// A place without a cluster yet.
    pub fn place() -> Result<Self> {
        skiff();
        let dir = tempfile::Builder::new().prefix("skiff-e2e-").tempdir()?;
        let netns_path = dir.path().join("netns");
        let netns = NetNs::create(&netns_path).context("making a network namespace")?;
        let cluster = Self { netns, netns_path, dir, owns_netns: true };
        cluster.run_async(|netns| async move { anyhow::Ok(Links::open(&netns).await?.set_up("lo").await?) })??;
        Ok(cluster)
    }

    /// Another place in the same namespace.
    pub fn beside(&self) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("skiff-e2e-").tempdir()?;
        Ok(Self { netns: self.netns.clone(), netns_path: self.netns_path.clone(), dir, owns_netns: false })
    }

    /// A running cluster.
    pub fn up(nodes: u16) -> Result<Self> {
        let cluster = Self::place()?;
        cluster.skiff(&["up", "--nodes", &nodes.to_string()])?.ok().context(cluster.log())?;
        Ok(cluster)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// The end of the daemon's log, for a failure's message.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.data_dir().join("skiff.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir.path());
        command.env("SKIFF_DATA_DIR", self.data_dir()).env("SKIFF_RUN_DIR", self.run_dir()).stdin(Stdio::null());
        command
    }

    fn output(&self, command: &mut Command) -> Result<Output> {
        let output = self.netns.run(|| command.output())??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Output { success: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }

    /// Runs `skiff` in this place.
    pub fn skiff(&self, arguments: &[&str]) -> Result<Output> {
        self.output(&mut self.command(skiff(), arguments))
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        self.output(&mut self.command(Path::new("kubectl"), arguments))
    }

    /// kubectl with text on standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let file = tempfile::NamedTempFile::new_in(self.dir.path())?;
        fs::write(&file, input)?;
        let mut command = self.command(Path::new("kubectl"), arguments);
        command.stdin(fs::File::open(&file)?);
        self.output(&mut command)
    }

    /// Starts `skiff` or `kubectl` and leaves it running.
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Result<std::process::Child> {
        let path = if program == "skiff" { skiff().to_owned() } else { PathBuf::from(program) };
        let mut command = self.command(&path, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(self.netns.run(|| command.spawn())??)
    }

    /// Runs something async with a runtime of its own inside the namespace.
    pub fn run_async<T: Send, F: Future<Output = T>>(&self, work: impl FnOnce(NetNs) -> F + Send) -> Result<T> {
        let netns = self.netns.clone();
        self.netns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(work(netns)))
        })?
    }

    /// Runs something with a client of the cluster.
    pub fn with_client<T: Send, F: Future<Output = Result<T>>>(&self, work: impl FnOnce(kube::Client) -> F + Send) -> Result<T> {
        let path = self.kubeconfig();
        self.run_async(|_| async move {
            let kubeconfig = Kubeconfig::read_from(path)?;
            let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            // A test wants the answer, also where it is "not now".
            config.default_retry = false;
            work(kube::Client::try_from(config)?).await
        })?
    }

    /// A request to the API server, by path.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let (method, path) = (method.to_owned(), path.to_owned());
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        self.with_client(|client| async move {
            let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let request = http_request(&method, &path, kind, bytes)?;
            Ok(client.request::<Value>(request).await?)
        })
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        self.request("GET", path, None)
    }

    /// Runs any program in this place, with the cluster's kubeconfig.
    pub fn program(&self, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
        let mut command = self.command(Path::new(program), arguments);
        command.envs(environment.iter().copied());
        self.output(&mut command)
    }

    /// What a plain HTTP server says.
    pub fn fetch(&self, host: &str, port: u16) -> Result<String> {
        self.fetch_path(host, port, "/")
    }

    /// As [`Cluster::fetch`], of another page.
    pub fn fetch_path(&self, host: &str, port: u16, path: &str) -> Result<String> {
        let address = SocketAddr::new(host.parse::<IpAddr>().with_context(|| format!("{host:?} is no address"))?, port);
        self.netns.run(|| -> Result<String> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            let (_, body) = text.split_once("\r\n\r\n").context("no answer")?;
            Ok(body.trim().to_owned())
        })?
    }

    /// A child of the supervisor: `daemon`, or a node's name.
    pub fn process(&self, name: &str) -> Result<i32> {
        let report: Value = serde_json::from_slice(&fs::read(self.run_dir().join("supervisor.json"))?)?;
        let pid = report["children"][name]["process"]["pid"].as_i64().with_context(|| format!("{name} does not run"))?;
        Ok(i32::try_from(pid)?)
    }

    /// Names of the links in the namespace.
    pub fn links(&self) -> Result<Vec<String>> {
        let text = self.netns.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        Ok(text.lines().skip(2).filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned())).collect())
    }

    /// Names of the nftables tables in the namespace.
    pub fn tables(&self) -> Result<Vec<String>> {
        let nft = network::nft::Nft::open(&self.netns)?;
        let mut all = Vec::new();
        for family in network::nft::families() {
            all.extend(nft.tables(family)?);
        }
        Ok(all)
    }

    /// Pids of every process whose program lies in this place, and of every process below one of them.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse::<i32>() else { continue };
            let link = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let here = self.dir.path().to_string_lossy().into_owned();
            if link.starts_with(self.dir.path()) || String::from_utf8_lossy(&line).contains(&here) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// Mounts below this place, but for the namespace itself.
    pub fn mounts(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string("/proc/self/mountinfo")?;
        let below =
            |l: &&str| l.split(' ').nth(4).is_some_and(|p| Path::new(p).starts_with(self.dir.path()) && Path::new(p) != self.netns_path);
        Ok(text.lines().filter(below).map(str::to_owned).collect())
    }

    /// The cluster's id.
    pub fn id(&self) -> Result<String> {
        let instance: Value = serde_json::from_slice(&fs::read(self.data_dir().join("instance.json"))?)?;
        Ok(instance["id"].as_str().context("an instance has an id")?.to_owned())
    }
}

fn http_request(method: &str, path: &str, content_type: &str, body: Vec<u8>) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::builder().method(method).uri(path).header("content-type", content_type).body(body)?)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        match self.skiff(&["delete"]) {
            Ok(output) if output.success => {}
            Ok(output) => eprintln!("the cluster was not removed: {}{}", output.stdout, output.stderr),
            Err(error) => eprintln!("the cluster was not removed: {error:#}"),
        }
        if self.owns_netns
            && let Err(error) = NetNs::remove(&self.netns_path)
        {
            eprintln!("the network namespace was not removed: {error}");
        }
    }
}
