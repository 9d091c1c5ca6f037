//! All of one store into another that is empty, and then the comparison of both. Called by `skiff datastore migrate`, for
//! either direction; nobody else may write to either meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use store::{Error, Expect, Key, KeyValue, ListOptions, Op, Result, Revision, Store};

const ROOT: &str = "/registry/";
/// Where API servers and local clusters say that they live.
const PASSING: [&str; 2] = ["/registry/masterleases/", "/registry/skiff/local-cluster"];
/// Written again and again to raise the revision, and then removed.
const COUNTER: &str = "/registry/skiff/revision";
const PAGE: usize = 1000;
const WRITES_AT_ONCE: usize = 64;
const TRIES_MAX: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Counted in keys.
    Copy,
    /// The new store's revision is brought up to the old one's, or clients would wait for revisions they have seen.
    Raise,
    /// Counted in keys.
    Verify,
}

/// Where the migration goes from and to, and what changes on the way.
pub struct Migration<'a> {
    pub from: &'a dyn Store,
    pub to: &'a dyn Store,
    /// The form a value is to have.
    pub form: &'a (dyn Fn(&str, &Bytes) -> Result<Bytes> + Sync),
    /// How long a key is to live from now on.
    pub ttl: &'a (dyn Fn(&str) -> Option<Duration> + Sync),
    /// The phase, what is done, and of how much.
    pub progress: &'a (dyn Fn(Phase, u64, u64) + Sync),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub keys: u64,
    pub bytes: u64,
    pub from: Revision,
    pub to: Revision,
}

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("the target holds {0} keys already; migration needs an empty one, so that nothing is overwritten or mixed")]
    Occupied(u64),
    #[error("the source was written to meanwhile (revision {before} became {after}): stop every API server, empty the target, and try again", before = before.0, after = after.0)]
    Written { before: Revision, after: Revision },
    #[error("the target is not what was copied to it: {0}; empty it, and try again")]
    Different(String),
    #[error(transparent)]
    Store(#[from] Error),
}

