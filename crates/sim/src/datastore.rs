//! The embedded engine on the simulated disk, with faults of its own: writes that are refused, done without an answer, or
//! told to conflict; watches that are late or end. Every write is a step of the journal. The API server is its only user.

use bytes::Bytes;
use futures::StreamExt;
use store::disk::sim::SimDisk;
use store::{Embedded, Error, Expect, Freshness, KeyValue, ListOptions, Listing, Op, Result, Revision, Store, WatchStream};

use crate::faults::Faults;
use crate::journal::{Journal, set_who, who};
use crate::state::expires;

pub(crate) struct Datastore {
    pub engine: Embedded,
    pub disk: SimDisk,
    faults: Faults,
    journal: Journal,
    doubtful: std::sync::Mutex<Option<Doubtful>>,
}

/// A write that the disk died in: nobody knows whether it is there.
struct Doubtful {
    key: String,
    value: Option<Bytes>,
    /// Who asked for it: if it is there after the crash, it is theirs.
    who: String,
}

impl Datastore {
    pub fn open(disk: SimDisk, seed: u64, faults: Faults, journal: Journal) -> Result<Self> {
        let options = store::Options { seed: seed | 1, snapshot_bytes_min: 256 << 10, ..store::Options::default() };
        let engine = Embedded::with_disk(std::sync::Arc::new(disk.clone()), options)?;
        Ok(Self { engine, disk, faults, journal, doubtful: std::sync::Mutex::default() })
    }

    fn doubtful(&self) -> std::sync::MutexGuard<'_, Option<Doubtful>> {
        self.doubtful.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether the disk, with all that was acknowledged, came back. What is there of the write that was under way becomes a step.
    pub async fn recovered(&self, before: &Datastore) -> Result<(), String> {
        let listing = self.engine.list("/registry/", ListOptions::default()).await.map_err(|error| error.to_string())?;
        let doubtful = before.doubtful().take();
        let newest = self.journal.look(|state| state.revision);
        if listing.revision.0 < newest {
            return Err(format!("after the crash the store is at revision {}, and was at {newest}", listing.revision.0));
        }
        let is_doubtful = |key: &str| doubtful.as_ref().is_some_and(|doubtful| doubtful.key == key);
        for item in listing.items.iter().filter(|item| !is_doubtful(&item.key)) {
            let known = self.journal.look(|state| state.stored(&item.key));
            if known.as_ref().is_none_or(|(revision, bytes)| *revision != item.mod_revision.0 || *bytes != item.value) {
                return Err(format!(
                    "after the crash {} is of revision {}, and was {:?}",
                    item.key,
                    item.mod_revision.0,
                    known.map(|k| k.0)
                ));
            }
        }
        let there: std::collections::BTreeSet<&str> = listing.items.iter().map(|item| &*item.key).collect();
        let lost = self.journal.look(|state| {
            let missing = |key: &str| !there.contains(key) && !is_doubtful(key) && !expires(key);
            state.all().map(|(key, _)| key).find(|key| missing(key)).map(str::to_owned)
        });
        if let Some(key) = lost {
            return Err(format!("after the crash {key} is lost, though it was acknowledged"));
        }
        doubtful.map_or(Ok(()), |doubtful| self.settle(doubtful, &listing))
    }

