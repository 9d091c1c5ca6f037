//! [`Cache`]: one resource's cache, and the task that keeps it up with the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use store::{Event, ListOptions, Listing, Revision, Store, WatchItem};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::core::{Core, Limits};
use super::interest::Slot;
use super::past::Past;
use super::state::State;
use super::{Cursor, Entry, Error, Extract, Filter, Interest, Result, Snapshot};
use crate::reached::Teller;

/// How long a reader waits for the cache to reach a revision, as upstream does.
const FRESH_WAIT_MAX: Duration = Duration::from_secs(3);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// The revision of a store in which nothing has been written. No server has told it to anybody, for it writes before it is
/// ready: who watches from it asks for all of history, which is too old as it is upstream.
const NOTHING_WRITTEN: Revision = Revision(1);
/// What waking one watcher costs, about: a task's turn, an encryption, a system call. Rounds of waking follow each other no
/// faster than that lets them, so that under load watchers get larger pieces and not more of them. A thousand watchers woken
/// each millisecond took 12 us of CPU for each event; in pieces of ten events it is a tenth of that.
const WAKE_COST: Duration = Duration::from_micros(6);
const ROUND_MIN: Duration = Duration::from_millis(1);
const ROUND_MAX: Duration = Duration::from_millis(8);

/// All objects of one resource.
pub struct Cache {
    store: Arc<dyn Store>,
    prefix: Arc<str>,
    extract: Extract,
    core: Mutex<Core>,
    /// The revision the cache shows; 0 until it was first read.
    reached: Teller,
}

