//! A store in which kube-apiserver has written too: its values are protobuf in an envelope, or JSON in Go's order. Read, they
//! are brought into our stored form; what we write is ours, which kube-apiserver reads as well. `server` puts this over etcd,
//! above encryption and below every cache; migration uses [`to_stored`] alone.

mod definitions;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use machinery::gvk::GroupVersionKind;
use machinery::object::str_at;
use machinery::proto::MAGIC;
use serde_json::Value;
use store::{Error, Event, Expect, Freshness, KeyValue, ListOptions, Listing, Op, Result, Revision, Store, WatchItem, WatchStream};

use crate::metrics::{Metrics, table};
use crate::registry::group_resource;
use crate::{codec, protobuf};

/// How every object of ours begins; upstream's JSON begins so too where Go wrote a struct, and then ends with a newline.
const OURS: &[u8] = b"{\"kind\":";
/// What is not an object.
const NO_OBJECTS: [&str; 3] = ["/registry/skiff/", "/registry/ranges/", "/registry/masterleases/"];

/// It also counts what it asks of etcd.
pub struct Readable {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl Readable {
    pub(crate) fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    async fn measured<T>(&self, operation: &str, key: &str, request: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let outcome = request.await;
        let (group, resource) = group_resource(key);
        let labels = [group.as_str(), operation, resource.as_str()];
        self.metrics.count(&table::ETCD_REQUESTS, &labels);
        self.metrics.observe(&table::ETCD_REQUEST_DURATION, &labels, began.elapsed().as_secs_f64());
        if !matches!(outcome, Ok(_) | Err(Error::Conflict(_) | Error::Compacted { .. })) {
            self.metrics.count(&table::ETCD_REQUEST_ERRORS, &labels);
        }
        outcome
    }
}

/// A stored value in our form; `None`: it is. An error where nobody here knows its kind, or it is damaged.
pub fn to_stored(key: &str, value: &Bytes) -> Result<Option<Bytes>> {
    let ours = value.starts_with(OURS) && value.last() != Some(&b'\n');
    if ours || NO_OBJECTS.iter().any(|prefix| key.starts_with(prefix)) {
        return Ok(None);
    }
    let bad = |why: String| Error::Transform { key: key.to_owned(), why };
    let object = if value.starts_with(MAGIC) {
        let object = protobuf::decode(value, &GroupVersionKind::new("", "", "")).map_err(|e| bad(e.message))?;
        // Of a kind that is not in the tables nothing but its name can be read.
        if object.get("metadata").is_none() {
            let (kind, version) = (str_at(&object, "kind"), str_at(&object, "apiVersion"));
            return Err(bad(format!("no kind {kind:?} is registered for version {version:?}")));
        }
        object
    } else {
        match serde_json::from_slice::<Value>(value) {
            Ok(object) if str_at(&object, "apiVersion") == definitions::API_VERSION => definitions::to_v1(object),
            Ok(object) if object.is_object() => object,
            // Encrypted, or nobody's: as it is.
            _ => return Ok(None),
        }
    };
    Ok(Some(codec::encode(&object)))
}

fn item(item: KeyValue) -> Result<KeyValue> {
    Ok(match to_stored(&item.key, &item.value)? {
        Some(value) => KeyValue { value, ..item },
        None => item,
    })
}

fn some(found: Option<KeyValue>) -> Result<Option<KeyValue>> {
    found.map(item).transpose()
}

fn event(event: Event) -> Result<Event> {
    Ok(Event { value: some(event.value)?, previous: some(event.previous)?, ..event })
}

#[async_trait]
impl Store for Readable {
    async fn get(&self, key: &str) -> Result<(Revision, Option<KeyValue>)> {
        let (revision, found) = self.measured("get", key, self.inner.get(key)).await?;
        Ok((revision, some(found)?))
    }

    async fn list(&self, prefix: &str, options: ListOptions) -> Result<Listing> {
        let listing = self.measured("list", prefix, self.inner.list(prefix, options)).await?;
        let items = listing.items.into_iter().map(item).collect::<Result<_>>()?;
        Ok(Listing { items, ..listing })
    }

