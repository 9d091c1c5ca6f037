//! Snapshots of the embedded datastore on a schedule, and their retention. The API server's role and the daemon run it beside
//! the store.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use machinery::cron::Schedule;
use store::Embedded;
use tokio_util::sync::CancellationToken;

use crate::instance::make_private;

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
    pub async fn run(self, store: Arc<Embedded>, cancel: CancellationToken) {
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
            let (dir, keep, store) = (self.dir.clone(), self.keep, store.clone());
            let taken = tokio::task::spawn_blocking(move || take(&store, &dir, keep, Timestamp::now())).await;
            match taken.map_err(anyhow::Error::from).flatten() {
                Ok(file) => tracing::info!(file = %file.display(), "took a snapshot of the datastore"),
                Err(error) => tracing::error!("taking a snapshot of the datastore in {}: {error:#}", self.dir.display()),
            }
        }
    }
}

fn take(store: &Embedded, dir: &Path, keep: usize, now: Timestamp) -> Result<PathBuf> {
    make_private(dir)?;
    let file = dir.join(format!("{PREFIX}{}{SUFFIX}", now.strftime("%Y%m%dT%H%M%SZ")));
    let nobody: store::backup::Progress = Arc::new(|_, _, _| ());
    store.backup(&file, &nobody)?;
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

    #[test]
    fn the_oldest_go_and_other_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::in_memory();
        fs::write(dir.path().join("notes.txt"), "").unwrap();
        for day in 1..=5 {
            let at: Timestamp = format!("2026-03-0{day}T12:00:00Z").parse().unwrap();
            take(&store, dir.path(), 3, at).unwrap();
        }
        let mut names: Vec<String> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let kept = |day| format!("datastore-2026030{day}T120000Z.snapshot");
        assert_eq!(names, [kept(3), kept(4), kept(5), "notes.txt".to_owned()]);
    }
}
