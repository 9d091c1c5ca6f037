//! `skiff datastore migrate`: the embedded datastore into an etcd cluster, or back. The work is `etcd::migrate`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use etcd::migrate::{Migration, Phase};
use store::Store;

use super::progress::{Shown, bars, sized};
use crate::instance::Dirs;
use crate::roles::duration;
use crate::roles::etcd::Flags;
use crate::snapshots::open_store;
use crate::supervisor::Report;

#[derive(Args)]
pub struct MigrateArgs {
    /// Where all is to go; it must be empty there
    #[arg(long, value_enum)]
    to: Target,
    #[command(flatten)]
    etcd: Flags,
    /// How long events live from the migration on
    #[arg(long, default_value = "1h")]
    event_ttl: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    Etcd,
    Embedded,
}

/// A local cluster that lives here knows afterwards where its objects are.
pub fn run(arguments: &MigrateArgs, dirs: &Dirs) -> Result<()> {
    crate::log::init();
    let dir = &dirs.store();
    let Some(cluster) = arguments.etcd.cluster()? else { bail!("--etcd-servers: which etcd cluster?") };
    if Report::read(dirs).is_some() {
        bail!("the cluster runs: `skiff down` first");
    }
    if arguments.to == Target::Etcd && !dir.is_dir() {
        bail!("there is no datastore in {}", dir.display());
    }
    let event_ttl = duration("event-ttl", &arguments.event_ttl)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let cluster = cluster.connect().await?;
        if let Some(parent) = dir.parent() {
            crate::instance::make_private(parent)?;
        }
        let embedded = open_store(dir)?;
        let (from, to): (&dyn store::Store, &dyn store::Store) = match arguments.to {
            Target::Etcd => (&*embedded, &*cluster),
            Target::Embedded => (&*cluster, &*embedded),
        };
        migrate(from, to, event_ttl).await
    })?;
    if let Some(mut instance) = dirs.load()? {
        instance.etcd = (arguments.to == Target::Etcd).then_some(cluster);
        dirs.save(&instance)?;
        println!("`skiff up` now uses the datastore that is {}. What is in the other one stays.", instance.datastore(dirs));
    }
    Ok(())
}

async fn migrate(from: &dyn Store, to: &dyn Store, event_ttl: Duration) -> Result<()> {
    // What kube-apiserver wrote becomes our form on the way.
    let form = |key: &str, value: &Bytes| Ok(apiserver::upstream::to_stored(key, value)?.unwrap_or_else(|| value.clone()));
    let ttl = |key: &str| key.starts_with("/registry/events/").then_some(event_ttl);
    let progress = bars(phase);
    let migration = Migration { from, to, form: &form, ttl: &ttl, progress: &progress };
    let summary = migration.run().await.context("migrating")?;
    println!(
        "Migrated and compared {} keys, {}. The revision was {} and is {}. Start the API servers on the new datastore only.",
        summary.keys,
        sized(summary.bytes),
        summary.from.0,
        summary.to.0
    );
    Ok(())
}

fn phase(phase: Phase) -> Shown {
    let what = match phase {
        Phase::Copy => "copying",
        Phase::Raise => "raising the revision",
        Phase::Verify => "comparing",
    };
    Shown { what, template: "  {msg:20} {wide_bar} {pos}/{len} {eta}" }
}