impl Cache {
    /// A cache of what lies under a prefix, and the task that follows the store until cancelled. Reads wait for the first list.
    pub fn new(
        store: Arc<dyn Store>,
        prefix: &str,
        extract: Extract,
        limits: Limits,
        cancel: CancellationToken,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send + 'static) {
        let cache = Arc::new(Cache {
            store,
            prefix: Arc::from(prefix),
            core: Mutex::new(Core::new(limits, extract.index)),
            extract,
            reached: Teller::new(Revision(0)),
        });
        let task = {
            let cache = cache.clone();
            async move {
                tokio::select! { biased;
                    () = cancel.cancelled() => {}
                    () = cache.follow() => {}
                }
                let all = cache.lock().close();
                wake(&all);
                cache.announce();
            }
        };
        (cache, task)
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// How many objects the cache shows, at which revision.
    pub fn extent(&self) -> (u64, Revision) {
        let core = self.lock();
        (core.len() as u64, core.revision)
    }

    /// How many watchers hear of a change of an object; of a namespace's objects where the name is empty.
    pub fn watchers(&self, namespace: &str, name: &str) -> u64 {
        let space = if namespace.is_empty() { self.prefix.to_string() } else { format!("{}{namespace}/", self.prefix) };
        let key = format!("{space}{name}");
        self.lock().interests.count(&space, &key) as u64
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the cache shows the newest durable state, and answers the revision it is then known to show. Costs no
    /// wait where the embedded engine's watch has delivered all.
    pub(super) async fn consistent(&self) -> Result<Revision> {
        let freshness = self.store.freshness(&self.prefix).await.map_err(from_store)?;
        self.wait_until_fresh(freshness.needed).await?;
        // Nothing changed between `needed` and `revision`.
        let mut core = self.lock();
        core.advance(freshness.revision);
        Ok(core.revision)
    }

    /// The newest durable state. From the cache, or read from the store where its watches cannot tell whether the cache is as
    /// new, or are late.
    pub async fn newest(&self) -> Result<Snapshot> {
        if self.store.tells_progress() {
            match self.consistent().await {
                Ok(_) => return Ok(self.snapshot()),
                Err(Error::TooLarge { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        self.list().await
    }

    /// The newest state, as the store has it.
    async fn list(&self) -> Result<Snapshot> {
        let mut listing = self.store.list(&self.prefix, ListOptions::default()).await.map_err(from_store)?;
        listing.items = self.served(listing.items).await.map_err(from_store)?;
        Ok(Snapshot { revision: listing.revision, state: self.entries(&listing) })
    }

    /// As [`Cache::consistent`], where that can be told: for those who are content with what the cache has.
    pub(super) async fn settle(&self) -> Result<()> {
        if !self.store.tells_progress() {
            return Ok(());
        }
        match self.consistent().await {
            Err(error @ (Error::Closed | Error::TooOld { .. })) => Err(error),
            // A store that does not answer has no news.
            _ => Ok(()),
        }
    }

    /// Waits until the cache shows this revision or a later one.
    pub async fn wait_until_fresh(&self, revision: Revision) -> Result<()> {
        // Revision 0 means "whatever there is", but there must be something.
        let wanted = revision.max(Revision(1));
        if self.lock().revision >= wanted {
            return Ok(());
        }
        // Has the store say how far the cache is: most changes are of other resources. An error is told below, where it lasts.
        if self.lock().revision != Revision(0) && self.store.tells_progress() && self.look(wanted).await.is_ok_and(|arrived| arrived) {
            return Ok(());
        }
        let reached = self.reached.listen();
        let arrived = tokio::time::timeout(FRESH_WAIT_MAX, reached.reach(wanted)).await.is_ok_and(|there| there);
        if arrived {
            return Ok(());
        }
        if self.look(wanted).await? {
            return Ok(());
        }
        match self.lock().revision {
            Revision(0) => Err(Error::Unavailable("the resource's cache has not been filled yet".into())),
            current => Err(Error::TooLarge { wanted, current }),
        }
    }

    /// Whether the cache shows a revision. Changes of other resources count as well, if this one is known to have none of them.
    async fn look(&self, wanted: Revision) -> Result<bool> {
        let freshness = self.store.freshness(&self.prefix).await.map_err(from_store)?;
        let mut core = self.lock();
        if core.revision >= freshness.needed && core.revision != Revision(0) {
            core.advance(freshness.revision);
        }
        Ok(core.revision >= wanted)
    }

    /// A state that is not older than a revision. Read from the store where nobody can tell that the cache is as new.
    pub async fn not_older_than(&self, revision: Revision) -> Result<Snapshot> {
        if !self.can_only_wait(revision) {
            let list = self.list().await?;
            if list.revision >= revision {
                return Ok(list);
            }
        }
        self.wait_until_fresh(revision).await?;
        Ok(self.snapshot())
    }

    /// The state at a revision, once there is one.
    pub async fn exactly(&self, revision: Revision) -> Result<Snapshot> {
        if self.can_only_wait(revision) {
            self.wait_until_fresh(revision).await?;
        }
        self.snapshot_at(revision).await
    }

    /// Whether the cache shows a revision, or will be known to in time: an etcd that does not say how far watches are leaves
    /// it behind by all changes of other resources, and the store has to be read.
    fn can_only_wait(&self, revision: Revision) -> bool {
        let shown = self.lock().revision;
        self.store.tells_progress() || shown == Revision(0) || shown >= revision
    }

    /// The entry as the cache has it; see [`Cache::consistent`] for the newest.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.lock().get(key)
    }

    /// The state as the cache has it; see [`Cache::consistent`] for the newest.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().snapshot()
    }

    /// Keeps a snapshot, so that a list can cheaply be continued.
    pub fn keep(&self, snapshot: &Snapshot) {
        self.lock().keep(snapshot.clone());
    }

    /// Shows no state before this revision any more, wherever it could be had from.
    pub fn forget_before(&self, revision: Revision) {
        self.lock().forget_before(revision);
    }

    /// The state at a revision: kept, made from recent changes, or read from the store.
    pub async fn snapshot_at(&self, revision: Revision) -> Result<Snapshot> {
        if let Some(snapshot) = self.lock().view(revision) {
            return Ok(snapshot);
        }
        let options = ListOptions { revision: Some(revision), ..ListOptions::default() };
        let mut listing = self.store.list(&self.prefix, options).await.map_err(|e| too_old(e, revision))?;
        listing.items = self.served(listing.items).await.map_err(from_store)?;
        let snapshot = Snapshot { revision, state: self.entries(&listing) };
        self.keep(&snapshot);
        Ok(snapshot)
    }

    /// Follows changes under a prefix (the resource's own or a namespace's) after a revision. Nothing outside of `interest`
    /// is seen.
    pub fn watch(self: &Arc<Self>, prefix: &str, interest: Interest, after: Revision, filter: Arc<dyn Filter>) -> Result<Cursor> {
        Cursor::new(self.clone(), prefix, interest, after, filter, None)
    }

    /// As [`Cache::watch`], also from before the ring begins: what lies between is read from the store. `TooOld` only where the
    /// store has compacted it.
    pub async fn resume(self: &Arc<Self>, prefix: &str, interest: Interest, after: Revision, filter: Arc<dyn Filter>) -> Result<Cursor> {
        // A cache that was never filled does not know what it missed.
        self.wait_until_fresh(Revision(0)).await?;
        match self.watch(prefix, interest.clone(), after, filter.clone()) {
            Err(Error::TooOld { .. }) if after > NOTHING_WRITTEN => {
                let past = Past::open(self.clone(), prefix, after).await?;
                Cursor::new(self.clone(), prefix, interest, after, filter, Some(past))
            }
            other => other,
        }
    }

    /// Entries of what is stored, in the same order.
    pub(super) async fn entries_of(&self, items: Vec<store::KeyValue>) -> Result<Vec<Arc<Entry>>> {
        let items = self.served(items).await.map_err(from_store)?;
        Ok(items.iter().map(|item| Entry::new(item, &self.extract)).collect())
    }

    fn entries(&self, listing: &Listing) -> State {
        // What has not changed is shared with what the cache has.
        let known = self.snapshot();
        let entry = |item: &store::KeyValue| match known.get(&item.key) {
            Some(entry) if entry.revision == item.mod_revision => entry.clone(),
            _ => Entry::new(item, &self.extract),
        };
        State::of(self.extract.index, listing.items.iter().map(entry))
    }

    async fn follow(&self) {
        loop {
            let error = match self.fill_and_follow().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            tracing::warn!(prefix = %self.prefix, %error, "reading the resource anew");
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    async fn fill_and_follow(&self) -> store::Result<std::convert::Infallible> {
        let mut listing = self.store.list(&self.prefix, ListOptions::default()).await?;
        listing.items = self.served(listing.items).await?;
        let entries = self.entries(&listing);
        let mut stream = self.store.watch(&self.prefix, listing.revision).await?;
        let all = self.lock().replace(entries, listing.revision);
        wake(&all);
        self.announce();
        let mut rounds = Rounds::default();
        loop {
            let item = tokio::select! { biased;
                () = rounds.due() => {
                    rounds.wake();
                    continue;
                }
                item = stream.next() => item,
            };
            match item.transpose()? {
                Some(WatchItem::Events(events)) => rounds.add(self.apply(&self.served_events(events).await?)),
                Some(WatchItem::Progress(revision)) => self.lock().advance(revision),
                None => break,
            }
            self.announce();
        }
        Err(store::Error::Unavailable("the watch ended".into()))
    }

    /// In the form the cache holds.
    async fn served(&self, items: Vec<store::KeyValue>) -> store::Result<Vec<store::KeyValue>> {
        match &self.extract.serve {
            Some(serve) if !items.is_empty() => serve(items).await.map_err(store::Error::Unavailable),
            _ => Ok(items),
        }
    }

    async fn served_events(&self, mut events: Vec<Event>) -> store::Result<Vec<Event>> {
        if self.extract.serve.is_some() {
            let stored = events.iter().filter_map(|e| e.value.clone()).collect();
            let mut served = self.served(stored).await?.into_iter();
            for value in events.iter_mut().filter_map(|e| e.value.as_mut()) {
                if let Some(next) = served.next() {
                    *value = next;
                }
            }
        }
        Ok(events)
    }

    /// Answers whom to wake.
    fn apply(&self, events: &[Event]) -> Vec<Arc<Slot>> {
        let entry = |item: &store::KeyValue| Entry::new(item, &self.extract);
        let changes = events.iter().map(|e| (e.revision, e.key.clone(), e.value.as_ref().map(entry))).collect();
        self.lock().apply(changes)
    }

    /// Wakes who waits for a revision.
    fn announce(&self) {
        let revision = self.lock().revision;
        self.reached.tell(revision);
    }
}

/// Who waits to be woken, and when that may be.
#[derive(Default)]
struct Rounds {
    waiting: Vec<Arc<Slot>>,
    /// Not before this.
    next: Option<Instant>,
}

impl Rounds {
    fn add(&mut self, mut slots: Vec<Arc<Slot>>) {
        self.waiting.append(&mut slots);
    }

    /// When somebody waits and their time has come.
    async fn due(&self) {
        match self.next {
            _ if self.waiting.is_empty() => std::future::pending().await,
            Some(next) if next > Instant::now() => tokio::time::sleep_until(next).await,
            _ => {}
        }
    }

    fn wake(&mut self) {
        wake(&self.waiting);
        let cost = WAKE_COST * u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.next = Some(Instant::now() + cost.clamp(ROUND_MIN, ROUND_MAX));
        self.waiting.clear();
    }
}

/// Outside of the lock, which those woken want at once.
fn wake(slots: &[Arc<Slot>]) {
    for slot in slots {
        slot.waker.wake();
    }
}

fn from_store(error: store::Error) -> Error {
    match error {
        store::Error::Cluster(text) => Error::Cluster(text),
        error @ store::Error::Timeout(_) => Error::Timeout(error.to_string()),
        error @ store::Error::Failed(_) => Error::Failed(error.to_string()),
        other => Error::Unavailable(other.to_string()),
    }
}

pub(super) fn too_old(error: store::Error, wanted: Revision) -> Error {
    match error {
        store::Error::Compacted { oldest } => Error::TooOld { wanted, oldest },
        // Forgotten while it was read.
        store::Error::Lagged => Error::TooOld { wanted, oldest: Revision(wanted.0.saturating_add(1)) },
        store::Error::Future(current) => Error::TooLarge { wanted, current },
        other => from_store(other),
    }
}
