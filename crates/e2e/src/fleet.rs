//! Three machines on one segment, each a network namespace with an etcd member and whatever else a test starts there, and a
//! fourth with the bridge, where clients live. Processes are killed, machines cut off and joined again. All of it goes away
//! when dropped.

mod kubelet;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use network::NetNs;
use serde_json::Value;
use tempfile::TempDir;

pub const MACHINES: usize = 3;
/// Members are fast to agree here; elections need not take a second.
const HEARTBEAT_MS: &str = "100";
const ELECTION_MS: &str = "1000";

/// Written by an API server when it serves.
const KUBECONFIG: &str = "scheduler.kubeconfig";

pub struct Fleet {
    hub: NetNs,
    machines: Vec<Machine>,
    dir: TempDir,
}

struct Machine {
    netns: NetNs,
    processes: BTreeMap<String, Child>,
}

/// The program; `SKIFF_TEST_ETCD` names another one than that of the path, to try another version.
pub fn etcd() -> String {
    std::env::var("SKIFF_TEST_ETCD").unwrap_or_else(|_| "etcd".to_owned())
}

/// Tells a story that needs root, etcd and `ip`, where they are.
///
/// # Panics
/// If the story fails.
pub fn with_etcd(story: impl FnOnce() -> Result<()>) {
    if !crate::is_root() || !has_etcd() {
        return;
    }
    if let Err(error) = story() {
        panic!("{error:#}");
    }
}

/// Whether etcd and `ip` are installed; says so where not.
fn has_etcd() -> bool {
    let found = |program: &str, argument: &str| Command::new(program).arg(argument).output().is_ok_and(|o| o.status.success());
    if !found(&etcd(), "--version") {
        println!("skipped: etcd is not installed (apt-get install etcd-server)");
        return false;
    }
    if !found("ip", "-V") {
        println!("skipped: ip is not installed (apt-get install iproute2)");
        return false;
    }
    true
}

