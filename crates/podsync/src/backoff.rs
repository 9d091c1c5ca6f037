//! Exponential back-off per key as upstream's `flowcontrol.Backoff` has it: the first event costs nothing, then
//! 10 s doubling to 5 min, forgotten after twice the maximum. Called by the machine for containers and images.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::time::{after, since};

/// Back-off state of several keys.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    entries: BTreeMap<String, (Duration, Timestamp)>,
}

impl Backoff {
    pub fn new(initial: Duration, max: Duration) -> Self {
        Backoff { initial, max, entries: BTreeMap::new() }
    }

    /// Notes an event: starts at the initial delay, doubles it, or starts anew after a quiet time.
    pub fn next(&mut self, key: &str, at: Timestamp) {
        let delay = match self.entries.get(key) {
            Some((delay, last)) if since(at, *last) <= self.max * 2 => (*delay * 2).min(self.max),
            _ => self.initial,
        };
        self.entries.insert(key.to_owned(), (delay, at));
    }

    /// The current delay of a key.
    pub fn delay(&self, key: &str) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |e| e.0)
    }

    /// Until when `key` must wait, counted from the moment `from` (an exit, a failed pull). None: it need not.
    pub fn until(&self, key: &str, from: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let (delay, last) = self.entries.get(key)?;
        if since(now, *last) > self.max * 2 {
            return None;
        }
        let end = after(from, *delay);
        (now < end).then_some(end)
    }

    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    #[test]
    fn doubles_to_the_maximum_and_resets() {
        let mut b = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        assert_eq!(b.until("c", at(0), at(0)), None, "the first restart is at once");
        let mut seen = Vec::new();
        let mut now = 0;
        for _ in 0..7 {
            b.next("c", at(now));
            seen.push(b.delay("c").as_secs());
            now += seen.last().map_or(0, |s| *s as i64);
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(b.until("c", at(now), at(now)), Some(at(now + 300)));
        assert_eq!(b.until("c", at(now), at(now + 601)), None);
        b.next("c", at(now + 601));
        assert_eq!(b.delay("c").as_secs(), 10, "a quiet ten minutes start it anew");
    }
}
