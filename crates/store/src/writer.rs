//! The side of the engine that touches the disk: commits batches, watches free space, snapshots, reclaims. Runs as the
//! thread of [`crate::Embedded::open`], or step by step where there is no thread.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::core::Writable;
use crate::disk::Disk;
use crate::embedded::{Options, Shared};
use crate::log::{CommitError, Log, reclaim};
use crate::snapshot::Job;

/// How often leases and free space are looked at, and an idle log is sealed.
const TICK: Duration = Duration::from_secs(1);
/// Each restart begins a segment; a snapshot is due when there are so many.
const SEGMENTS_MAX: u32 = 32;

pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    log: Log,
    options: Options,
    /// Size of the last snapshot.
    snapshot_bytes: u64,
    /// The snapshot being written beside the log.
    job: Option<JoinHandle<io::Result<u64>>>,
    last_tick: Option<Duration>,
    /// The files hold much that no longer counts.
    wasteful: bool,
    /// The disk ran full during an append; writing must be tried again before puts are taken.
    full: bool,
    /// The disk can no longer be trusted: it is left alone.
    stopped: bool,
}

impl Writer {
    pub(crate) fn new(disk: Arc<dyn Disk>, log: Log, snapshot_bytes: u64, options: &Options) -> Self {
        Writer {
            disk,
            log,
            options: options.clone(),
            snapshot_bytes,
            job: None,
            last_tick: None,
            wasteful: false,
            full: false,
            stopped: false,
        }
    }

