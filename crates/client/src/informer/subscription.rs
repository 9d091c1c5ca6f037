//! A subscriber's queue of changes: one slot per object, so that its memory is bounded by the number of objects however
//! slow the reader is, and the newest state is never lost.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use futures::{Stream, StreamExt};

use super::ObjectKey;

/// What happened to an object since it was last handed out. `old` is `None` for one that this subscriber did not know,
/// `new` is `None` for one that is gone; then `old` is its last state.
#[derive(Clone, Debug)]
pub struct Change<K> {
    pub key: ObjectKey,
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

pub(crate) struct Queue<K> {
    pending: Mutex<Pending<K>>,
    waker: AtomicWaker,
}

type State<K> = Option<Arc<K>>;

struct Pending<K> {
    order: VecDeque<ObjectKey>,
    /// Before the first and after the last change that was not handed out.
    changes: BTreeMap<ObjectKey, (State<K>, State<K>)>,
}

impl<K> Queue<K> {
    pub fn new() -> Self {
        Self { pending: Mutex::new(Pending { order: VecDeque::new(), changes: BTreeMap::new() }), waker: AtomicWaker::new() }
    }

    pub fn push(&self, key: &ObjectKey, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match pending.changes.get_mut(key) {
            Some((first, last)) => {
                *last = new.cloned();
                // Gone before it was handed out: the reader still learns what it was.
                if new.is_none() {
                    *first = old.cloned();
                }
            }
            None => {
                pending.changes.insert(key.clone(), (old.cloned(), new.cloned()));
                pending.order.push_back(key.clone());
            }
        }
        drop(pending);
        self.waker.wake();
    }

    fn pop(&self) -> Option<Change<K>> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let key = pending.order.pop_front()?;
        let (old, new) = pending.changes.remove(&key)?;
        Some(Change { key, old, new })
    }
}

/// Changes in the order in which objects first changed. Never ends; dropping it ends the subscription.
pub struct Subscription<K> {
    queue: Arc<Queue<K>>,
}

impl<K> Subscription<K> {
    pub(crate) fn new(queue: Arc<Queue<K>>) -> Self {
        Self { queue }
    }

    /// The next change if there is one by now.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.queue.pop()
    }

    /// Waits for a change. Cancel safe.
    pub async fn next(&mut self) -> Change<K> {
        loop {
            if let Some(change) = StreamExt::next(self).await {
                return change;
            }
        }
    }
}

impl<K> Stream for Subscription<K> {
    type Item = Change<K>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(change) = self.queue.pop() {
            return Poll::Ready(Some(change));
        }
        self.queue.waker.register(context.waker());
        match self.queue.pop() {
            Some(change) => Poll::Ready(Some(change)),
            None => Poll::Pending,
        }
    }
}