impl Migration<'_> {
    pub async fn run(&self) -> Result<Summary, MigrateError> {
        let there = self.to.list(ROOT, ListOptions { limit: 1, ..ListOptions::default() }).await?;
        if there.count > 0 {
            return Err(MigrateError::Occupied(there.count));
        }
        let revision = self.from.revision().await?;
        let (keys, bytes) = self.copy(revision).await?;
        self.raise(revision).await?;
        self.verify(revision, keys).await?;
        let after = self.from.revision().await?;
        if after != revision {
            return Err(MigrateError::Written { before: revision, after });
        }
        Ok(Summary { keys, bytes, from: revision, to: self.to.revision().await? })
    }

    /// A page of a store after a key, without what is not copied; the key to go on after.
    async fn page(store: &dyn Store, after: Option<Key>, revision: Option<Revision>) -> Result<(Vec<KeyValue>, Option<Key>, u64)> {
        let options = ListOptions { after: after.map(|k| k.to_string()), limit: PAGE, revision };
        let mut listing = store.list(ROOT, options).await?;
        let next = if listing.more { listing.items.last().map(|item| item.key.clone()) } else { None };
        listing.items.retain(|item| !PASSING.iter().any(|passing| item.key.starts_with(passing)) && &*item.key != COUNTER);
        Ok((listing.items, next, listing.count))
    }

    async fn copy(&self, revision: Revision) -> Result<(u64, u64)> {
        let (mut after, mut keys, mut bytes, mut total) = (None, 0, 0, None);
        loop {
            let (items, next, count) = Self::page(self.from, after, Some(revision)).await?;
            let total = *total.get_or_insert(count);
            keys += items.len() as u64;
            bytes += items.iter().map(|i| i.value.len() as u64).sum::<u64>();
            let writes = futures::stream::iter(items.iter().map(|item| self.put(item)));
            writes.buffer_unordered(WRITES_AT_ONCE).try_collect::<Vec<()>>().await?;
            (self.progress)(Phase::Copy, keys, total.max(keys));
            match next {
                Some(next) => after = Some(next),
                None => return Ok((keys, bytes)),
            }
        }
    }

    async fn put(&self, item: &KeyValue) -> Result<()> {
        let value = (self.form)(&item.key, &item.value)?;
        put(self.to, &item.key, value, (self.ttl)(&item.key)).await
    }

    async fn raise(&self, to: Revision) -> Result<()> {
        let from = self.to.revision().await?;
        let missing = to.0.saturating_sub(from.0);
        if missing == 0 {
            return Ok(());
        }
        let done = AtomicU64::new(0);
        let write = |_| async {
            put(self.to, COUNTER, Bytes::from_static(b"{}"), None).await?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(100) || done == missing {
                (self.progress)(Phase::Raise, done, missing);
            }
            Ok::<_, Error>(())
        };
        futures::stream::iter(0..missing).map(write).buffer_unordered(WRITES_AT_ONCE * 4).try_for_each(|()| async { Ok(()) }).await?;
        self.to.write(Op::Delete { key: COUNTER.into(), expect: Expect::Anything }).await?;
        Ok(())
    }

    /// Reads both again.
    async fn verify(&self, revision: Revision, total: u64) -> Result<(), MigrateError> {
        let (mut after, mut checked) = (None, 0);
        loop {
            let (items, next, _) = Self::page(self.from, after.clone(), Some(revision)).await?;
            let (copies, other_next, _) = Self::page(self.to, after, None).await?;
            for (item, copy) in items.iter().zip(&copies) {
                if item.key != copy.key {
                    return Err(MigrateError::Different(format!("{} is where {} should be", copy.key, item.key)));
                }
                if (self.form)(&item.key, &item.value)? != copy.value {
                    return Err(MigrateError::Different(format!("{} has another value", item.key)));
                }
            }
            if items.len() != copies.len() || next.is_some() != other_next.is_some() {
                // What is passing may make the pages of the source longer; so it is compared by what is kept.
                return self.verify_whole(revision).await;
            }
            checked += items.len() as u64;
            (self.progress)(Phase::Verify, checked, total.max(checked));
            match next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Where the pages of both do not end at the same keys.
    async fn verify_whole(&self, revision: Revision) -> Result<(), MigrateError> {
        let (mut wanted, mut copies) = (all(self.from, Some(revision)).await?, all(self.to, None).await?);
        for item in &mut wanted {
            item.value = (self.form)(&item.key, &item.value)?;
        }
        let bare = |items: Vec<KeyValue>| items.into_iter().map(|i| (i.key, i.value)).collect::<Vec<_>>();
        let (wanted, copies) = (bare(std::mem::take(&mut wanted)), bare(std::mem::take(&mut copies)));
        match wanted.iter().zip(&copies).find(|(a, b)| a != b) {
            Some(((key, _), _)) => Err(MigrateError::Different(format!("first at {key}"))),
            None if wanted.len() != copies.len() => {
                Err(MigrateError::Different(format!("{} keys instead of {}", copies.len(), wanted.len())))
            }
            None => Ok(()),
        }
    }
}

async fn all(store: &dyn Store, revision: Option<Revision>) -> Result<Vec<KeyValue>> {
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let (items, next, _) = Migration::page(store, after, revision).await?;
        found.extend(items);
        match next {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}

/// The same twice is as good as once, so whoever does not answer is asked again.
async fn put(store: &dyn Store, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
    for tried in 1.. {
        let op = Op::Put { key: key.into(), value: value.clone(), expect: Expect::Anything, ttl };
        match store.write(op).await {
            Ok(_) => break,
            Err(Error::Unavailable(_) | Error::Cluster(_) | Error::Timeout(_)) if tried < TRIES_MAX => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
