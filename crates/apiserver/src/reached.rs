//! How far something has come, for those who wait for it. As tokio's `watch`, which wakes who waits in an order of chance; here it
//! is the order in which they began to wait, so that a simulated server does the same again. The caches and mirrors of the store
//! tell, requests listen.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use store::Revision;
use tokio::sync::Notify;

/// Who knows. Dropped, it has ended, and nobody waits any more.
pub struct Teller(Arc<Shared>);

/// Who waits.
#[derive(Clone)]
pub struct Listener {
    shared: Arc<Shared>,
    /// The number of the last news that was heard.
    heard: u64,
}

struct Shared {
    state: Mutex<State>,
    news: Notify,
}

struct State {
    revision: Revision,
    /// How often there was news.
    number: u64,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Teller {
    pub fn new(revision: Revision) -> Self {
        let state = Mutex::new(State { revision, number: 0, ended: false });
        Self(Arc::new(Shared { state, news: Notify::new() }))
    }

    pub fn listen(&self) -> Listener {
        let heard = self.0.lock().number;
        Listener { shared: self.0.clone(), heard }
    }

    /// It is this far now. What is not farther than before is no news.
    pub fn tell(&self, revision: Revision) {
        let mut state = self.0.lock();
        if revision <= state.revision {
            return;
        }
        state.revision = revision;
        state.number += 1;
        drop(state);
        self.0.news.notify_waiters();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.news.notify_waiters();
    }
}

impl Listener {
    /// Waits until it is at least this far; whether it ever was.
    pub async fn reach(&self, revision: Revision) -> bool {
        self.until(|state| state.revision >= revision).await
    }

    /// Waits for news that this listener has not heard of; whether there was any.
    pub async fn changed(&mut self) -> bool {
        let heard = self.heard;
        let changed = self.until(|state| state.number > heard).await;
        self.heard = self.shared.lock().number;
        changed
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) -> bool {
        loop {
            // It hears of everything from here on, also before it is polled.
            let news = self.shared.news.notified();
            {
                let state = self.shared.lock();
                if holds(&state) || state.ended {
                    return holds(&state);
                }
            }
            news.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_in_order() {
        let (teller, order) = (Teller::new(Revision(0)), Arc::new(Mutex::new(Vec::new())));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..50 {
            let (listener, order) = (teller.listen(), order.clone());
            tasks.spawn(async move {
                assert!(listener.reach(Revision(2)).await);
                order.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            });
        }
        tokio::task::yield_now().await;
        teller.tell(Revision(1));
        tokio::task::yield_now().await;
        teller.tell(Revision(2));
        while tasks.join_next().await.is_some_and(|ended| ended.is_ok()) {}
        assert_eq!(*order.lock().unwrap_or_else(PoisonError::into_inner), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn news_is_heard_once_and_the_end_ends_all_waiting() {
        let teller = Teller::new(Revision(3));
        let mut listener = teller.listen();
        assert!(listener.reach(Revision(3)).await);
        teller.tell(Revision(5));
        teller.tell(Revision(4));
        assert!(listener.reach(Revision(5)).await);
        assert!(listener.changed().await);
        drop(teller);
        assert!(!listener.changed().await);
        assert!(listener.reach(Revision(5)).await);
        assert!(!listener.reach(Revision(6)).await);
    }
}
