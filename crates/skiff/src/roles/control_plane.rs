//! `skiff control-plane`: API server, controllers and scheduler in one process, for nodes that run elsewhere. The daemon of a
//! local cluster runs the same components beside its first node.
//!
//! In one process they need no TLS, no tokens and one decoded copy of each object, and the program's code is mapped once.

use anyhow::{Context, Result};
use apiserver::Handle;
use auth::User;
use clap::Args;
use client::{Client, Clock, Election, Entropy, Informers, Leadership};
use controller_runtime::ControllerManager;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{kube_apiserver, kube_controller_manager};

/// What ended, and how.
pub type Ended = (&'static str, Result<()>);

/// Those of the API server, and where pods get their addresses from.
#[derive(Args)]
#[group(id = "control-plane")]
pub struct Flags {
    #[command(flatten)]
    server: kube_apiserver::Flags,
    /// Pods of the whole cluster; each node gets a part
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: String,
    #[arg(long, default_value_t = 24)]
    node_cidr_mask_size: u8,
}

pub fn run(flags: &Flags) -> Result<()> {
    super::run(|cancel| {
        kube_apiserver::serve(&flags.server, cancel, async |handle, cancel| {
            let mut config = kube_controller_manager::settings(&flags.cluster_cidr, flags.node_cidr_mask_size, handle.ca());
            // Others of their kind may run beside the same etcd.
            config.election = flags.server.shares_its_store().then(|| elected("kube-controller-manager"));
            let scheduling = flags.server.shares_its_store().then(|| elected("kube-scheduler"));
            let mut tasks = JoinSet::new();
            start(handle, config, scheduling, &mut tasks, &cancel);
            first_failure(&mut tasks, &cancel).await
        })
    })
}

fn elected(component: &str) -> Election {
    Election::new(component, &kube_controller_manager::identity())
}

/// Starts controllers and scheduler beside a server of this process, each under its own name.
pub fn start(
    handle: &Handle,
    mut config: controller_runtime::Config,
    scheduling: Option<Election>,
    tasks: &mut JoinSet<Ended>,
    cancel: &CancellationToken,
) {
    // Where one of them ends, all of this process does.
    ["scheduler", "controller-manager"].into_iter().for_each(|component| handle.beside(component));
    // One decoded copy of each object serves all of them.
    let informers = Informers::new(client::in_process(handle.service_as(User::apiserver())));
    config.informers = Some(informers.clone());
    config.controllers.keys = crate::signer::of_pki(handle.pki());
    let server = handle.service();
    let service = move |name: &str| client::in_process_named(server.with_user(controller_user(name)), "kube-controller-manager");
    let token = cancel.clone();
    tasks.spawn(async move { ("controllers", ControllerManager::run(config, service, token).await.map_err(anyhow::Error::from)) });
    let client = client::in_process_named(handle.service_as(User::new("system:kube-scheduler", &[])), "kube-scheduler");
    let token = cancel.clone();
    tasks.spawn(async move { ("scheduler", schedule(client, &informers, scheduling, token).await) });
}

/// Runs the scheduler, as the leader where there may be others.
pub async fn schedule(client: Client, informers: &Informers, election: Option<Election>, cancel: CancellationToken) -> Result<()> {
    let config = scheduler::Config::default();
    let Some(election) = election else { return Ok(scheduler::run(config, client, informers, cancel).await?) };
    let mut leadership = Leadership::new(client.clone(), election, Clock::System, Entropy::from_system());
    tokio::select! { biased;
        () = cancel.cancelled() => return Ok(()),
        () = leadership.acquire() => {}
    }
    tokio::select! { biased;
        ended = scheduler::run(config, client, informers, cancel) => ended?,
        () = leadership.hold() => anyhow::bail!("the lease was lost to another scheduler"),
    }
    leadership.release().await.context("giving the lease back")
}

fn controller_user(name: &str) -> User {
    if name.starts_with("system:") { User::new(name, &[]) } else { User::service_account("kube-system", name) }
}

/// Waits for every part. The first that ends by itself ends the others.
pub async fn first_failure(tasks: &mut JoinSet<Ended>, cancel: &CancellationToken) -> Result<()> {
    let mut outcome = Ok(());
    while !cancel.is_cancelled() {
        let Some(ended) = tasks.join_next().await else { break };
        let (name, result) = ended.context("a part of this process panicked")?;
        if !cancel.is_cancelled() {
            outcome = Err(result.err().unwrap_or_else(|| anyhow::anyhow!("it ended by itself")).context(format!("{name} failed")));
            cancel.cancel();
        }
    }
    let drained = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while let Some(ended) = tasks.join_next().await {
            if let Ok((name, Err(error))) = ended {
                tracing::warn!("{name}: {error:#}");
            }
        }
    });
    if drained.await.is_err() {
        tracing::warn!("some parts did not end in time");
    }
    outcome
}