    async fn write(&self, op: Op) -> Result<(Revision, Option<KeyValue>)> {
        let (operation, key) = match &op {
            Op::Put { expect: Expect::Absent, key, .. } => ("create", key.clone()),
            Op::Put { key, .. } => ("update", key.clone()),
            Op::Delete { key, .. } => ("delete", key.clone()),
        };
        match self.measured(operation, &key, self.inner.write(op)).await {
            Ok((revision, found)) => Ok((revision, some(found)?)),
            Err(Error::Conflict(found)) => Err(Error::Conflict(some(found)?)),
            Err(other) => Err(other),
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let (group, resource) = group_resource(prefix);
        let received = self.metrics.family(&table::STORAGE_EVENTS).with(&[&group, &resource]);
        let items = self.inner.watch(prefix, after).await?.map(move |found| match found? {
            WatchItem::Events(events) => {
                received.add(events.len() as f64);
                Ok(WatchItem::Events(events.into_iter().map(event).collect::<Result<_>>()?))
            }
            progress @ WatchItem::Progress(_) => Ok(progress),
        });
        Ok(items.boxed())
    }

    async fn revision(&self) -> Result<Revision> {
        self.inner.revision().await
    }

    async fn freshness(&self, prefix: &str) -> Result<Freshness> {
        self.inner.freshness(prefix).await
    }

    fn tells_progress(&self) -> bool {
        self.inner.tells_progress()
    }

    /// What upstream wrote is worth writing again.
    async fn is_stale(&self, key: &str) -> Result<bool> {
        if self.inner.is_stale(key).await? {
            return Ok(true);
        }
        let (_, found) = self.inner.get(key).await?;
        Ok(found.map(|kv| to_stored(key, &kv.value)).transpose()?.flatten().is_some())
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn upstreams_values_become_ours() {
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "b", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]}, "status": {"phase": "Running"}});
        let sealed = Bytes::from(protobuf::encode(&pod).unwrap());
        let stored = to_stored("/registry/pods/b/a", &sealed).unwrap().unwrap();
        assert!(stored.starts_with(OURS));
        let back = codec::decode(&stored, Revision(0));
        assert_eq!((&back["spec"], &back["status"], &back["kind"]), (&pod["spec"], &pod["status"], &pod["kind"]));
        assert_eq!(to_stored("/registry/pods/b/a", &stored).unwrap(), None, "ours stays");
        // As Go writes a definition, and a custom resource.
        let definition = Bytes::from_static(b"{\"kind\":\"X\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\"},\"a\":1}\n");
        assert_eq!(to_stored("/registry/x/a", &definition).unwrap().unwrap(), definition[..definition.len() - 1]);
        let custom = Bytes::from_static(b"{\"apiVersion\":\"g/v1\",\"kind\":\"X\",\"metadata\":{\"name\":\"a\"}}\n");
        let want = &b"{\"kind\":\"X\",\"apiVersion\":\"g/v1\",\"metadata\":{\"name\":\"a\"}}"[..];
        assert_eq!(to_stored("/registry/g/xs/a", &custom).unwrap().unwrap(), want);
        // Claims and encrypted values are no objects.
        assert_eq!(to_stored("/registry/skiff/nodeports/TCP/1", &Bytes::from_static(b"{\"name\":\"a\"}")).unwrap(), None);
        assert_eq!(to_stored("/registry/secrets/a/b", &Bytes::from_static(b"k8s:enc:aescbc:v1:k:...")).unwrap(), None);
    }

    #[test]
    fn unknown_kinds_and_damaged_values_are_named() {
        let unknown = Bytes::from(machinery::proto::seal("g.io/v1", "Nothing", b""));
        let error = to_stored("/registry/g.io/nothings/a", &unknown).unwrap_err().to_string();
        assert!(
            error.contains("/registry/g.io/nothings/a") && error.contains("no kind \"Nothing\" is registered for version \"g.io/v1\""),
            "{error}"
        );
        assert!(to_stored("/registry/pods/a/b", &Bytes::from_static(b"k8s\0\xff\xff")).is_err());
    }
}
