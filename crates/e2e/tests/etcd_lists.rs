//! Two API servers over three etcd members: what one was told to write, a list of the other shows at once, also while members
//! of etcd are killed and another leads. With an etcd that tells how far watches are, lists come from the watch cache.
//! `SKIFF_TEST_ETCD` names another etcd program.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::eventually;
use e2e::fleet::{Fleet, MACHINES, with_etcd};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const STEPS: u64 = 400;
const SERVERS: usize = 2;

struct Place {
    fleet: Fleet,
}

impl Place {
    fn data(&self, at: usize) -> PathBuf {
        self.fleet.dir().join(format!("api{at}"))
    }

    fn run_api(&mut self, at: usize) -> Result<()> {
        let (first, data) = (self.data(0).join("pki"), self.data(at));
        if at > 0 {
            std::fs::create_dir_all(data.join("pki"))?;
            for name in ["ca.crt", "ca.key", "sa.key"] {
                std::fs::copy(first.join(name), data.join("pki").join(name))?;
            }
        }
        let mut urls = Fleet::etcd_urls();
        urls.rotate_left(at);
        let mut command = Command::new(e2e::skiff());
        command.args(["kube-apiserver", "--advertise-address", &Fleet::address(at), "--etcd-servers", &urls.join(",")]);
        self.fleet.spawn(at, "api", command.arg("--data-dir").arg(&data))?;
        let ready = data.join("scheduler.kubeconfig");
        eventually("the API server starts", || if ready.exists() { Ok(()) } else { bail!("{}", self.fleet.log(at, "api")) })
    }
}

async fn client(kubeconfig: PathBuf, at: usize) -> Result<Client> {
    let mut config = kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default()).await?;
    config.cluster_url = format!("https://{}:6443", Fleet::address(at)).parse()?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// One request, again until somebody answers it.
async fn request(client: &Client, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
    for _ in 0..300 {
        let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json").body(body.clone())?;
        match tokio::time::timeout(Duration::from_secs(15), client.request::<Value>(request)).await {
            Ok(Ok(answer)) => return Ok(answer),
            // An attempt that nobody answered has done it.
            Ok(Err(kube::Error::Api(status))) if (method, status.code) == ("POST", 409) || (method, status.code) == ("DELETE", 404) => {
                return Ok(Value::Null);
            }
            Ok(Err(kube::Error::Api(status))) if (400..429).contains(&status.code) => bail!("{method} {path}: {status:?}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    bail!("{method} {path}: given up")
}

/// How often a server has asked etcd for lists of ConfigMaps.
async fn lists_of_etcd(client: &Client) -> Result<u64> {
    let text = client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
    let of = text.lines().filter(|l| l.starts_with("etcd_requests_total{") && l.contains("operation=\"list") && l.contains("configmaps"));
    Ok(of.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
}

/// Each page at another server than the one before, while other kinds of objects are written.
async fn pages(servers: &[Client; SERVERS]) -> Result<()> {
    let (mut seen, mut token, began) = (0, String::new(), Instant::now());
    for n in 0.. {
        let other = json!({"metadata": {"name": format!("s-{n}")}});
        request(&servers[0], "POST", "/api/v1/namespaces/default/secrets", Some(&other)).await?;
        let path = format!("{PATH}?limit=50&labelSelector=test%3D1&continue={token}");
        let page = request(&servers[n % SERVERS], "GET", &path, None).await?;
        seen += page["items"].as_array().context("a list")?.len();
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            println!("{} pages with {seen} objects in {:?}", n + 1, began.elapsed());
            ensure!(seen as u64 == STEPS - STEPS.div_ceil(3) && n > 3, "{seen} objects in {} pages", n + 1);
            return Ok(());
        }
    }
    Ok(())
}

/// Writes at one server and lists at the other, in turns. Answers how long lists took.
async fn work(kubeconfig: PathBuf, done: Arc<AtomicU64>) -> Result<(Vec<Duration>, u64)> {
    let servers = [client(kubeconfig.clone(), 0).await?, client(kubeconfig, 1).await?];
    let (mut times, before) = (Vec::new(), [lists_of_etcd(&servers[0]).await?, lists_of_etcd(&servers[1]).await?]);
    for n in 0..STEPS {
        let (writer, reader) = (&servers[n as usize % SERVERS], &servers[(n as usize + 1) % SERVERS]);
        let name = format!("m-{n}");
        let object = json!({"metadata": {"name": name, "labels": {"test": "1"}}});
        request(writer, "POST", PATH, Some(&object)).await?;
        let list = |reader: Client| async move {
            let began = Instant::now();
            let list = request(&reader, "GET", &format!("{PATH}?labelSelector=test%3D1"), None).await?;
            let names =
                list["items"].as_array().context("a list")?.iter().filter_map(|i| i["metadata"]["name"].as_str().map(str::to_owned));
            anyhow::Ok((names.collect::<Vec<_>>(), began.elapsed()))
        };
        let (names, took) = list(reader.clone()).await?;
        ensure!(names.contains(&name), "step {n}: {name} was written and is not in the other server's list");
        times.push(took);
        if n % 3 == 0 {
            request(writer, "DELETE", &format!("{PATH}/{name}"), None).await?;
            let (names, took) = list(reader.clone()).await?;
            ensure!(!names.contains(&name), "step {n}: {name} was deleted and is in the other server's list");
            times.push(took);
        }
        done.store(n + 1, Ordering::Relaxed);
    }
    pages(&servers).await?;
    let asked = lists_of_etcd(&servers[0]).await? + lists_of_etcd(&servers[1]).await? - before[0] - before[1];
    Ok((times, asked))
}

fn never_stale() -> Result<()> {
    let mut place = Place { fleet: Fleet::start()? };
    for at in 0..SERVERS {
        place.run_api(at)?;
    }
    let done = Arc::new(AtomicU64::new(0));
    let (hub, kubeconfig) = (place.fleet.hub().clone(), place.data(0).join("admin.kubeconfig"));
    let clients = std::thread::spawn({
        let done = done.clone();
        move || {
            hub.run(|| {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                runtime.block_on(work(kubeconfig, done))
            })
        }
    });
    let reached = |step: u64| {
        while done.load(Ordering::Relaxed) < step && !clients.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // Every member once: one of them leads.
    for at in 0..MACHINES {
        reached(STEPS / 5 * (at as u64 + 1));
        place.fleet.kill(at, "etcd")?;
        reached(STEPS / 5 * (at as u64 + 1) + STEPS / 10);
        place.fleet.run_etcd(at)?;
    }
    let (mut times, asked) = clients.join().map_err(|_| anyhow::anyhow!("the clients panicked"))???;
    times.sort_unstable();
    println!(
        "{} lists at another server than the write's, none stale: {:?} at the median, {:?} for 99 of 100, {:?} at most; etcd was asked for {asked}",
        times.len(),
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        times[times.len() - 1]
    );
    Ok(())
}

#[test]
fn a_list_is_not_stale_after_a_leader_change() {
    with_etcd(never_stale);
}
