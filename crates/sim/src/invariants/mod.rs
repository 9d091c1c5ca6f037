//! What must hold after every write, told from the true state of the store. One file per subject, one row each in the table
//! of [`Invariants::check`]. What must hold only in the end is in `fixpoint`.

mod generic;
mod jobs;
mod owners;
mod pods;
mod quota;
mod sets;

use std::time::Duration;

use crate::state::{Object, State};

/// A write, before it is forgotten what was there.
pub(crate) struct Step<'a> {
    pub key: &'a str,
    pub old: Option<&'a Object>,
    pub new: Option<&'a Object>,
    /// The user that made the request.
    pub who: &'a str,
    /// Since the start.
    pub now: Duration,
}

impl<'a> Step<'a> {
    pub fn is(&self, prefix: &str) -> bool {
        self.key.strip_prefix("/registry/").is_some_and(|rest| rest.starts_with(prefix))
    }

    pub fn before(&self) -> Option<&'a serde_json::Value> {
        self.old.map(|object| &object.tree)
    }

    pub fn after(&self) -> Option<&'a serde_json::Value> {
        self.new.map(|object| &object.tree)
    }
}

type Checked = Result<(), String>;

#[derive(Default)]
pub(crate) struct Invariants {
    generic: generic::Generic,
    pods: pods::Pods,
    sets: sets::Sets,
    jobs: jobs::Jobs,
    quota: quota::Quota,
}

impl Invariants {
    pub fn check(&mut self, step: &Step<'_>, state: &State) -> Checked {
        self.generic.check(step, state)?;
        self.pods.check(step, state)?;
        self.sets.check(step, state)?;
        self.jobs.check(step, state)?;
        self.quota.check(step, state)?;
        owners::check(step, state)
    }
}

/// The largest of the values that were in effect within a time: a controller may act on what it read a moment ago.
#[derive(Default)]
pub(crate) struct Recent(Vec<(Duration, i64)>);

impl Recent {
    pub fn set(&mut self, now: Duration, value: i64) {
        if self.0.last().is_none_or(|(_, last)| *last != value) {
            self.0.push((now, value));
        }
    }

    /// The largest in effect at any time since `window` ago.
    pub fn max(&self, now: Duration, window: Duration) -> i64 {
        let from = now.saturating_sub(window);
        let first = self.0.iter().rposition(|(at, _)| *at <= from).unwrap_or(0);
        self.0.get(first..).unwrap_or_default().iter().map(|(_, value)| *value).max().unwrap_or(0)
    }
}

/// How late a controller may be in learning what is asked for: a watch that was cut is found out and begun again, and a
/// request may take long.
pub(crate) const LATE: Duration = Duration::from_secs(150);
