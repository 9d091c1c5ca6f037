//! `skiff control-plane`: API server, controllers and scheduler in one process, for nodes that run elsewhere. The daemon of a
//! local cluster runs the same components beside its first node.
//!
//! In one process they need no TLS, no tokens and one decoded copy of each object, and the program's code is mapped once.

use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::Handle;
use auth::User;
use clap::Args;
use client::metrics::Metered;
use client::{Client, Clock, Election, Entropy, Informers, Leadership, Registry};
use controller_runtime::ControllerManager;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{kube_apiserver, kube_controller_manager};
use crate::component::{self, Component, Secure, Serving};

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
    /// Where the controllers tell of themselves; 0: nowhere
    #[arg(long, default_value_t = component::CONTROLLER_MANAGER_PORT)]
    controller_manager_port: u16,
    /// The scheduler's
    #[arg(long, default_value_t = component::SCHEDULER_PORT)]
    scheduler_port: u16,
}

/// Where the components tell of themselves; 0: nowhere.
#[derive(Clone, Copy)]
pub struct Ports {
    pub controller_manager: u16,
    pub scheduler: u16,
}

pub fn run(flags: &Flags) -> Result<()> {
    super::run(|cancel| {
        kube_apiserver::serve(&flags.server, cancel, async |handle, cancel| {
            let mut config = kube_controller_manager::settings(&flags.cluster_cidr, flags.node_cidr_mask_size, handle.ca());
            // Others of their kind may run beside the same etcd.
            config.election = flags.server.shares_its_store().then(|| elected("kube-controller-manager"));
            let scheduling = flags.server.shares_its_store().then(|| elected("kube-scheduler"));
            let mut tasks = JoinSet::new();
            let ports = Ports { controller_manager: flags.controller_manager_port, scheduler: flags.scheduler_port };
            start(handle, config, scheduling, ports, &mut tasks, &cancel).await;
            first_failure(&mut tasks, &cancel).await
        })
    })
}

fn elected(component: &str) -> Election {
    Election::new(component, &kube_controller_manager::identity())
}

/// Starts controllers and scheduler beside a server of this process, each under its own name.
pub async fn start(
    handle: &Handle,
    mut config: controller_runtime::Config,
    scheduling: Option<Election>,
    ports: Ports,
    tasks: &mut JoinSet<Ended>,
    cancel: &CancellationToken,
) {
    // Where one of them ends, all of this process does.
    ["scheduler", "controller-manager"].into_iter().for_each(|component| handle.beside(component));
    // One decoded copy of each object serves all of them.
    let informers = Informers::new(client::in_process(handle.service_as(User::apiserver())));
    config.informers = Some(informers.clone());
    config.controllers.keys = crate::signer::of_pki(handle.pki());
    let registry = component::counts(&[]);
    config.metrics = Some(registry.clone());
    if let Some(election) = &mut config.election {
        election.metrics = Some(registry.clone());
    }
    let (server, host, counted) = (handle.service(), handle.local_addr.to_string(), registry.clone());
    let service = move |name: &str| {
        let service = Metered::new(server.with_user(controller_user(name)), counted.clone(), &host);
        client::in_process_named(service, "kube-controller-manager")
    };
    let (health, shown) = (component::CONTROLLER_MANAGER_HEALTH, crate::configz::controllers(&config));
    let component = Component { health, registry, config: shown, client: service("system:kube-controller-manager") };
    observe(handle, component, ports.controller_manager, tasks, cancel).await;
    let token = cancel.clone();
    tasks.spawn(async move { ("controllers", ControllerManager::run(config, service, token).await.map_err(anyhow::Error::from)) });
    let registry = component::counts(scheduler::metrics::ALL);
    let service =
        Metered::new(handle.service_as(User::new("system:kube-scheduler", &[])), registry.clone(), &handle.local_addr.to_string());
    let client = client::in_process_named(service, "kube-scheduler");
    let shown = crate::configz::scheduler(&scheduler::Config::default(), scheduling.as_ref());
    let component = Component { health: component::SCHEDULER_HEALTH, registry: registry.clone(), config: shown, client: client.clone() };
    observe(handle, component, ports.scheduler, tasks, cancel).await;
    let token = cancel.clone();
    tasks.spawn(async move { ("scheduler", schedule(client, &informers, scheduling, registry, token).await) });
}

/// Lets a component tell of itself at its port. A port that is taken does not keep the cluster from starting.
async fn observe(handle: &Handle, component: Component, port: u16, tasks: &mut JoinSet<Ended>, cancel: &CancellationToken) {
    if port == 0 {
        return;
    }
    let serving = async {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let identity = handle.pki().ca.issue("localhost", &[], &names, apiserver::pki::Usage::Server)?;
        let secure = Secure {
            address: (std::net::Ipv4Addr::UNSPECIFIED, port).into(),
            certificate_pem: &identity.cert_pem,
            key_pem: &identity.key_pem,
            client_ca_pem: handle.ca(),
        };
        Serving::bind(component, &secure).await
    };
    match serving.await {
        Ok(serving) => {
            let cancel = cancel.clone();
            tasks.spawn(async move {
                serving.run(cancel).await;
                ("what a component tells of itself", Ok(()))
            });
        }
        Err(error) => tracing::warn!(port, "health and metrics of a component are not served: {error:#}"),
    }
}

/// Runs the scheduler, as the leader where there may be others.
pub async fn schedule(
    client: Client,
    informers: &Informers,
    election: Option<Election>,
    registry: Arc<Registry>,
    cancel: CancellationToken,
) -> Result<()> {
    let config = scheduler::Config { metrics: Some(registry.clone()), ..scheduler::Config::default() };
    let Some(mut election) = election else { return Ok(scheduler::run(config, client, informers, cancel).await?) };
    election.metrics = Some(registry);
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