/// Runs `ip` in a namespace.
fn ip(netns: &NetNs, arguments: &str) -> Result<()> {
    let output = netns.run(|| Command::new("ip").args(arguments.split(' ')).output())??;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

impl Fleet {
    /// Machines on a bridge, with a running etcd cluster.
    pub fn start() -> Result<Self> {
        let mut fleet = Self::bare()?;
        for at in 0..MACHINES {
            fleet.run_etcd(at)?;
        }
        Ok(fleet)
    }

    /// Machines on a bridge.
    pub fn bare() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("skiff-fleet-").tempdir()?;
        let hub = NetNs::anonymous()?;
        ip(&hub, "link set lo up")?;
        ip(&hub, "link add bridge type bridge")?;
        ip(&hub, "address add 10.99.0.254/24 dev bridge")?;
        ip(&hub, "link set bridge up")?;
        let mut fleet = Self { hub, machines: Vec::new(), dir };
        for at in 0..MACHINES {
            let netns = NetNs::anonymous()?;
            ip(&fleet.hub, &format!("link add port{at} type veth peer name eth0 netns {}", netns.path().display()))?;
            ip(&fleet.hub, &format!("link set port{at} master bridge up"))?;
            ip(&netns, "link set lo up")?;
            ip(&netns, &format!("address add {}/24 dev eth0", Self::address(at)))?;
            ip(&netns, "link set eth0 up")?;
            ip(&netns, "route add default via 10.99.0.254")?;
            fleet.machines.push(Machine { netns, processes: BTreeMap::new() });
        }
        Ok(fleet)
    }

    /// Gives a machine one more address; whoever knew another machine by it learns anew.
    pub fn take_address(&self, at: usize, address: &str) -> Result<()> {
        ip(&self.machines[at].netns, &format!("address add {address}/24 dev eth0"))?;
        ip(&self.hub, "neigh flush dev bridge")?;
        for other in (0..MACHINES).filter(|other| *other != at) {
            ip(&self.machines[other].netns, "neigh flush dev eth0")?;
        }
        Ok(())
    }

    pub fn address(at: usize) -> String {
        format!("10.99.0.{}", at + 1)
    }

    pub fn etcd_url(at: usize) -> String {
        format!("http://{}:2379", Self::address(at))
    }

    pub fn etcd_urls() -> Vec<String> {
        (0..MACHINES).map(Self::etcd_url).collect()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where clients live.
    pub fn hub(&self) -> &NetNs {
        &self.hub
    }

    /// Starts a machine's member, again.
    pub fn run_etcd(&mut self, at: usize) -> Result<()> {
        let (address, url) = (Self::address(at), Self::etcd_url(at));
        let peer = format!("http://{address}:2380");
        let cluster: Vec<String> = (0..MACHINES).map(|n| format!("m{n}=http://{}:2380", Self::address(n))).collect();
        let mut command = Command::new(etcd());
        command
            .args(["--name", &format!("m{at}"), "--initial-cluster", &cluster.join(","), "--initial-advertise-peer-urls", &peer])
            .args(["--listen-peer-urls", &peer, "--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--heartbeat-interval", HEARTBEAT_MS, "--election-timeout", ELECTION_MS])
            .arg("--data-dir")
            .arg(self.dir.path().join(format!("etcd{at}")));
        self.spawn(at, "etcd", &mut command)
    }

    /// Starts a machine's API server, `api`, with its data in a directory.
    pub fn run_api(&mut self, at: usize, address: &str, data: &Path, more: impl FnOnce(&mut Command)) -> Result<()> {
        let mut command = Command::new(crate::skiff());
        command.args(["kube-apiserver", "--advertise-address", address]).arg("--data-dir").arg(data);
        more(&mut command);
        self.spawn(at, "api", &mut command)
    }

    /// A request to a machine's API server as its administrator, by the kubeconfig in `data`.
    pub fn request(&self, at: usize, data: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let text = self.text(at, data, method, path, body)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// As [`Self::request`], where the answer is any text.
    pub fn text(&self, at: usize, data: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<String> {
        let bytes = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        self.with_clients(|| async {
            let mut config = crate::config_of(&data.join("admin.kubeconfig"), &format!("{}:6443", Self::address(at))).await?;
            config.read_timeout = Some(Duration::from_secs(5));
            let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json").body(bytes)?;
            Ok(kube::Client::try_from(config)?.request_text(request).await?)
        })
    }

    /// Waits until a machine's API server has written the kubeconfigs of the other roles.
    pub fn wait_for_api(&self, at: usize, data: &Path) -> Result<()> {
        let written = data.join(KUBECONFIG);
        crate::eventually("the API server starts", || if written.exists() { Ok(()) } else { bail!("{}", self.log(at, "api")) })
    }

    /// As [`Self::run_api`] and [`Self::wait_for_api`], also where one has run before.
    pub fn start_api(&mut self, at: usize, address: &str, data: &Path, more: impl FnOnce(&mut Command)) -> Result<()> {
        let before = data.join(KUBECONFIG);
        if before.exists() {
            fs::remove_file(before)?;
        }
        self.run_api(at, address, data, more)?;
        self.wait_for_api(at, data)
    }

    /// Starts a program on a machine under a name.
    pub fn spawn(&mut self, at: usize, name: &str, command: &mut Command) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path(at, name))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let machine = &mut self.machines[at];
        let child = machine.netns.run(|| command.spawn())?.with_context(|| format!("starting {name}"))?;
        machine.processes.insert(name.to_owned(), child);
        Ok(())
    }

    fn log_path(&self, at: usize, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}{at}.log"))
    }

    /// All that a program said.
    pub fn said(&self, at: usize, name: &str) -> String {
        fs::read_to_string(self.log_path(at, name)).unwrap_or_default()
    }

    /// The end of what a program said, for a failure's message.
    pub fn log(&self, at: usize, name: &str) -> String {
        let text = self.said(at, name);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// As `kill -9`.
    pub fn kill(&mut self, at: usize, name: &str) -> Result<()> {
        if let Some(mut child) = self.machines[at].processes.remove(name) {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Whether a program that was started still runs.
    pub fn runs(&mut self, at: usize, name: &str) -> bool {
        self.machines[at].processes.get_mut(name).is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Nothing comes or goes between this machine and any other, clients too. Nobody is told.
    pub fn cut(&self, at: usize) -> Result<()> {
        ip(&self.hub, &format!("link set port{at} down"))
    }

    pub fn join(&self, at: usize) -> Result<()> {
        ip(&self.hub, &format!("link set port{at} up"))
    }

    /// Nothing goes from this machine to another one or back; clients reach both.
    pub fn part(&self, at: usize, from: usize) -> Result<()> {
        ip(&self.machines[at].netns, &format!("route add blackhole {}", Self::address(from)))?;
        ip(&self.machines[from].netns, &format!("route add blackhole {}", Self::address(at)))
    }

    pub fn rejoin(&self, at: usize, from: usize) -> Result<()> {
        ip(&self.machines[at].netns, &format!("route del blackhole {}", Self::address(from)))?;
        ip(&self.machines[from].netns, &format!("route del blackhole {}", Self::address(at)))
    }

    /// Runs something async among the clients, on threads of its own.
    pub fn with_clients<T: Send, F: Future<Output = Result<T>>>(&self, work: impl FnOnce() -> F + Send) -> Result<T> {
        self.hub.run(|| {
            // Its threads are born in the namespace of the thread that makes them.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let done = runtime.block_on(work());
            runtime.shutdown_timeout(Duration::from_secs(1));
            done
        })?
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (_, child) in self.machines.iter_mut().flat_map(|m| &mut m.processes) {
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                eprintln!("a process of the fleet could not be ended: {error}");
            }
        }
        kubelet::clean(self.dir.path());
    }
}

/// When clients succeeded, and how long they did not.
#[derive(Default)]
pub struct Gaps(std::sync::Mutex<Vec<(usize, Instant)>>);

impl Gaps {
    pub fn success(&self, client: usize) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((client, Instant::now()));
    }

    /// The longest times without success that touch a span, in seconds: of all clients together, and of the unluckiest one.
    pub fn longest(&self, from: Instant, to: Instant) -> (f64, f64) {
        let all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let longest = |mut times: Vec<Instant>| {
            times.retain(|t| *t <= to);
            times.push(to);
            times.sort_unstable();
            let gaps = times.windows(2).filter(|w| w[1] >= from).map(|w| w[1] - w[0]);
            gaps.max().unwrap_or_default().as_secs_f64()
        };
        let mut by_client: BTreeMap<usize, Vec<Instant>> = BTreeMap::new();
        for (client, at) in &all {
            by_client.entry(*client).or_default().push(*at);
        }
        let unluckiest = by_client.into_values().map(longest).fold(0.0, f64::max);
        (longest(all.into_iter().map(|(_, at)| at).collect()), unluckiest)
    }
}
