//! That one local cluster alone lives under a prefix of etcd: its daemon holds a key there that names it and goes with it, at
//! the latest when its lease ends. A second `skiff up` is told so: two of them would have one node's name, and controllers
//! that elect nobody. It guards against mistakes; it is no fence. Called by the daemon, and by `skiff up` before it starts one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use store::{Expect, KeyValue, Op, Revision, Store};
use tokio_util::sync::CancellationToken;

pub const KEY: &str = "/registry/skiff/local-cluster";
/// The times of API servers' own keys (`masterleases`).
const TTL: Duration = Duration::from_secs(15);
const EVERY: Duration = Duration::from_secs(5);

/// Who holds a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The local cluster's id.
    pub instance: String,
    pub host: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "another local cluster ({}) runs on {} over this etcd prefix: `skiff down` there first, or choose another --etcd-prefix; \
         where it was killed, try again after {} seconds", .0.instance, .0.host, TTL.as_secs()
    )]
    Taken(Owner),
    #[error("claiming the etcd prefix: {0}")]
    Store(#[from] store::Error),
}

/// Held until [`Claim::keep`] ends.
pub struct Claim {
    store: Arc<dyn Store>,
    owner: Owner,
    revision: Revision,
}

/// Who holds the prefix now, if it is not this cluster.
pub async fn other(store: &dyn Store, instance: &str) -> Result<Option<Owner>, Error> {
    let (_, found) = store.get(KEY).await?;
    Ok(found.map(|found| owner_of(&found)).filter(|owner| owner.instance != instance))
}

/// Of a value that nobody understands, somebody newer.
fn owner_of(found: &KeyValue) -> Owner {
    serde_json::from_slice(&found.value).unwrap_or_else(|_| Owner { instance: "unknown".to_owned(), host: "unknown".to_owned() })
}

impl Claim {
    pub async fn take(store: Arc<dyn Store>, owner: Owner) -> Result<Self, Error> {
        let mut claim = Self { store, owner, revision: Revision(0) };
        claim.put(Expect::Absent).await?;
        Ok(claim)
    }

    /// Over what is expected; over this cluster's own of an earlier process, too.
    async fn put(&mut self, mut expect: Expect) -> Result<(), Error> {
        loop {
            let value = serde_json::to_vec(&self.owner).unwrap_or_default().into();
            let error = match self.store.write(Op::Put { key: KEY.into(), value, expect, ttl: Some(TTL) }).await {
                Ok((revision, _)) => {
                    self.revision = revision;
                    return Ok(());
                }
                Err(error) => error,
            };
            expect = match error {
                store::Error::Conflict(None) => Expect::Absent,
                store::Error::Conflict(Some(found)) => match owner_of(&found) {
                    owner if owner.instance == self.owner.instance => Expect::Revision(found.mod_revision),
                    owner => return Err(Error::Taken(owner)),
                },
                other => return Err(other.into()),
            };
        }
    }

    /// Renews it until cancelled, and gives it back. An error: another cluster has it.
    pub async fn keep(self, cancel: CancellationToken) -> anyhow::Result<()> {
        self.keep_renewing(EVERY, cancel).await
    }

    async fn keep_renewing(mut self, every: Duration, cancel: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! { biased;
                () = cancel.cancelled() => break,
                () = tokio::time::sleep(every) => {}
            }
            match self.put(Expect::Revision(self.revision)).await {
                Ok(()) => {}
                Err(taken @ Error::Taken(_)) => return Err(taken.into()),
                // etcd may have a bad moment.
                Err(error) => tracing::warn!("{error}"),
            }
        }
        match self.store.write(Op::Delete { key: KEY.into(), expect: Expect::Revision(self.revision) }).await {
            Ok(_) | Err(store::Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error).context("giving the etcd prefix back; it is free in a moment"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(instance: &str) -> Owner {
        Owner { instance: instance.to_owned(), host: "h".to_owned() }
    }

    #[tokio::test]
    async fn one_cluster_has_a_prefix_until_it_is_gone() {
        let store: Arc<dyn Store> = Arc::new(store::Embedded::in_memory());
        let first = Claim::take(store.clone(), owner("a")).await.unwrap();
        let refused = Claim::take(store.clone(), owner("b")).await.err().unwrap();
        assert!(matches!(&refused, Error::Taken(other) if *other == owner("a")), "{refused}");
        assert_eq!(other(&*store, "b").await.unwrap(), Some(owner("a")));
        assert_eq!(other(&*store, "a").await.unwrap(), None);

        // A daemon that was killed comes back; the one before has ended, whatever it believes.
        let again = Claim::take(store.clone(), owner("a")).await.unwrap();
        assert!(again.revision > first.revision);
        let cancel = CancellationToken::new();
        cancel.cancel();
        first.keep(cancel.clone()).await.unwrap();
        assert_eq!(other(&*store, "b").await.unwrap(), Some(owner("a")), "only who has it gives it back");
        again.keep(cancel).await.unwrap();
        Claim::take(store, owner("b")).await.unwrap();
    }

    #[tokio::test]
    async fn a_claim_is_renewed_made_anew_and_lost() {
        let store: Arc<dyn Store> = Arc::new(store::Embedded::in_memory());
        let claim = Claim::take(store.clone(), owner("a")).await.unwrap();
        // Its lease ended while etcd was away.
        store.write(Op::Delete { key: KEY.into(), expect: Expect::Anything }).await.unwrap();
        let kept = tokio::spawn(claim.keep_renewing(Duration::from_millis(5), CancellationToken::new()));
        while other(&*store, "b").await.unwrap() != Some(owner("a")) {
            assert!(!kept.is_finished(), "it goes on");
            tokio::task::yield_now().await;
        }
        let value = serde_json::to_vec(&owner("b")).unwrap().into();
        store.write(Op::Put { key: KEY.into(), value, expect: Expect::Anything, ttl: None }).await.unwrap();
        let error = kept.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("another local cluster (b) runs on h"), "{error:#}");
    }
}
