//! `skiff up`: starts a cluster in the background and returns when its nodes are Ready.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use clap::Args;
use client::Entropy;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;

use crate::claim;
use crate::commands::doctor;
use crate::instance::{Dirs, Instance, make_private};
use crate::progress::{Step, Steps, shown};
use crate::roles::etcd::{Cluster, Flags};
use crate::supervisor::{self, Report, Task};
use crate::{Place, kubeconfig};

/// How long the parts of a start may take before `up` gives up waiting.
const API_WAIT: Duration = Duration::from_secs(30);
const NODES_WAIT: Duration = Duration::from_secs(120);

#[derive(Args)]
pub struct UpArgs {
    #[command(flatten)]
    place: Place,
    /// Nodes in all; those after the first live in network namespaces of their own on this machine
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: Option<u16>,
    #[command(flatten)]
    etcd: Flags,
}

pub fn run(arguments: &UpArgs) -> Result<()> {
    let steps = Steps::new();
    let dirs = arguments.place.dirs()?;
    let step = steps.begin("looking at this machine");
    let lacking = doctor::lacking();
    if !lacking.is_empty() {
        drop(step);
        bail!("this machine cannot run a cluster yet:\n{}", lacking.join("\n"));
    }
    let (instance, changed) = instance(&dirs, arguments.nodes, arguments.etcd.cluster()?)?;
    step.done();
    if let Some(report) = Report::read(&dirs) {
        if !changed && report.children.values().all(|c| c.given_up.is_none()) {
            println!("The cluster already runs (context {:?}, {} node(s)). `skiff status` shows it.", instance.context, instance.nodes);
            return Ok(());
        }
        // Another number of nodes, or a part that gave up: the supervisor starts anew; pods keep running.
        super::down::stop_supervisor(&dirs)?;
    }
    if let Some(cluster) = &instance.etcd {
        let step = steps.begin("looking for etcd");
        let found = match look_at(cluster, &instance.id) {
            Err(error) if error.downcast_ref::<claim::Error>().is_some() => {
                // What was never started has nothing to remember.
                if !dirs.admin_kubeconfig().exists() {
                    fs::remove_file(dirs.file()).with_context(|| format!("removing {}", dirs.file().display()))?;
                }
                return Err(error);
            }
            found => found?,
        };
        step.done();
        if !dirs.admin_kubeconfig().exists() && found > 0 {
            println!("There are {found} keys in {cluster} already: this cluster goes on with those objects.");
        }
    }
    let step = steps.begin("starting the control plane");
    let started = Timestamp::now();
    launch(&dirs)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let api = runtime.block_on(wait_for_api(&dirs, &step))?;
    step.done();
    let step =
        steps.begin(if instance.nodes == 1 { "waiting for the node".to_owned() } else { format!("waiting for {} nodes", instance.nodes) });
    runtime.block_on(wait_for_nodes(&dirs, api, &instance, started, &step))?;
    step.done();
    let context = merge_kubeconfig(&dirs, &instance)?;
    println!(
        "\nThe cluster is ready after {}.\n\n  context     {context} (in {})\n  server      {}\n  log         {}\n\nNow try:\n\n  kubectl get nodes\n  kubectl create deployment hello --image=skiff/hello\n  kubectl expose deployment hello --type=LoadBalancer --port=80\n  kubectl get svc hello\n",
        shown(steps.elapsed()),
        kubeconfig::path()?.display(),
        instance.server(),
        dirs.log().display(),
    );
    Ok(())
}

/// How many keys there are in an etcd cluster; an error where it does not answer, or where another local cluster has the prefix.
fn look_at(cluster: &Cluster, instance: &str) -> Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let looking = async {
        let options = store::ListOptions { limit: 1, ..store::ListOptions::default() };
        let store = cluster.connect().await?;
        if let Some(other) = claim::other(&*store, instance).await? {
            return Err(claim::Error::Taken(other).into());
        }
        anyhow::Ok(store.list("/registry/", options).await?.count)
    };
    runtime.block_on(looking).with_context(|| format!("looking at {cluster}"))
}

