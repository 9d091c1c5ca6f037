//! The store that encrypts. All it does is transform values on their way; revisions, conditions and watches are the inner
//! store's.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use store::{Event, Freshness, KeyValue, ListOptions, Listing, Op, Revision, Store, WatchItem, WatchStream};

use crate::config::{Config, ProviderConfig};
use crate::kms::Kms;
use crate::provider::{self, Provider};
use crate::{Error, ResourceOf, Result};

/// Shared by all clones and watches.
#[derive(Clone)]
pub struct Encrypted {
    inner: Arc<dyn Store>,
    shared: Arc<Shared>,
}

struct Shared {
    resource_of: ResourceOf,
    rules: ArcSwap<Rules>,
}

/// A configuration in use.
pub(crate) struct Rules {
    config: Config,
    /// By the place of their rule in the configuration.
    providers: Vec<Vec<Provider>>,
    pub kms: BTreeMap<(String, String), Arc<Kms>>,
}

impl Rules {
    /// `before`: connections that stay.
    fn new(config: Config, before: Option<&Rules>) -> Self {
        let mut all: BTreeMap<(String, String), Arc<Kms>> = BTreeMap::new();
        let mut find = |name: &str, socket: &str, timeout| {
            let place = (name.to_owned(), socket.to_owned());
            let kept = before.and_then(|b| b.kms.get(&place)).cloned();
            all.entry(place).or_insert_with(|| kept.unwrap_or_else(|| Arc::new(Kms::new(name, socket, timeout)))).clone()
        };
        let providers = |configs: &Vec<ProviderConfig>| -> Vec<Provider> { configs.iter().map(|p| Provider::new(p, &mut find)).collect() };
        let providers = config.rules.iter().map(|r| &r.providers).map(providers).collect();
        Self { config, providers, kms: all }
    }

    fn of(&self, group: &str, resource: &str) -> &[Provider] {
        let configs = self.config.providers(group, resource);
        let place = self.config.rules.iter().position(|r| std::ptr::eq(r.providers.as_slice(), configs));
        place.map_or(&[], |at| &self.providers[at])
    }
}

impl Encrypted {
    pub fn new(inner: Arc<dyn Store>, config: Config, resource_of: ResourceOf) -> Self {
        let rules = ArcSwap::from_pointee(Rules::new(config, None));
        Self { inner, shared: Arc::new(Shared { resource_of, rules }) }
    }

    /// A store without keys: what is encrypted in it cannot be read, all else can.
    pub fn unread(inner: Arc<dyn Store>) -> Self {
        Self::new(inner, Config { rules: Vec::new() }, Arc::new(|_| Default::default()))
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.shared.rules.load_full()
    }

    /// Takes a changed configuration, once its providers work.
    pub async fn replace(&self, config: Config) -> Result<()> {
        let rules = Rules::new(config, Some(&self.rules()));
        for kms in rules.kms.values() {
            kms.healthy().await?;
        }
        self.shared.rules.store(Arc::new(rules));
        Ok(())
    }

    /// The KMS providers' names, in order.
    pub fn kms(&self) -> Vec<String> {
        self.rules().kms.values().map(|k| k.name().to_owned()).collect()
    }

    /// Whether every KMS works, or the one of a place.
    pub async fn healthy(&self, place: Option<usize>) -> Result<()> {
        for (_, kms) in self.rules().kms.values().enumerate().filter(|(at, _)| place.is_none_or(|p| p == *at)) {
            kms.healthy().await?;
        }
        Ok(())
    }
}

impl Shared {
    async fn seal(&self, key: &str, value: &Bytes) -> store::Result<Bytes> {
        let (group, resource) = (self.resource_of)(key);
        let rules = self.rules.load_full();
        provider::seal(rules.of(&group, &resource), value, key.as_bytes()).await.map_err(|e| transform(key, &e))
    }

    async fn open(&self, item: KeyValue) -> store::Result<KeyValue> {
        let (value, _) = self.opened(&item).await?;
        Ok(KeyValue { value, ..item })
    }

    async fn opened(&self, item: &KeyValue) -> store::Result<(Bytes, bool)> {
        let (group, resource) = (self.resource_of)(&item.key);
        let rules = self.rules.load_full();
        let opened = provider::open(rules.of(&group, &resource), &item.value, item.key.as_bytes()).await;
        opened.map(|o| (o.value, o.stale)).map_err(|e| transform(&item.key, &e))
    }

    async fn open_some(&self, item: Option<KeyValue>) -> store::Result<Option<KeyValue>> {
        match item {
            Some(item) => self.open(item).await.map(Some),
            None => Ok(None),
        }
    }

    async fn event(&self, event: Event) -> store::Result<Event> {
        let value = self.open_some(event.value).await?;
        let previous = self.open_some(event.previous).await?;
        Ok(Event { value, previous, ..event })
    }

    async fn item(&self, item: WatchItem) -> store::Result<WatchItem> {
        let events = match item {
            WatchItem::Events(events) => events,
            progress @ WatchItem::Progress(_) => return Ok(progress),
        };
        let mut out = Vec::with_capacity(events.len());
        for event in events {
            out.push(self.event(event).await?);
        }
        Ok(WatchItem::Events(out))
    }
}

fn transform(key: &str, error: &Error) -> store::Error {
    store::Error::Transform { key: key.to_owned(), why: error.to_string() }
}

#[async_trait]
impl Store for Encrypted {
    async fn get(&self, key: &str) -> store::Result<(Revision, Option<KeyValue>)> {
        let (revision, found) = self.inner.get(key).await?;
        Ok((revision, self.shared.open_some(found).await?))
    }

    async fn list(&self, prefix: &str, options: ListOptions) -> store::Result<Listing> {
        let mut listing = self.inner.list(prefix, options).await?;
        let items = std::mem::take(&mut listing.items);
        listing.items.reserve(items.len());
        for item in items {
            listing.items.push(self.shared.open(item).await?);
        }
        Ok(listing)
    }

    async fn write(&self, op: Op) -> store::Result<(Revision, Option<KeyValue>)> {
        let op = match op {
            Op::Put { key, value, expect, ttl } => {
                let value = self.shared.seal(&key, &value).await?;
                Op::Put { key, value, expect, ttl }
            }
            delete @ Op::Delete { .. } => delete,
        };
        match self.inner.write(op).await {
            Ok((revision, item)) => Ok((revision, self.shared.open_some(item).await?)),
            Err(store::Error::Conflict(item)) => Err(store::Error::Conflict(self.shared.open_some(item).await?)),
            Err(other) => Err(other),
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> store::Result<WatchStream> {
        let stream = self.inner.watch(prefix, after).await?;
        let shared = self.shared.clone();
        let opened = stream.then(move |item| {
            let shared = shared.clone();
            async move { shared.item(item?).await }
        });
        Ok(opened.boxed())
    }

    async fn revision(&self) -> store::Result<Revision> {
        self.inner.revision().await
    }

    async fn freshness(&self, prefix: &str) -> store::Result<Freshness> {
        self.inner.freshness(prefix).await
    }

    fn tells_progress(&self) -> bool {
        self.inner.tells_progress()
    }

    async fn is_stale(&self, key: &str) -> store::Result<bool> {
        match self.inner.get(key).await? {
            (_, Some(item)) => Ok(self.shared.opened(&item).await?.1),
            (_, None) => Ok(false),
        }
    }

    async fn compact(&self, revision: Revision) -> store::Result<()> {
        self.inner.compact(revision).await
    }
}
