//! `skiff datastore`: snapshots of the datastore, embedded or etcd, their way back, checking, compacting. The work is
//! `store::backup`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use store::backup::{self, Phase, Progress, Summary};

use super::progress::{Shown, bars, sized};
use crate::Place;
use crate::roles::etcd::{Cluster, Flags};
use crate::snapshots::Datastore;

#[derive(Args)]
pub struct DatastoreArgs {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Write the whole datastore into one new file, also while the server runs
    Snapshot {
        /// Must not be there yet
        file: PathBuf,
        #[command(flatten)]
        etcd: Flags,
    },
    /// Make the datastore of a snapshot; there must be none yet, and no server may run
    Restore {
        file: PathBuf,
        /// Goes on so many revisions after the snapshot's, so that nobody takes a new revision for one that is lost; 0: an exact copy
        #[arg(long, default_value_t = 1_000_000_000)]
        bump_revision: u64,
    },
    /// Read every byte and check it, also while the server runs
    Check {
        /// A snapshot; without it the datastore itself
        file: Option<PathBuf>,
    },
    /// Move all to an etcd cluster, or from one to the embedded datastore; no API server may run
    Migrate(super::migrate::MigrateArgs),
    /// Forget history and give back the space; for a stopped server, a running one does so by itself
    Compact,
}

pub fn run(arguments: &DatastoreArgs) -> Result<()> {
    let dirs = arguments.place.dirs()?;
    let dir = dirs.store();
    let remembered = dirs.load()?.and_then(|instance| instance.etcd);
    let progress: Progress = Arc::new(bars(phase));
    match &arguments.action {
        Action::Snapshot { file, etcd } => {
            let file = std::path::absolute(file)?;
            if let Some(cluster) = etcd.cluster()?.or(remembered) {
                return of_etcd(&cluster, &file, progress);
            }
            let summary = backup::snapshot(&dir, &file, &progress).with_context(|| format!("taking a snapshot of {}", dir.display()))?;
            println!("Snapshot {}: {}", file.display(), shown(&summary));
        }
        Action::Restore { file, bump_revision } => {
            let from = std::path::absolute(file)?;
            if let Some(parent) = dir.parent() {
                crate::instance::make_private(parent)?;
            }
            if let Some(cluster) = remembered {
                bail!(
                    "this cluster's objects are in {cluster}: restore into another --data-dir, and move that with `skiff datastore migrate`"
                );
            }
            let summary = backup::restore(&from, &dir, *bump_revision, &progress)
                .with_context(|| format!("restoring {} to {}", from.display(), dir.display()))?;
            println!("Restored to {}: {}", dir.display(), shown(&summary));
        }
        Action::Check { file: Some(file) } => {
            let summary = backup::verify(file, &progress).with_context(|| format!("checking {}", file.display()))?;
            println!("{} is whole: {}", file.display(), shown(&summary));
        }
        Action::Check { file: None } | Action::Compact if let Some(cluster) = &remembered => {
            bail!("this cluster's objects are in {cluster}, which looks after itself; see `etcdctl endpoint health` and `etcdctl compact`");
        }
        Action::Check { file: None } => {
            let summary = backup::check(&dir, &progress).with_context(|| format!("checking {}", dir.display()))?;
            println!("{} is whole: {}", dir.display(), shown(&summary));
        }
        Action::Migrate(arguments) => super::migrate::run(arguments, &dirs)?,
        Action::Compact => {
            let (before, after) = backup::compact(&dir, &progress).with_context(|| format!("compacting {}", dir.display()))?;
            println!("Compacted {}: {}, were {} before", dir.display(), shown(&after), sized(before.bytes));
        }
    }
    Ok(())
}

fn of_etcd(cluster: &Cluster, file: &Path, progress: Progress) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let taking = async { Datastore::Etcd(cluster.connect().await?).snapshot(file, progress).await };
    let summary = runtime.block_on(taking).with_context(|| format!("taking a snapshot of {cluster}"))?;
    println!("Snapshot {}: {}", file.display(), shown(&summary));
    Ok(())
}

fn shown(summary: &Summary) -> String {
    let Summary { revision, keys, changes, leases, bytes, .. } = summary;
    format!("revision {}, {keys} keys, {changes} changes of history, {leases} leases, {}", revision.0, sized(*bytes))
}

fn phase(phase: Phase) -> Shown {
    let (what, template) = match phase {
        Phase::Read => ("reading", "  {msg:10} {wide_bar} {bytes}/{total_bytes} {eta}"),
        Phase::Write => ("writing", "  {msg:10} {wide_bar} {pos}/{len} records {eta}"),
        Phase::Verify => ("verifying", "  {msg:10} {wide_bar} {bytes}/{total_bytes} {eta}"),
    };
    Shown { what, template }
}
