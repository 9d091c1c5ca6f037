//! The engine without its disk: what is pending, what is durable, who waits. Conditions see pending writes, readers only
//! durable ones. A flush is `take` (under the lock), disk I/O (outside it), then `publish` or `fail`. `embedded` drives it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::record::Record;
use crate::state::State;
use crate::time::EngineTime;
use crate::watch::Watchers;
use crate::{Error, Expect, Key, KeyValue, Op, Result, Revision};

pub(crate) const VALUE_BYTES_MAX: usize = 16 << 20;
pub(crate) const KEY_BYTES_MAX: usize = 4 << 10;
const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Records go into one frame up to this size; with one record of the maximum size on top a frame stays below its limit.
const BATCH_BYTES_MAX: usize = 32 << 20;
/// So many leases end in one batch; the rest in the next.
const EXPIRED_MAX: usize = 1000;

pub(crate) type Outcome = Result<(Revision, Option<KeyValue>)>;

/// Who waits for a batch to be durable, and what to answer then.
struct Waiter {
    answer: oneshot::Sender<Outcome>,
    outcome: Outcome,
}

struct Queued {
    record: Option<Record>,
    waiter: Option<Waiter>,
}

/// What is written and synced at once.
pub(crate) struct Batch {
    pub now_ms: u64,
    queued: Vec<Queued>,
}

impl Batch {
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.queued.iter().filter_map(|q| q.record.as_ref())
    }
}

/// Whether writes are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Writable {
    Yes,
    /// Not enough disk space; may end.
    Full(String),
    /// For good: the disk failed, or the engine did.
    Failed(String),
}

pub(crate) enum Submitted {
    Done(Outcome),
    Wait(oneshot::Receiver<Outcome>),
}

struct Pending {
    revision: Revision,
    value: Option<Arc<KeyValue>>,
}

pub(crate) struct Core {
    pub state: State,
    pub watchers: Watchers,
    writable: Writable,
    /// Why the engine has failed, once it has.
    failure: watch::Sender<Option<String>>,
    pub time: EngineTime,
    history_bytes_max: usize,
    /// Keys as they will be when everything queued or being flushed is durable, where that differs from `state`.
    overlay: HashMap<Key, Pending>,
    last_revision: Revision,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
}

impl Core {
    pub(crate) fn new(state: State, time: EngineTime, history_bytes_max: usize) -> Self {
        Core {
            last_revision: state.revision,
            state,
            watchers: Watchers::default(),
            writable: Writable::Yes,
            failure: watch::Sender::new(None),
            time,
            history_bytes_max,
            overlay: HashMap::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
        }
    }

    pub(crate) fn writable(&self) -> &Writable {
        &self.writable
    }

    /// A failure is for good.
    pub(crate) fn set_writable(&mut self, writable: Writable) {
        if matches!(self.writable, Writable::Failed(_)) {
            return;
        }
        if let Writable::Failed(why) = &writable {
            self.failure.send_replace(Some(why.clone()));
        }
        self.writable = writable;
    }

    /// Tells when and why the engine fails.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    /// The durable state, unless a write was under way when the disk failed: whether it is there nobody knows until all is read
    /// back. To say that it is not would be a lie that another write may build on.
    pub(crate) fn known(&self) -> Result<&State> {
        match &self.writable {
            Writable::Failed(why) => Err(Error::Failed(why.clone())),
            _ => Ok(&self.state),
        }
    }

    /// Checks a write's condition and queues it.
    pub(crate) fn submit(&mut self, op: Op) -> Submitted {
        if let Err(e) = self.check(&op) {
            return Submitted::Done(Err(e));
        }
        let (key, expect) = match &op {
            Op::Put { key, expect, .. } | Op::Delete { key, expect } => (key, *expect),
        };
        let pending = self.overlay.contains_key(key);
        let current = match self.overlay.get(key) {
            Some(p) => p.value.clone(),
            None => self.state.map.get(key).cloned(),
        };
        let holds = match expect {
            Expect::Anything => true,
            Expect::Absent => current.is_none(),
            Expect::Revision(r) => current.as_ref().is_some_and(|c| c.mod_revision == r),
        };
        let delete = matches!(op, Op::Delete { .. });
        if !holds || (delete && current.is_none()) {
            let outcome = if holds { Ok((self.last_revision, None)) } else { Err(Error::Conflict(current.as_deref().cloned())) };
            // What is answered must be durable.
            return if pending { self.enqueue(None, outcome) } else { Submitted::Done(self.settle(outcome)) };
        }
        let revision = Revision(self.last_revision.0 + 1);
        let (record, outcome) = match op {
            Op::Put { key, value, ttl, .. } => {
                let create_revision = current.map_or(revision, |c| c.create_revision);
                let item = Arc::new(KeyValue { key, value, mod_revision: revision, create_revision });
                (Record::Put { item, deadline_ms: self.deadline_ms(ttl) }, Ok((revision, None)))
            }
            Op::Delete { key, .. } => (Record::Delete { key, revision }, Ok((revision, current.map(Arc::unwrap_or_clone)))),
        };
        self.note_pending(&record, revision);
        self.enqueue(Some(record), outcome)
    }

    /// A no-op's revision is that of durable state.
    fn settle(&self, outcome: Outcome) -> Outcome {
        outcome.map(|(_, item)| (self.state.revision, item))
    }

