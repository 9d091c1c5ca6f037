//! The second round of mutating admission (upstream's `ReinvocationContext`): a webhook or a policy that changed the object
//! asks for one, in which the built-in plugins run again, and those webhooks and policies that want to be called again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

#[derive(Debug, Default)]
pub struct Reinvocation {
    second: AtomicBool,
    wanted: AtomicBool,
    /// By plugin.
    rounds: Mutex<BTreeMap<&'static str, Rounds>>,
}

/// What one plugin remembers between the rounds.
#[derive(Debug, Default)]
pub struct Rounds {
    /// Called so far, of those that want to be called again.
    invoked: BTreeSet<String>,
    /// To be called in the second round.
    again: BTreeSet<String>,
    last_output: Option<Value>,
}

impl Reinvocation {
    /// Whether this is the second round.
    pub fn is_second(&self) -> bool {
        self.second.load(Ordering::Relaxed)
    }

    /// Asks for the second round.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Begins the second round, if it is wanted and was not yet.
    pub(super) fn begin_second(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) && !self.second.swap(true, Ordering::Relaxed)
    }

    /// Works on a plugin's memory.
    pub fn rounds<T>(&self, plugin: &'static str, work: impl FnOnce(&mut Rounds) -> T) -> T {
        let mut all: MutexGuard<'_, BTreeMap<&'static str, Rounds>> = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        work(all.entry(plugin).or_default())
    }
}

impl Rounds {
    /// At the start of the second round: whatever changed the object since this plugin left it makes all be called again.
    pub fn compare(&mut self, object: &Value) {
        if self.last_output.as_ref().is_none_or(|last| last != object) {
            self.call_again();
        }
    }

    /// Everything called so far, and willing, is to be called again.
    pub fn call_again(&mut self) {
        self.again.append(&mut self.invoked);
    }

    pub fn should_call(&self, uid: &str) -> bool {
        self.again.contains(uid)
    }

    /// Remembers that one was called that wants to be again.
    pub fn called(&mut self, uid: &str) {
        self.invoked.insert(uid.to_owned());
    }

    /// How this plugin leaves the object.
    pub fn leave(&mut self, object: &Value) {
        self.last_output = Some(object.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_second_round_comes_once_and_only_if_wanted() {
        let again = Reinvocation::default();
        assert!(!again.begin_second());
        again.want();
        assert!(again.begin_second() && again.is_second() && !again.begin_second());
    }

    #[test]
    fn those_called_before_a_change_are_called_again() {
        let mut rounds = Rounds::default();
        rounds.called("a");
        // `b` changes the object: `a` has not seen that, `b` has.
        rounds.call_again();
        rounds.called("b");
        rounds.leave(&json!(1));
        rounds.compare(&json!(1));
        assert!(rounds.should_call("a") && !rounds.should_call("b"));
        rounds.compare(&json!(2));
        assert!(rounds.should_call("b"));
    }
}
