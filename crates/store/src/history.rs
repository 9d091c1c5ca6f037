//! Histories of concurrent clients, and whether a correct store can have answered so: [`History::check`] (per key, after Wing
//! and Gong) and [`History::check_watches`]. For tests of every engine, also through the API; nothing else is built with it.
//!
//! Each written value has a number of its own, so a read says which write it saw. Who makes a call takes a [`Ticket`] before
//! it; a ticket that is dropped unanswered is a call of which nobody knows whether it happened.

mod linear;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use watch::{Seen, Watched};

/// What a client asks of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The number of the new value, from [`History::number`].
    Put(u64, Expecting),
    Delete(Expecting),
    /// A read that must not be stale.
    Get,
}

/// The condition of a write, in numbers of values. Who asks for a revision has read the value of that revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expecting {
    Anything,
    Absent,
    Value(u64),
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, at this revision, where that was said.
    Written(Option<u64>),
    /// The condition did not hold. Holds what was there, where that was said.
    Refused(Option<Option<u64>>),
    /// There was nothing to delete.
    Nothing,
    Read(Option<u64>),
}

/// A call and what became of it. Times are numbers of a common counter.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: u64,
    pub key: Arc<str>,
    pub call: Call,
    pub called: u64,
    /// `None`: nobody knows whether it happened.
    pub answer: Option<Answer>,
    /// It did not happen later than this.
    pub answered: u64,
}

/// Everything that was done to one store.
#[derive(Default)]
pub struct History {
    clock: AtomicU64,
    numbers: AtomicU64,
    operations: Mutex<Vec<Operation>>,
}

/// A call under way.
#[must_use = "answer it, or drop it when the answer is not known"]
pub struct Ticket<'a> {
    history: &'a History,
    index: usize,
}

impl History {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new value.
    pub fn number(&self) -> u64 {
        1 + self.numbers.fetch_add(1, Ordering::SeqCst)
    }

    /// To be taken just before the call.
    pub fn call(&self, client: u64, key: &str, call: Call) -> Ticket<'_> {
        let mut operations = self.lock();
        operations.push(Operation { client, key: Arc::from(key), call, called: self.now(), answer: None, answered: u64::MAX });
        Ticket { history: self, index: operations.len() - 1 }
    }

    pub fn operations(&self) -> Vec<Operation> {
        self.lock().clone()
    }

    /// Whether there is an order of all calls on each key that explains every answer and contradicts no client's time, and
    /// whether revisions grew with it. Answers how many calls were looked at.
    pub fn check(&self) -> Result<usize, String> {
        let operations = self.operations();
        watch::revisions(&operations)?;
        let mut by_key: BTreeMap<Arc<str>, Vec<Operation>> = BTreeMap::new();
        for operation in operations.iter().filter(|o| o.answer.is_some() || o.call != Call::Get) {
            by_key.entry(operation.key.clone()).or_default().push(operation.clone());
        }
        for (key, operations) in &by_key {
            linear::check(operations).map_err(|e| format!("{key}: {e}"))?;
        }
        Ok(operations.len())
    }

    /// Whether watchers saw each acknowledged write once, in order, and nothing that nobody wrote. Answers how many events.
    pub fn check_watches(&self, watches: &[Watched]) -> Result<usize, String> {
        watch::check(&self.operations(), watches)
    }
}

impl Ticket<'_> {
    /// To be called just after the answer came.
    pub fn answer(self, answer: Answer) {
        let mut operations = self.history.lock();
        let now = self.history.now();
        let operation = &mut operations[self.index];
        (operation.answer, operation.answered) = (Some(answer), now);
    }

    /// The store was stopped before the answer came: if the call has not happened by now, it never will.
    pub fn stopped(self) {
        let mut operations = self.history.lock();
        let now = self.history.now();
        operations[self.index].answered = now;
    }

    /// The call certainly did not happen.
    pub fn never(self) {
        let mut operations = self.history.lock();
        let operation = &mut operations[self.index];
        // A read whose answer nobody knows says nothing.
        (operation.call, operation.answer) = (Call::Get, None);
    }
}