    /// The thread: until the engine is closed.
    pub(crate) fn run(&mut self, shared: &Shared) {
        let _guard = PanicGuard(shared);
        loop {
            let closing = {
                let core = shared.lock();
                let waited = shared.bell.wait_timeout_while(core, TICK, |core| !core.has_queued() && !core.watchers.closed());
                let (core, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
                core.watchers.closed()
            };
            if closing {
                self.flush(shared);
                break;
            }
            // One batch at a time: under load there is always a next one.
            self.flush_one(shared);
            let reading = (self.options.clock)();
            if self.last_tick.is_none_or(|last| reading.saturating_sub(last) >= TICK) {
                self.last_tick = Some(reading);
                self.tick(shared);
            }
            if self.job.as_ref().is_some_and(JoinHandle::is_finished)
                && let Some(job) = self.job.take()
            {
                self.end_snapshot(shared, job);
            }
            if self.snapshot_due()
                && let Err(error) = self.begin_snapshot(shared)
            {
                self.snapshot_failed(shared, &error);
            }
        }
        if let Some(job) = self.job.take() {
            self.end_snapshot(shared, job);
        }
        if !self.stopped {
            self.seal(shared);
        }
    }

    /// What an engine without a thread does after each write.
    pub(crate) fn step(&mut self, shared: &Shared) {
        self.flush(shared);
        if self.snapshot_due()
            && let Err(error) = self.snapshot_now(shared)
        {
            tracing::debug!(%error, "a snapshot is left for later");
        }
    }

    /// Leases, free space, and the seal of an idle log.
    pub(crate) fn tick(&mut self, shared: &Shared) {
        shared.lock().tick((self.options.clock)());
        if self.stopped {
            return;
        }
        self.look_at_space(shared);
        self.look_at_waste(shared);
        if !self.flush_one(shared) {
            self.seal(shared);
        }
    }

    /// Makes durable what is queued. Whether there was anything.
    fn flush(&mut self, shared: &Shared) -> bool {
        let any = self.flush_one(shared);
        while any && self.flush_one(shared) {}
        any
    }

    fn flush_one(&mut self, shared: &Shared) -> bool {
        let batch = {
            let mut core = shared.lock();
            if !core.has_queued() {
                return false;
            }
            core.take()
        };
        let committed = self.log.commit(&batch);
        let mut core = shared.lock();
        match committed {
            Ok(()) => core.publish(batch),
            Err(error) => {
                let (why, writable) = self.failure(error);
                tracing::error!(%why, "a write to the store failed");
                core.fail(batch, &why, writable);
            }
        }
        true
    }

    fn failure(&mut self, error: CommitError) -> (String, Writable) {
        match error {
            CommitError::Full(e) => {
                self.full = true;
                let dir = self.disk.describe("");
                let why = format!("the disk of {dir} is full ({e}); free some space, writing then resumes by itself");
                (why.clone(), Writable::Full(why))
            }
            CommitError::Fatal(e) => {
                self.stopped = true;
                let why = format!("{e}; what was written last is known when it is read back: check the disk, then restart");
                (why.clone(), Writable::Failed(why))
            }
        }
    }

    fn seal(&mut self, shared: &Shared) {
        let now_ms = shared.lock().time.now_ms;
        if let Err(error) = self.log.seal(now_ms) {
            let (why, writable) = self.failure(error);
            tracing::error!(%why, "a write to the store failed");
            shared.lock().set_writable(writable);
        }
    }

    /// Refuses puts while the disk is nearly full, in time for deletions, compaction and snapshots to still work.
    fn look_at_space(&mut self, shared: &Shared) {
        let free_bytes = match self.disk.free_bytes() {
            Ok(n) => n,
            Err(error) => {
                tracing::warn!(%error, "cannot tell the free space of {}", self.disk.describe(""));
                return;
            }
        };
        let min = self.options.free_bytes_min;
        let enough = free_bytes >= min;
        if enough && self.full && self.log.rotate().is_err() {
            return;
        }
        let mut core = shared.lock();
        let writable = match (core.writable(), enough) {
            (Writable::Full(_), true) => {
                self.full = false;
                tracing::info!("the store takes writes again");
                Writable::Yes
            }
            (Writable::Yes, false) => {
                let why = format!(
                    "only {} MiB are free on the disk of {}, at least {} MiB are needed; free some space, writing then \
                     resumes by itself",
                    free_bytes >> 20,
                    self.disk.describe(""),
                    min >> 20
                );
                tracing::error!(%why, "the store takes no writes");
                Writable::Full(why)
            }
            (same, _) => same.clone(),
        };
        core.set_writable(writable);
    }

    /// After much was deleted or compacted a snapshot gives the space back, even if few writes follow.
    fn look_at_waste(&mut self, shared: &Shared) {
        let needed = {
            let core = shared.lock();
            (core.state.live_bytes + core.state.history_bytes) as u64
        };
        let held = self.log.bytes_since_snapshot() + self.snapshot_bytes;
        self.wasteful = held >= self.options.snapshot_bytes_min.saturating_add(needed.saturating_mul(2));
    }

    fn snapshot_due(&self) -> bool {
        let grown = self.log.bytes_since_snapshot() >= self.options.snapshot_bytes_min.saturating_add(self.snapshot_bytes);
        self.job.is_none() && !self.full && !self.stopped && (grown || self.wasteful || self.log.segments_since_snapshot() > SEGMENTS_MAX)
    }

    fn prepare_snapshot(&mut self, shared: &Shared) -> io::Result<Job> {
        self.wasteful = false;
        self.log.rotate()?;
        self.log.snapshot_begun();
        let core = shared.lock();
        Ok(Job {
            disk: self.disk.clone(),
            // Nothing is in flight: the caller is who flushes.
            state: core.state.clone(),
            first: self.log.segment_first(),
            now_ms: core.time.now_ms,
            salt: self.log.salt() ^ 0x5a5a_5a5a,
        })
    }

    /// Writes a snapshot beside the log, in a thread of its own.
    fn begin_snapshot(&mut self, shared: &Shared) -> io::Result<()> {
        let job = self.prepare_snapshot(shared)?;
        let thread = std::thread::Builder::new().name("store-snapshot".into()).spawn(move || job.run_and_reclaim())?;
        self.job = Some(thread);
        Ok(())
    }

    fn end_snapshot(&mut self, shared: &Shared, job: JoinHandle<io::Result<u64>>) {
        match job.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked"))) {
            Ok(bytes) => self.snapshot_bytes = bytes,
            Err(error) => self.snapshot_failed(shared, &error),
        }
    }

    /// Writes a snapshot and waits for it. A failure is handled here; the caller may tell it.
    pub(crate) fn snapshot_now(&mut self, shared: &Shared) -> io::Result<()> {
        match self.prepare_snapshot(shared).and_then(Job::run_and_reclaim) {
            Ok(bytes) => self.snapshot_bytes = bytes,
            Err(error) => {
                self.snapshot_failed(shared, &error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Nothing is lost, the log is all there; but whether the disk still keeps what it is given is unknown.
    fn snapshot_failed(&mut self, shared: &Shared, error: &io::Error) {
        let why = format!("writing a snapshot in {} failed: {error}; check the disk, then restart", self.disk.describe(""));
        tracing::error!(%why);
        if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            self.stopped = true;
            shared.lock().set_writable(Writable::Failed(why));
        }
    }
}

/// Should the thread panic, nobody must wait for it forever.
struct PanicGuard<'a>(&'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut core = self.0.lock();
            let batch = core.take();
            let why = "the writer thread panicked; restart, and report this".to_owned();
            core.fail(batch, &why, Writable::Failed(why.clone()));
        }
    }
}

impl Job {
    fn run_and_reclaim(self) -> io::Result<u64> {
        let (disk, first) = (self.disk.clone(), self.first);
        let bytes = self.run()?;
        reclaim(&*disk, first)?;
        Ok(bytes)
    }
}
