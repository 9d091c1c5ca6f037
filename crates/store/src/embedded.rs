//! The embedded engine as a [`Store`]: the core behind one lock, and a thread that makes batches durable. In memory and on
//! a simulated disk there is no thread: a write flushes at once, so a single-threaded simulation stays deterministic.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::StreamExt;

use crate::core::{Core, Outcome, Submitted};
use crate::disk::Disk;
use crate::disk::real::RealDisk;
use crate::log::Log;
use crate::recover::{Recovered, recover};
use crate::state::{self, State};
use crate::time::{Clock, EngineTime, default_clock};
use crate::watch::Slot;
use crate::writer::Writer;
use crate::{Error, Freshness, KeyValue, ListOptions, Listing, Op, Result, Revision, Store, WatchItem, WatchStream};

#[derive(Clone)]
pub struct Options {
    /// Superseded values are forgotten, oldest first, when they take more memory than this, even before they are compacted.
    pub history_bytes_max: usize,
    /// Puts are refused while the disk has less free space than this.
    pub free_bytes_min: u64,
    /// A snapshot replaces the log when it has grown by this and by the size of the last snapshot.
    pub snapshot_bytes_min: u64,
    /// An idle watch says so often how far it is.
    pub progress_interval: Duration,
    pub clock: Clock,
    /// Makes the salts of files; 0: a random one.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            history_bytes_max: 64 << 20,
            free_bytes_min: 64 << 20,
            snapshot_bytes_min: 16 << 20,
            progress_interval: Duration::from_secs(60),
            clock: default_clock(),
            seed: 0,
        }
    }
}

/// The embedded engine. Dropping it flushes, ends all watches and unlocks the directory.
pub struct Embedded {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The writer, where no thread has it.
    inline: Option<Mutex<Writer>>,
}

/// What the engine, its thread and its watches share.
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// Rung when something was queued while the thread was idle.
    pub(crate) bell: Condvar,
    pub(crate) options: Options,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Embedded {
    /// Opens a data directory, made where it is not there, and locks it. Reads everything: it blocks for a while.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        Self::with_disk_and_thread(Arc::new(RealDisk::open(dir.as_ref())?), options)
    }

    /// Opens any disk as [`Embedded::open`] does the file system's.
    pub fn with_disk_and_thread(disk: Arc<dyn Disk>, options: Options) -> Result<Self> {
        let (shared, mut writer) = prepare(disk, options)?;
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn({
                let shared = shared.clone();
                move || writer.run(&shared)
            })
            .map_err(|e| Error::Open(format!("starting the writer thread: {e}")))?;
        Ok(Embedded { shared, thread: Some(thread), inline: None })
    }

    /// Opens any disk, without a thread: every write is flushed by the task that makes it. [`Embedded::tick`] must be called
    /// from time to time, or [`Embedded::keep_time`] be run.
    pub fn with_disk(disk: Arc<dyn Disk>, options: Options) -> Result<Self> {
        let (shared, writer) = prepare(disk, options)?;
        Ok(Embedded { shared, thread: None, inline: Some(Mutex::new(writer)) })
    }

    /// Keeps everything in memory only, without threads; for tests and simulations. As for leases, see [`Embedded::with_disk`].
    pub fn in_memory() -> Self {
        Self::in_memory_with(Options::default())
    }

    pub fn in_memory_with(options: Options) -> Self {
        let core = Core::new(State::default(), EngineTime::default(), options.history_bytes_max);
        Embedded { shared: shared(core, options), thread: None, inline: None }
    }

    /// Lets time pass: keys whose lease has ended are deleted. An engine with a thread does this by itself.
    pub fn tick(&self) {
        match &self.inline {
            Some(writer) => {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                writer.tick(&self.shared);
                writer.step(&self.shared);
            }
            None => {
                let reading = (self.shared.options.clock)();
                self.shared.lock().tick(reading);
                self.flush();
            }
        }
    }

    /// [`Embedded::tick`] every second, without end. For engines without a thread; to be run in a task of the caller's.
    pub async fn keep_time(&self) {
        loop {
            self.tick();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Flushes what is queued, or has the thread do so.
    fn flush(&self) {
        if self.thread.is_some() {
            self.shared.bell.notify_one();
            return;
        }
        let Some(writer) = &self.inline else {
            let mut core = self.shared.lock();
            while core.has_queued() {
                let batch = core.take();
                core.publish(batch);
            }
            return;
        };
        writer.lock().unwrap_or_else(PoisonError::into_inner).step(&self.shared);
    }

    /// Writes a snapshot and removes the log before it, now. For an engine without a thread.
    pub fn snapshot(&self) -> Result<()> {
        let Some(writer) = &self.inline else { return Ok(()) };
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.snapshot_now(&self.shared).map_err(|e| Error::Unavailable(format!("writing a snapshot: {e}")))
    }

    /// Waits until the disk fails in a way that only opening it anew can mend, and answers why: [`Error::Failed`] is then what
    /// everybody hears who writes, or asks for what is newest.
    pub async fn failed(&self) -> String {
        let mut failure = self.shared.lock().failure();
        let why = failure.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            // This engine holds the sender.
            None => std::future::pending().await,
        }
    }

    /// A copy of what is durable, and the engine's time.
    pub(crate) fn content(&self) -> (State, u64) {
        let core = self.shared.lock();
        (core.state.clone(), core.time.now_ms)
    }

    async fn settle(&self, submitted: Submitted) -> Outcome {
        match submitted {
            Submitted::Done(outcome) => outcome,
            Submitted::Wait(answer) => {
                self.flush();
                answer.await.unwrap_or_else(|_| Err(Error::Unavailable("the store was closed".into())))
            }
        }
    }
}