/// What a cluster that was made over one datastore cannot do: go on over another.
fn same_datastore(dirs: &Dirs, known: Option<&Cluster>, wanted: &Cluster) -> Result<()> {
    match known {
        None => bail!(
            "this cluster's objects are in its embedded datastore: `skiff down`, then `skiff datastore migrate --to etcd --etcd-servers=...` moves them;\n\
             for a new cluster over etcd, `skiff delete` first, or choose another --data-dir than {}",
            dirs.data.display()
        ),
        Some(known) if known.prefix != wanted.prefix => bail!(
            "this cluster's objects are in {known}; under {} are another cluster's: choose another --data-dir than {}",
            wanted.prefix,
            dirs.data.display()
        ),
        Some(_) => Ok(()),
    }
}

/// The instance that lives here, or a new one. Says whether its number of nodes or the way to its datastore changed.
fn instance(dirs: &Dirs, nodes: Option<u16>, etcd: Option<Cluster>) -> Result<(Instance, bool)> {
    if let Some(mut known) = dirs.load()? {
        if let Some(etcd) = &etcd {
            same_datastore(dirs, known.etcd.as_ref(), etcd)?;
        }
        // Members come and go, and certificates move.
        let moved = etcd.is_some() && etcd != known.etcd;
        known.etcd = etcd.or(known.etcd);
        let changed = moved || nodes.is_some_and(|n| n != known.nodes) || known.run_dir != dirs.run;
        known.nodes = nodes.unwrap_or(known.nodes);
        known.run_dir.clone_from(&dirs.run);
        if changed {
            dirs.save(&known)?;
        }
        return Ok((known, changed));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cidrs = runtime.block_on(async { network::pick_cidrs(&network::NetNs::current()?).await }).context("picking address ranges")?;
    let mut made = Instance::choose(dirs, nodes.unwrap_or(1), Entropy::from_system().next_u64(), &cidrs)?;
    // A context that belongs to another cluster on this machine keeps its name.
    if kubeconfig::server_of(&kubeconfig::path()?, &made.context)?.is_some_and(|s| s != made.server() && answers(&s)) {
        made.context = format!("skiff-{}", made.id);
    }
    made.etcd = etcd;
    dirs.save(&made)?;
    Ok((made, true))
}

/// Whether something listens at a server's URL.
fn answers(server: &str) -> bool {
    let address = server.trim_start_matches("https://").trim_end_matches('/');
    std::net::ToSocketAddrs::to_socket_addrs(address)
        .is_ok_and(|mut a| a.any(|a| std::net::TcpStream::connect_timeout(&a, Duration::from_millis(300)).is_ok()))
}

/// Copies this program beside the data, so that a rebuild does not pull it away from under the cluster, and starts it as
/// supervisor, detached.
fn launch(dirs: &Dirs) -> Result<()> {
    make_private(&dirs.run)?;
    for entry in fs::read_dir(&dirs.run)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "error") {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    let bin = dirs.data.join("bin");
    make_private(&bin)?;
    let program = bin.join("skiff");
    let fresh = bin.join(format!("skiff.{}", std::process::id()));
    fs::copy("/proc/self/exe", &fresh).with_context(|| format!("copying skiff to {}", fresh.display()))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    fs::rename(&fresh, &program).with_context(|| format!("putting {} in place", program.display()))?;
    let log =
        fs::OpenOptions::new().create(true).append(true).open(dirs.log()).with_context(|| format!("opening {}", dirs.log().display()))?;
    let errors = log.try_clone()?;
    let mut command = Command::new(&program);
    command.arg("supervise").arg("--data-dir").arg(&dirs.data).arg("--run-dir").arg(&dirs.run);
    // Its own folder could be anyone's; its own group keeps a ^C in this terminal away from it.
    command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().with_context(|| format!("starting {}", program.display()))?;
    Ok(())
}

/// What the detached process does.
pub fn supervise(dirs: &Dirs) -> Result<()> {
    let instance = dirs.load()?.context("no cluster lives here: run `skiff up`")?;
    let place = |name: &str| -> Vec<String> {
        let mut out = vec![name.to_owned()];
        for (flag, dir) in [("--data-dir", &dirs.data), ("--run-dir", &dirs.run)] {
            out.extend([flag.to_owned(), dir.display().to_string()]);
        }
        out
    };
    let mut tasks = vec![Task { name: "daemon".to_owned(), arguments: place("daemon"), stays_dead: false }];
    for n in 2..=instance.nodes {
        let mut arguments = place("node-agent");
        arguments.extend(["--node".to_owned(), n.to_string()]);
        tasks.push(Task { name: instance.node_name(n), arguments, stays_dead: true });
    }
    let program: PathBuf = std::env::current_exe().context("finding the program's own file")?;
    supervisor::supervise(dirs, program, tasks)
}

/// The reason a part of the cluster has given up, if one has.
fn given_up(dirs: &Dirs) -> Option<String> {
    let report = Report::read(dirs)?;
    report.children.iter().find_map(|(name, c)| Some(format!("{name}: {}", c.given_up.as_ref()?.trim())))
}

/// Waits until `/readyz` answers ok.
async fn wait_for_api(dirs: &Dirs, step: &Step) -> Result<kube::Client> {
    let until = Instant::now() + API_WAIT;
    let mut last = "it has not written its kubeconfig yet".to_owned();
    while Instant::now() < until {
        if let Some(why) = given_up(dirs) {
            bail!("the cluster cannot start: {why}");
        }
        if dirs.admin_kubeconfig().exists() {
            match ready(dirs).await {
                Ok(client) => return Ok(client),
                Err(error) => last = format!("{error:#}"),
            }
            step.note("the API server is coming up");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!("the API server is not ready after {}: {last}; {} says more", shown(API_WAIT), dirs.log().display())
}

async fn ready(dirs: &Dirs) -> Result<kube::Client> {
    let client = client::from_kubeconfig(&dirs.admin_kubeconfig()).await?;
    let request = http::Request::get("/readyz").body(Vec::new())?;
    let answer = tokio::time::timeout(Duration::from_secs(2), client.request_text(request)).await.context("/readyz does not answer")??;
    if answer.trim() == "ok" { Ok(client) } else { bail!("/readyz says {answer:?}") }
}

async fn wait_for_nodes(dirs: &Dirs, client: kube::Client, instance: &Instance, started: Timestamp, step: &Step) -> Result<()> {
    let api: Api<Node> = Api::all(client);
    let wanted = instance.node_names();
    // What the datastore remembers of an earlier run does not count; heartbeats have whole seconds.
    let since = Timestamp::from_second(started.as_second())?;
    let until = Instant::now() + NODES_WAIT;
    let mut missing = wanted.clone();
    while Instant::now() < until {
        if let Some(why) = given_up(dirs) {
            bail!("the cluster cannot start: {why}");
        }
        match api.list(&ListParams::default()).await {
            Ok(nodes) => {
                let is_ready =
                    |name: &&String| nodes.items.iter().any(|n| n.metadata.name.as_ref() == Some(*name) && ready_since(n) >= Some(since));
                missing = wanted.iter().filter(|n| !is_ready(n)).cloned().collect();
                if missing.is_empty() {
                    return Ok(());
                }
                step.note(&format!("not ready yet: {}", missing.join(", ")));
            }
            Err(error) => step.note(&error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("not Ready after {}: {}; {} says more", shown(NODES_WAIT), missing.join(", "), dirs.log().display())
}

pub fn node_ready(node: &Node) -> bool {
    ready_since(node).is_some()
}

/// When a node that is Ready last said so.
fn ready_since(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")?;
    Some(ready.last_heartbeat_time.as_ref().map_or(Timestamp::MIN, |t| t.0))
}

/// Takes the admin's credentials into the user's kubeconfig; returns the context's name.
fn merge_kubeconfig(dirs: &Dirs, instance: &Instance) -> Result<String> {
    let text = fs::read_to_string(dirs.admin_kubeconfig()).with_context(|| format!("reading {}", dirs.admin_kubeconfig().display()))?;
    let config = machinery::yaml::parse(text.as_bytes()).context("reading the admin kubeconfig")?.value;
    let data = |list: &str, part: &str, key: &str| -> Result<String> {
        let entry = &config[list][0][part];
        if let Some(inline) = entry[format!("{key}-data")].as_str() {
            return Ok(inline.to_owned());
        }
        let path = entry[key].as_str().with_context(|| format!("the admin kubeconfig has no {key}"))?;
        Ok(base64::engine::general_purpose::STANDARD.encode(fs::read(path)?))
    };
    let entry = kubeconfig::Entry {
        name: &instance.context,
        server: &instance.server(),
        ca_data: &data("clusters", "cluster", "certificate-authority")?,
        certificate_data: &data("users", "user", "client-certificate")?,
        key_data: &data("users", "user", "client-key")?,
    };
    kubeconfig::merge(&kubeconfig::path()?, &entry)?;
    Ok(instance.context.clone())
}
