//! How long a Job waits after failures. The times of failures are of nodes' clocks, and any clock may be set: a failure that
//! seems to come yet is waited for no longer than one that is just seen, counted by the uptime, which nobody sets.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::meta;
use crate::view::Context;

/// Wait after a pod has failed: this, doubled for each further one, at most so long.
const SECONDS: u64 = 10;
const SECONDS_MAX: u64 = 600;

/// Failures in the future, and at which uptime each was first seen.
#[derive(Default)]
pub struct Patience {
    before: BTreeMap<String, u64>,
    now: BTreeMap<String, u64>,
}

impl Patience {
    pub fn of(context: &Context<'_>) -> Self {
        let known = context.memory.and_then(Value::as_object).into_iter().flatten();
        let before = known.filter_map(|(at, seen)| Some((at.clone(), seen.as_u64()?))).collect();
        Self { before, now: BTreeMap::new() }
    }

    /// What is left of the wait after so many failures, the last of them then.
    pub fn left(&mut self, failures: usize, last: Timestamp, context: &Context<'_>) -> Option<Duration> {
        let exponent = u32::try_from(failures.checked_sub(1)?).unwrap_or(31).min(31);
        let wait = Duration::from_secs(SECONDS.saturating_mul(1 << exponent).min(SECONDS_MAX));
        let passed = context.now.duration_since(last);
        let passed = if passed < SignedDuration::ZERO { self.since_seen(last, context) } else { meta::unsigned(passed) };
        wait.checked_sub(passed).filter(|left| !left.is_zero()).map(|left| left + Duration::from_millis(10))
    }

    fn since_seen(&mut self, last: Timestamp, context: &Context<'_>) -> Duration {
        let (at, uptime) = (last.to_string(), u64::try_from(context.uptime.as_millis()).unwrap_or(u64::MAX));
        let seen = self.before.get(&at).copied().unwrap_or(uptime);
        self.now.insert(at, seen);
        Duration::from_millis(uptime.saturating_sub(seen))
    }

    /// For the next pass.
    pub fn memory(&self) -> Option<Value> {
        (!self.now.is_empty()).then(|| json!(self.now))
    }
}
