//! `skiff datastore migrate`: the embedded datastore into an etcd cluster, or back. The work is `etcd::migrate`.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use etcd::migrate::{Migration, Phase};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use store::Store;

use crate::roles::etcd::Flags;
use crate::roles::kube_apiserver::{duration, open_store};

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

/// `dir`: where the embedded datastore is, or is to be.
pub fn run(arguments: &MigrateArgs, dir: &Path) -> Result<()> {
    crate::log::init();
    if arguments.etcd.etcd_servers.is_empty() {
        bail!("--etcd-servers: which etcd cluster?");
    }
    if arguments.to == Target::Etcd && !dir.is_dir() {
        bail!("there is no datastore in {}", dir.display());
    }
    let event_ttl = duration(&arguments.event_ttl).context("--event-ttl")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let cluster = arguments.etcd.connect().await?;
        if let Some(parent) = dir.parent() {
            crate::instance::make_private(parent)?;
        }
        let embedded = open_store(dir)?;
        let (from, to): (&dyn store::Store, &dyn store::Store) = match arguments.to {
            Target::Etcd => (&*embedded, &*cluster),
            Target::Embedded => (&*cluster, &*embedded),
        };
        migrate(from, to, event_ttl).await
    })
}

async fn migrate(from: &dyn Store, to: &dyn Store, event_ttl: Duration) -> Result<()> {
    // What kube-apiserver wrote becomes our form on the way.
    let form = |key: &str, value: &Bytes| Ok(apiserver::upstream::to_stored(key, value)?.unwrap_or_else(|| value.clone()));
    let ttl = |key: &str| key.starts_with("/registry/events/").then_some(event_ttl);
    let progress = bars();
    let migration = Migration { from, to, form: &form, ttl: &ttl, progress: &*progress };
    let summary = migration.run().await.context("migrating")?;
    println!(
        "Migrated and compared {} keys, {:.1} MB. The revision was {} and is {}. Start the API servers on the new datastore only.",
        summary.keys,
        mega(summary.bytes),
        summary.from.0,
        summary.to.0
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// One bar after another on a terminal; nothing elsewhere.
fn bars() -> Arc<dyn Fn(Phase, u64, u64) + Send + Sync> {
    let current: Mutex<Option<(Phase, ProgressBar)>> = Mutex::new(None);
    Arc::new(move |phase, done, total| {
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|(of, _)| *of != phase) {
            *current = Some((phase, bar(phase, total)));
        }
        if let Some((_, bar)) = &*current {
            bar.set_position(done);
            if done >= total {
                bar.finish_and_clear();
            }
        }
    })
}

fn bar(phase: Phase, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
    let what = match phase {
        Phase::Copy => "copying",
        Phase::Raise => "raising the revision",
        Phase::Verify => "comparing",
    };
    if let Ok(style) = ProgressStyle::with_template("  {msg:20} {wide_bar} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}