    fn check(&self, op: &Op) -> Result<()> {
        match (&self.writable, op) {
            (Writable::Yes, _) | (Writable::Full(_), Op::Delete { .. }) => {}
            (Writable::Full(why), _) => return Err(Error::NoSpace(why.clone())),
            (Writable::Failed(why), _) => return Err(Error::Failed(why.clone())),
        }
        let (key_bytes, value_bytes) = match op {
            Op::Put { key, value, .. } => (key.len(), value.len()),
            Op::Delete { key, .. } => (key.len(), 0),
        };
        if key_bytes > KEY_BYTES_MAX {
            return Err(Error::TooLarge { bytes: key_bytes, max: KEY_BYTES_MAX });
        }
        if value_bytes > VALUE_BYTES_MAX {
            return Err(Error::TooLarge { bytes: value_bytes, max: VALUE_BYTES_MAX });
        }
        if self.queue_bytes > QUEUE_BYTES_MAX {
            return Err(Error::Unavailable("too many writes are waiting for the disk".into()));
        }
        Ok(())
    }

    fn deadline_ms(&self, ttl: Option<Duration>) -> u64 {
        match ttl {
            None => 0,
            Some(ttl) => self.time.now_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)).max(1),
        }
    }

    fn note_pending(&mut self, record: &Record, revision: Revision) {
        let (key, value) = match record {
            Record::Put { item, .. } => (item.key.clone(), Some(item.clone())),
            Record::Delete { key, .. } => (key.clone(), None),
            _ => return,
        };
        self.overlay.insert(key, Pending { revision, value });
        self.last_revision = revision;
    }

    fn enqueue(&mut self, record: Option<Record>, outcome: Outcome) -> Submitted {
        let (answer, receiver) = oneshot::channel();
        self.queue_bytes += record.as_ref().map_or(0, Record::bytes);
        self.queue.push_back(Queued { record, waiter: Some(Waiter { answer, outcome }) });
        Submitted::Wait(receiver)
    }

    /// Queues the compaction of history before a revision.
    pub(crate) fn compact(&mut self, revision: Revision) -> Submitted {
        if let Writable::Failed(why) = &self.writable {
            return Submitted::Done(Err(Error::Failed(why.clone())));
        }
        if revision <= self.state.compacted {
            return Submitted::Done(Err(Error::Compacted { oldest: self.state.compacted }));
        }
        if revision > self.state.revision {
            return Submitted::Done(Err(Error::Future(revision)));
        }
        self.enqueue(Some(Record::Compact { revision }), Ok((revision, None)))
    }

    /// Takes a clock reading and queues the deletion of keys whose lease has ended.
    pub(crate) fn tick(&mut self, reading: Duration) {
        let now_ms = self.time.advance(reading);
        if matches!(self.writable, Writable::Failed(_)) {
            return;
        }
        for item in self.state.expired(now_ms, EXPIRED_MAX) {
            // A pending write decides about the key; if it leaves the lease ended, the next tick sees it.
            if self.overlay.contains_key(&item.key) {
                continue;
            }
            let revision = Revision(self.last_revision.0 + 1);
            let record = Record::Delete { key: item.key.clone(), revision };
            self.note_pending(&record, revision);
            self.queue_bytes += record.bytes();
            self.queue.push_back(Queued { record: Some(record), waiter: None });
        }
    }

    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes what is to be flushed next.
    pub(crate) fn take(&mut self) -> Batch {
        let mut batch = Batch { now_ms: self.time.now_ms, queued: Vec::with_capacity(self.queue.len()) };
        let mut bytes = 0;
        while bytes < BATCH_BYTES_MAX
            && let Some(queued) = self.queue.pop_front()
        {
            bytes += queued.record.as_ref().map_or(0, Record::bytes);
            batch.queued.push(queued);
        }
        self.queue_bytes -= bytes;
        batch
    }

    /// The batch is durable: readers and watchers see it, waiters get their answers.
    pub(crate) fn publish(&mut self, batch: Batch) {
        for queued in &batch.queued {
            let Some(record) = &queued.record else { continue };
            let Some(change) = self.state.apply(record) else {
                // Revisions are given out in order under one lock.
                self.set_writable(Writable::Failed("internal error: a write was out of order; restart".into()));
                continue;
            };
            if let Some(change) = change {
                if self.overlay.get(&change.key).is_some_and(|p| p.revision == change.revision) {
                    self.overlay.remove(&change.key);
                }
                self.watchers.note(&change);
            }
        }
        self.state.bound_history(self.history_bytes_max);
        self.watchers.wake();
        for waiter in batch.queued.into_iter().filter_map(|q| q.waiter) {
            // Who no longer waits needs no answer.
            waiter.answer.send(waiter.outcome).ok();
        }
    }

    /// The batch could not be made durable; everything that waits, and may build on it, fails. Unless the disk was only full,
    /// nobody can say whether the batch will be there after a restart.
    pub(crate) fn fail(&mut self, batch: Batch, why: &str, writable: Writable) {
        let failed = |why: &str| match &writable {
            Writable::Full(_) => Error::NoSpace(why.to_owned()),
            _ => Error::Unavailable(why.to_owned()),
        };
        let queued = std::mem::take(&mut self.queue);
        self.queue_bytes = 0;
        self.overlay.clear();
        self.last_revision = self.state.revision;
        for waiter in batch.queued.into_iter().chain(queued).filter_map(|q| q.waiter) {
            waiter.answer.send(Err(failed(why))).ok();
        }
        self.set_writable(writable);
    }
}
