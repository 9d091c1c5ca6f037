//! [`Etcd`]: the cluster as a `store::Store`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use store::{Error, Freshness, KeyValue, ListOptions, Listing, Op, Result, Revision, Store, WatchStream};
use tokio::time::Instant;

use crate::compactor::Compactor;
use crate::endpoints::{Endpoints, Kind, with_leader};
use crate::errors::LEASE_NOT_FOUND;
use crate::etcdserverpb::kv_client::KvClient;
use crate::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use crate::keys::{Keys, prefix_end};
use crate::leases::Leases;
use crate::options::Options;
use crate::watching::Watching;
use crate::{kv, watch};

/// A list is read in parts of so many keys, so that no answer is huge and none takes long.
const PART_KEYS: usize = 2000;
/// Written by nobody; reading it tells the revision.
const REVISION_KEY: &str = "/registry/health";

/// A client of an etcd cluster.
pub struct Etcd {
    shared: Arc<Shared>,
    leases: Leases,
    compactor: Compactor,
}

/// What the engine and its watches share.
pub(crate) struct Shared {
    pub endpoints: Endpoints,
    pub keys: Keys,
    pub watching: Watching,
}

impl Etcd {
    /// Reads the certificates and looks for the members. An error where none can be reached within the deadline.
    pub async fn connect(options: Options) -> Result<Self> {
        let until = Instant::now() + options.deadline;
        let endpoints = Endpoints::new(&options)?;
        while let Err(error) = endpoints.look().await {
            if Instant::now() > until {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let shared = Shared { endpoints, keys: Keys::new(&options.prefix), watching: Watching::default() };
        Ok(Self { shared: Arc::new(shared), leases: Leases::default(), compactor: Compactor::default() })
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        range(&self.shared.endpoints, request).await
    }

    async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse> {
        let call = self.shared.endpoints.call(Kind::Write, |channel| {
            let txn = with_leader(txn.clone());
            async move { KvClient::new(channel).max_decoding_message_size(usize::MAX).txn(txn).await }
        });
        call.await
    }

    async fn put(&self, key: &Bytes, value: Bytes, expect: store::Expect, ttl: Option<Duration>) -> Result<TxnResponse> {
        let Some(ttl) = ttl else { return self.txn(kv::write(key, expect, kv::put(key, value, 0))).await };
        let lease = self.leases.of(&self.shared.endpoints, ttl).await?;
        match self.txn(kv::write(key, expect, kv::put(key, value.clone(), lease))).await {
            // Nothing was written. The lease may have been revoked by hand, or the cluster was restored.
            Err(Error::Cluster(text)) if text == LEASE_NOT_FOUND => {
                self.leases.forget(lease).await;
                let lease = self.leases.of(&self.shared.endpoints, ttl).await?;
                self.txn(kv::write(key, expect, kv::put(key, value, lease))).await
            }
            other => other,
        }
    }

    /// All parts of a list, from one revision.
    async fn parts(&self, prefix: &str, options: &ListOptions) -> Result<Listing> {
        let outer = self.shared.keys.outer(prefix);
        let end = prefix_end(&outer);
        let mut start = options.after.as_deref().map_or(outer, |after| next_key(&self.shared.keys.outer(after)));
        let mut listing = Listing { revision: options.revision.unwrap_or_default(), items: Vec::new(), more: false, count: 0 };
        let mut first = true;
        loop {
            let left = if options.limit == 0 { PART_KEYS } else { (options.limit - listing.items.len()).min(PART_KEYS) };
            let request = RangeRequest {
                key: start.clone(),
                range_end: end.clone(),
                limit: i64::try_from(left).unwrap_or(i64::MAX),
                revision: kv::signed(listing.revision),
                ..RangeRequest::default()
            };
            let answer = self.range(request).await.map_err(|e| at_revision(e, listing.revision))?;
            if first {
                listing.count = kv::number(answer.count);
                if listing.revision.0 == 0 {
                    listing.revision = kv::revision_of(answer.header.as_ref());
                }
            }
            first = false;
            if let Some(last) = answer.kvs.last() {
                start = next_key(&last.key);
            }
            for kv in answer.kvs {
                listing.items.push(kv::item(&self.shared.keys, kv)?);
            }
            listing.more = answer.more;
            if !answer.more || (options.limit != 0 && listing.items.len() >= options.limit) {
                return Ok(listing);
            }
        }
    }

    async fn newest(&self) -> Result<Revision> {
        let key = self.shared.keys.outer(REVISION_KEY);
        let answer = self.range(RangeRequest { key, count_only: true, ..RangeRequest::default() }).await?;
        Ok(kv::revision_of(answer.header.as_ref()))
    }
}

pub(crate) async fn range(endpoints: &Endpoints, request: RangeRequest) -> Result<RangeResponse> {
    let call = endpoints.call(Kind::Read, |channel| {
        let request = with_leader(request.clone());
        async move { KvClient::new(channel).max_decoding_message_size(usize::MAX).range(request).await }
    });
    call.await
}

/// The first key after this one.
fn next_key(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// etcd does not say which revision was asked for.
fn at_revision(error: Error, revision: Revision) -> Error {
    match error {
        Error::Future(_) => Error::Future(revision),
        other => other,
    }
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str) -> Result<(Revision, Option<KeyValue>)> {
        let request = RangeRequest { key: self.shared.keys.outer(key), ..RangeRequest::default() };
        let answer = self.range(request).await?;
        let found = answer.kvs.into_iter().next().map(|kv| kv::item(&self.shared.keys, kv)).transpose()?;
        Ok((kv::revision_of(answer.header.as_ref()), found))
    }

    async fn list(&self, prefix: &str, options: ListOptions) -> Result<Listing> {
        self.parts(prefix, &options).await
    }

    async fn write(&self, op: Op) -> Result<(Revision, Option<KeyValue>)> {
        let keys = &self.shared.keys;
        let answer = match op {
            Op::Put { key, value, expect, ttl } => self.put(&keys.outer(&key), value, expect, ttl).await?,
            Op::Delete { key, expect } => {
                let outer = keys.outer(&key);
                self.txn(kv::write(&outer, expect, kv::delete(&outer))).await?
            }
        };
        kv::written(keys, answer)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        watch::start(self.shared.clone(), prefix, after).await
    }

    async fn revision(&self) -> Result<Revision> {
        self.newest().await
    }

    async fn freshness(&self, prefix: &str) -> Result<Freshness> {
        let revision = self.newest().await?;
        self.shared.watching.want(prefix, revision);
        Ok(Freshness { revision, needed: revision })
    }

    fn tells_progress(&self) -> bool {
        self.shared.endpoints.tell_progress()
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.compactor.round(&self.shared.endpoints, revision).await.map(drop)
    }
}
