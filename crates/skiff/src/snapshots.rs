//! The datastore that a server was told to use, embedded or etcd, and its snapshots on a schedule, with their retention. The
//! API server's role and the daemon run this.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use machinery::cron::Schedule;
use store::backup::{self, Progress, Summary};
use store::{Embedded, ListOptions, Store};
use tokio_util::sync::CancellationToken;

use crate::instance::make_private;
use crate::roles::etcd::Cluster;

const PREFIX: &str = "datastore-";
const SUFFIX: &str = ".snapshot";

#[derive(Args, Clone)]
#[group(id = "snapshots")]
pub struct Flags {
    /// When to take a snapshot of the datastore: five cron fields in UTC, or as @every 6h; empty: never
    #[arg(long, env = "SKIFF_DATASTORE_SNAPSHOT_SCHEDULE_CRON", default_value = "0 */12 * * *")]
    datastore_snapshot_schedule_cron: String,
    /// How many of them are kept
    #[arg(long, env = "SKIFF_DATASTORE_SNAPSHOT_RETENTION", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    datastore_snapshot_retention: u16,
    /// Where they are kept [default: DATA_DIR/snapshots]
    #[arg(long, env = "SKIFF_DATASTORE_SNAPSHOT_DIR")]
    datastore_snapshot_dir: Option<PathBuf>,
}

/// Events that were in etcd live so long from a restoration on: etcd does not say how long they had left.
const EVENTS_LIVE: Duration = Duration::from_secs(3600);
/// Where API servers and local clusters say that they live; they will say it again.
const PASSING: [&str; 2] = ["/registry/masterleases/", crate::claim::KEY];

#[derive(Clone)]
pub enum Datastore {
    Embedded(Arc<Embedded>),
    Etcd(Arc<dyn Store>),
}

impl Datastore {
    pub async fn open(etcd: Option<&Cluster>, data_dir: &Path) -> Result<Self> {
        match etcd {
            Some(cluster) => Ok(Self::Etcd(cluster.connect().await?)),
            None => Ok(Self::Embedded(open_store(&data_dir.join("store"))?)),
        }
    }

    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => store.clone(),
            Self::Etcd(store) => store.clone(),
        }
    }

    /// Waits until it fails in a way that only a new start can mend. An etcd cluster mends itself.
    pub async fn failed(&self) -> anyhow::Error {
        match self {
            Self::Embedded(store) => anyhow!("{}", store.failed().await).context("the datastore has failed"),
            Self::Etcd(_) => std::future::pending().await,
        }
    }

    /// Writes all of it, as it is at one revision, into a new file.
    pub async fn snapshot(&self, to: &Path, progress: Progress) -> Result<Summary> {
        let to = to.to_owned();
        match self {
            Self::Embedded(store) => {
                let store = store.clone();
                Ok(tokio::task::spawn_blocking(move || store.backup(&to, &progress)).await??)
            }
            Self::Etcd(store) => {
                let mut listing = store.list("/registry/", ListOptions::default()).await?;
                listing.items.retain(|item| !PASSING.iter().any(|passing| item.key.starts_with(passing)));
                for item in &mut listing.items {
                    // What kube-apiserver wrote becomes our form on the way.
                    if let Some(ours) = apiserver::upstream::to_stored(&item.key, &item.value)? {
                        item.value = ours;
                    }
                }
                let lives = |key: &str| key.starts_with("/registry/events/").then_some(EVENTS_LIVE);
                Ok(tokio::task::spawn_blocking(move || backup::write(&to, listing, &lives, &progress)).await??)
            }
        }
    }
}

/// Opens the embedded datastore.
pub fn open_store(dir: &Path) -> Result<Arc<Embedded>> {
    make_private(dir)?;
    let store = Embedded::open(dir, store::Options::default()).with_context(|| format!("opening the datastore in {}", dir.display()))?;
    Ok(Arc::new(store))
}

/// A schedule that was understood.
pub struct Plan {
    schedule: Schedule,
    keep: usize,
    dir: PathBuf,
}

impl Flags {
    /// `None`: no snapshots are wanted.
    pub fn plan(&self, data_dir: &Path) -> Result<Option<Plan>> {
        let text = self.datastore_snapshot_schedule_cron.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let schedule = Schedule::parse(text, TimeZone::UTC)
            .map_err(|why| anyhow!("--datastore-snapshot-schedule-cron {text:?}: {why}; five cron fields are wanted, or as @every 6h"))?;
        let dir = self.datastore_snapshot_dir.clone().unwrap_or_else(|| data_dir.join("snapshots"));
        Ok(Some(Plan { schedule, keep: self.datastore_snapshot_retention.into(), dir }))
    }
}

impl Plan {
    /// Takes snapshots when they are due, until cancelled. One that fails is said and does not keep the next from being tried.
    pub async fn run(self, datastore: Datastore, cancel: CancellationToken) {
        loop {
            let now = Timestamp::now();
            let Some(next) = self.schedule.next(now) else {
                tracing::warn!("the schedule of datastore snapshots names no time to come");
                return;
            };
            let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            match take(&datastore, &self.dir, self.keep, Timestamp::now()).await {
                Ok(file) => tracing::info!(file = %file.display(), "took a snapshot of the datastore"),
                Err(error) => tracing::error!("taking a snapshot of the datastore in {}: {error:#}", self.dir.display()),
            }
        }
    }
}

async fn take(datastore: &Datastore, dir: &Path, keep: usize, now: Timestamp) -> Result<PathBuf> {
    make_private(dir)?;
    let file = dir.join(format!("{PREFIX}{}{SUFFIX}", now.strftime("%Y%m%dT%H%M%SZ")));
    datastore.snapshot(&file, Arc::new(|_, _, _| ())).await?;
    retain(dir, keep)?;
    Ok(file)
}

/// Removes the oldest, by their names; other files are left alone.
fn retain(dir: &Path, keep: usize) -> Result<()> {
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    let mut names: Vec<String> = names.collect::<Result<_>>()?;
    names.retain(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
    names.sort_unstable();
    for name in &names[..names.len().saturating_sub(keep)] {
        fs::remove_file(dir.join(name)).with_context(|| format!("removing the old snapshot {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_go_and_other_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store = Datastore::Embedded(Arc::new(Embedded::in_memory()));
        fs::write(dir.path().join("notes.txt"), "").unwrap();
        for day in 1..=5 {
            let at: Timestamp = format!("2026-03-0{day}T12:00:00Z").parse().unwrap();
            take(&store, dir.path(), 3, at).await.unwrap();
        }
        let mut names: Vec<String> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let kept = |day| format!("datastore-2026030{day}T120000Z.snapshot");
        assert_eq!(names, [kept(3), kept(4), kept(5), "notes.txt".to_owned()]);
    }
}