    /// Tells what is there of the write that was under way.
    fn settle(&self, Doubtful { key, value, who }: Doubtful, listing: &Listing) -> Result<(), String> {
        let item = listing.items.iter().find(|item| *item.key == *key);
        let known = self.journal.look(|state| state.stored(&key));
        let step = |revision: u64, value: Option<&Bytes>| {
            let before = set_who(who);
            self.journal.step(revision, &key, value);
            set_who(before);
        };
        match (item, known) {
            // It was not done: what was there before is there still.
            (Some(item), Some(known)) if known == (item.mod_revision.0, item.value.clone()) => {}
            (Some(item), _) if value.as_ref() == Some(&item.value) => step(item.mod_revision.0, Some(&item.value)),
            (None, Some(_)) if value.is_none() => step(listing.revision.0, None),
            (None, None) => {}
            (None, Some(_)) if expires(&key) => {}
            (item, known) => {
                let (item, known) = (item.map(|item| item.mod_revision.0), known.map(|known| known.0));
                return Err(format!("after the crash {key}, which was being written, is of revision {item:?}, and was {known:?}"));
            }
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Store for Datastore {
    async fn get(&self, key: &str) -> Result<(Revision, Option<KeyValue>)> {
        self.engine.get(key).await
    }

    async fn list(&self, prefix: &str, options: ListOptions) -> Result<Listing> {
        self.engine.list(prefix, options).await
    }

    async fn write(&self, op: Op) -> Result<(Revision, Option<KeyValue>)> {
        let profile = &self.faults.profile;
        if self.faults.strikes("store: write refused", profile.store_refused) {
            return Err(Error::Unavailable("simulated: the write was not done".to_owned()));
        }
        let (key, value, expect) = match &op {
            Op::Put { key, value, expect, .. } => (key.clone(), Some(value.clone()), *expect),
            Op::Delete { key, expect } => (key.clone(), None, *expect),
        };
        if matches!(expect, Expect::Revision(_)) && self.faults.strikes("store: conflict", profile.store_conflicts) {
            return Err(Error::Conflict(self.engine.get(&key).await?.1));
        }
        let done = self.engine.write(op).await;
        match &done {
            Ok((revision, _)) => self.journal.step(revision.0, &key, value.as_ref()),
            // An engine that has failed takes nothing more: only the write that it failed in is in doubt.
            Err(Error::Conflict(_) | Error::Failed(_)) => {}
            Err(_) if self.disk.is_dead() => {
                self.doubtful().get_or_insert_with(|| Doubtful { key: key.to_string(), value, who: who() });
            }
            Err(_) => {}
        }
        if done.is_ok() && self.faults.strikes("store: no answer", profile.store_unanswered) {
            return Err(Error::Unavailable("simulated: the write was done, the answer is lost".to_owned()));
        }
        done
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let faults = self.faults.clone();
        let stream = self.engine.watch(prefix, after).await?;
        let stream = stream.then(move |item| {
            let faults = faults.clone();
            async move {
                faults.lag("store: late watch", faults.profile.store_watch_lag_ms_max).await;
                if faults.strikes("store: watch ended", faults.profile.store_watch_cut) {
                    return Err(Error::Lagged);
                }
                item
            }
        });
        // An error is the last item.
        let ended = std::cell::Cell::new(false);
        Ok(stream.take_while(move |item| std::future::ready(!ended.replace(item.is_err()))).boxed())
    }

    async fn revision(&self) -> Result<Revision> {
        self.engine.revision().await
    }

    async fn freshness(&self, prefix: &str) -> Result<Freshness> {
        self.engine.freshness(prefix).await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.engine.compact(revision).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use store::disk::sim::{Faults as DiskFaults, SimDisk};
    use store::{Error, Expect, Op, Store};

    use super::Datastore;
    use crate::faults::Faults;
    use crate::journal::{Journal, set_who};
    use crate::profile::Profile;

    const POD: &str = "/registry/pods/alpha/db-0";

    fn put(key: &str, value: &serde_json::Value) -> Op {
        Op::Put { key: Arc::from(key), value: value.to_string().into(), expect: Expect::Anything, ttl: None }
    }

    /// What the journal says of a deletion whose sync the disk dies in; `None`: it was not done.
    async fn dies_deleting(seed: u64) -> Option<Journal> {
        let journal = Journal::new(&crate::Options::of_seed(seed), tokio_util::sync::CancellationToken::new());
        let open = |disk| Datastore::open(disk, seed, Faults::new(Profile::calm(), seed, journal.clone()), journal.clone()).expect("opens");
        let before = open(SimDisk::new(seed));
        let owner = json!({"kind": "StatefulSet", "uid": "set", "controller": true});
        let pod = json!({"metadata": {"uid": "u", "ownerReferences": [owner]}, "spec": {"nodeName": "node-0"}});
        before.write(put("/registry/minions/node-0", &json!({"metadata": {"uid": "n"}}))).await.expect("writes");
        before.write(put(POD, &pod)).await.expect("writes");
        before.disk.set_faults(DiskFaults { die_at: Some(1), ..DiskFaults::default() });
        set_who("system:node:node-0".to_owned());
        let deleted = before.write(Op::Delete { key: Arc::from(POD), expect: Expect::Anything }).await;
        set_who(String::new());
        assert!(matches!(deleted, Err(Error::Unavailable(_))), "the outcome is not known");
        // What comes after is refused, and in no doubt.
        assert!(matches!(before.write(put("/registry/pods/alpha/db-1", &pod)).await, Err(Error::Failed(_))));
        let after = open(before.disk.crash());
        after.recovered(&before).await.expect("what was acknowledged is there");
        journal.look(|state| state.get(POD).is_none()).then_some(journal)
    }

    #[tokio::test]
    async fn a_write_that_the_disk_died_in_stays_its_authors() {
        let mut done = 0;
        for seed in 0..60 {
            let Some(journal) = dies_deleting(seed).await else { continue };
            done += 1;
            assert_eq!(journal.violation(), None, "its kubelet may remove a StatefulSet's pod");
            assert!(journal.report().trace.iter().any(|line| line.contains("node-0: - pods/alpha/db-0")), "seed {seed}");
        }
        assert!(done > 0, "the deletion was never there after the crash");
    }
}