/// Recovers, and starts a new segment.
pub(crate) fn prepare(disk: Arc<dyn Disk>, options: Options) -> Result<(Arc<Shared>, Writer)> {
    let Recovered { state, now_ms, position, snapshot_bytes } = recover(&disk, options.history_bytes_max)?;
    let salt = if options.seed == 0 { random() } else { options.seed };
    let log = Log::start(disk.clone(), position, salt).map_err(|e| start_error(&*disk, &e))?;
    let mut time = EngineTime::default();
    time.restore(now_ms);
    time.advance((options.clock)());
    let core = Core::new(state, time, options.history_bytes_max);
    let writer = Writer::new(disk, log, snapshot_bytes, &options);
    Ok((shared(core, options), writer))
}

fn start_error(disk: &dyn Disk, error: &io::Error) -> Error {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space first",
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => "; make the directory writable",
        _ => "",
    };
    Error::Open(format!("starting a log segment in {}: {error}{advice}", disk.describe("")))
}

fn shared(core: Core, options: Options) -> Arc<Shared> {
    Arc::new(Shared { core: Mutex::new(core), bell: Condvar::new(), options })
}

/// A number that nobody can foresee; the standard library seeds its hashers with one.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let mut core = self.shared.lock();
        core.watchers.close();
        drop(core);
        self.shared.bell.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

#[async_trait::async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<(Revision, Option<KeyValue>)> {
        let core = self.shared.lock();
        let state = core.known()?;
        Ok((state.revision, state.map.get(key).map(|item| (**item).clone())))
    }

    async fn list(&self, prefix: &str, options: ListOptions) -> Result<Listing> {
        let (map, revision) = {
            let mut core = self.shared.lock();
            // The past is known, whatever the disk does now.
            let revision = match options.revision.filter(|r| r.0 > 0) {
                Some(revision) => revision,
                None => core.known()?.revision,
            };
            (core.state.view(revision)?, revision)
        };
        let listing = state::list(&map, revision, prefix, &options);
        if listing.more {
            self.shared.lock().state.keep_view(revision, &map);
        }
        Ok(listing)
    }

    async fn write(&self, op: Op) -> Result<(Revision, Option<KeyValue>)> {
        let submitted = self.shared.lock().submit(op);
        self.settle(submitted).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let mut core = self.shared.lock();
        let Core { state, watchers, .. } = &mut *core;
        let slot = watchers.add(state, prefix, after)?;
        Ok(stream(Watch { shared: self.shared.clone(), slot }).boxed())
    }

    async fn revision(&self) -> Result<Revision> {
        Ok(self.shared.lock().known()?.revision)
    }

    async fn freshness(&self, prefix: &str) -> Result<Freshness> {
        let core = self.shared.lock();
        let revision = core.known()?.revision;
        Ok(Freshness { revision, needed: core.watchers.last_change(prefix).unwrap_or(revision) })
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let submitted = self.shared.lock().compact(revision);
        self.settle(submitted).await.map(|_| ())
    }
}

/// A watch that takes itself off the list when dropped.
struct Watch {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().watchers.remove(&self.slot);
    }
}

impl Watch {
    async fn next(&self) -> Result<WatchItem> {
        let mut idle = false;
        loop {
            let item = {
                let core = self.shared.lock();
                core.watchers.read(&core.state, &self.slot, idle)
            };
            if let Some(item) = item {
                return item;
            }
            let woken = tokio::time::timeout(self.shared.options.progress_interval, self.slot.woken()).await;
            idle = woken.is_err();
        }
    }
}

fn stream(watch: Watch) -> impl futures::Stream<Item = Result<WatchItem>> + Send {
    futures::stream::unfold(Some(watch), |watch| async move {
        let watch = watch?;
        let item = watch.next().await;
        let next = item.is_ok().then_some(watch);
        Some((item, next))
    })
}
