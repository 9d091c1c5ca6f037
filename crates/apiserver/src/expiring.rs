//! A small cache of answers that hold for a while: those of webhook authenticators and authorizers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The oldest go first when there are more.
const ENTRIES_MAX: usize = 8192;

/// Keys are hashes: what they stand for may be secret.
pub struct Expiring<V>(Mutex<HashMap<[u8; 32], (Instant, V)>>);

impl<V> Default for Expiring<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V: Clone> Expiring<V> {
    pub fn get(&self, key: &[u8; 32]) -> Option<V> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| value.clone())
    }

    pub fn put(&self, key: [u8; 32], value: V, ttl: Duration) {
        if ttl.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ENTRIES_MAX {
            all.retain(|_, (until, _)| *until > now);
        }
        if all.len() >= ENTRIES_MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| *key)
        {
            all.remove(&oldest);
        }
        all.insert(key, (now + ttl, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_for_a_while_and_are_bounded() {
        let cache = Expiring::default();
        cache.put([1; 32], 1, Duration::from_secs(60));
        cache.put([2; 32], 2, Duration::ZERO);
        cache.put([3; 32], 3, Duration::from_nanos(1));
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!((cache.get(&[1; 32]), cache.get(&[2; 32]), cache.get(&[3; 32])), (Some(1), None, None));
        for i in 0..ENTRIES_MAX + 100 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&i.to_be_bytes());
            cache.put(key, 0, Duration::from_secs(100));
        }
        assert!(cache.0.lock().unwrap().len() <= ENTRIES_MAX);
    }
}
