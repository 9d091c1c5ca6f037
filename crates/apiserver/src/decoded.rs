//! The trees of objects that were changed a moment ago, beside their bytes in the store. Who changes a hot object again (a status,
//! a lease) compares with what is there, and need not parse it for that: in profiles, parsing the old object was a tenth of a
//! status update. Read by `verbs::write`; knows nothing of kinds.
//!
//! A tree takes some ten times the memory of its bytes, so the bytes of all kept objects are bounded. What is kept says which
//! revision it is, and the store says which one counts: nothing here can be stale.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use store::Revision;

use crate::verbs::write::Object;

const SHARDS: usize = 8;
/// Stored bytes of the objects kept by one shard.
const SHARD_BYTES_MAX: usize = 64 << 10;
/// Larger objects are not kept: they would push out many.
const OBJECT_BYTES_MAX: usize = 16 << 10;

#[derive(Default)]
pub struct Decoded {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    objects: HashMap<Arc<str>, Kept>,
    /// Oldest first; one that was used since gets a second turn.
    order: VecDeque<Arc<str>>,
    bytes: usize,
}

struct Kept {
    revision: Revision,
    object: Arc<Object>,
    bytes: usize,
    used: bool,
}

impl Decoded {
    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        let at = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object as it was at this revision, if it is kept.
    pub fn get(&self, key: &str, revision: Revision) -> Option<Arc<Object>> {
        let mut shard = self.shard(key);
        let kept = shard.objects.get_mut(key).filter(|kept| kept.revision == revision)?;
        kept.used = true;
        Some(kept.object.clone())
    }

    /// Keeps an object of so many stored bytes, in place of older ones.
    pub fn keep(&self, key: &str, revision: Revision, object: &Arc<Object>, bytes: usize) {
        let mut gone = Vec::new();
        let mut shard = self.shard(key);
        if bytes > OBJECT_BYTES_MAX {
            return;
        }
        let kept = Kept { revision, object: object.clone(), bytes, used: false };
        match shard.objects.get_mut(key) {
            // A write that was faster has put a newer one here.
            Some(there) if there.revision > revision => return,
            Some(there) => {
                let before = std::mem::replace(there, Kept { used: true, ..kept });
                shard.bytes -= before.bytes;
                gone.push(before);
            }
            None => {
                let key: Arc<str> = key.into();
                shard.order.push_back(key.clone());
                shard.objects.insert(key, kept);
            }
        }
        shard.bytes += bytes;
        while shard.bytes > SHARD_BYTES_MAX
            && let Some(oldest) = shard.order.pop_front()
        {
            let again = shard.objects.get_mut(&oldest).is_some_and(|kept| std::mem::take(&mut kept.used));
            if again {
                shard.order.push_back(oldest);
            } else if let Some(kept) = shard.objects.remove(&oldest) {
                shard.bytes -= kept.bytes;
                gone.push(kept);
            }
        }
        // Trees are taken apart outside of the lock.
        drop(shard);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kept_object_is_had_at_its_revision_only() {
        let decoded = Decoded::default();
        let object = |n: u64| Arc::new(Object::whole(json!({"n": n})));
        decoded.keep("/a", Revision(5), &object(5), 10);
        assert_eq!(decoded.get("/a", Revision(5)), Some(object(5)));
        assert_eq!((decoded.get("/a", Revision(4)), decoded.get("/b", Revision(5))), (None, None));
        decoded.keep("/a", Revision(7), &object(7), 10);
        decoded.keep("/a", Revision(6), &object(6), 10);
        assert_eq!((decoded.get("/a", Revision(7)), decoded.get("/a", Revision(6))), (Some(object(7)), None));
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_used_stays() {
        let decoded = Decoded::default();
        let object = Arc::new(Object::whole(json!({})));
        for n in 0..10_000 {
            decoded.keep(&format!("/{n}"), Revision(1), &object, 1000);
            decoded.get("/0", Revision(1));
        }
        decoded.keep("/large", Revision(1), &object, OBJECT_BYTES_MAX + 1);
        assert_eq!(decoded.get("/large", Revision(1)), None);
        assert!(decoded.get("/0", Revision(1)).is_some());
        for shard in &decoded.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(shard.bytes <= SHARD_BYTES_MAX);
            assert_eq!((shard.bytes, shard.order.len()), (shard.objects.len() * 1000, shard.objects.len()));
        }
    }
}
