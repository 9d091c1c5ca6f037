//! One object as the cache holds it: the stored bytes, what selectors ask of it, and other encodings made on demand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use store::{Key, KeyValue, Revision};

use super::splice;

/// Other encodings of an entry are kept up to this size in all; beyond, they are made anew each time.
const ENCODINGS_BYTES_MAX: usize = 64 << 10;
/// And those of all entries together up to this.
const ALL_ENCODINGS_BYTES_MAX: usize = 32 << 20;

static ALL_ENCODINGS_BYTES: AtomicUsize = AtomicUsize::new(0);

/// What selectors can ask of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// By position; whoever extracts and whoever selects agree on what is where. Empty: not set.
    pub fields: Vec<Box<str>>,
}

impl Attributes {
    pub fn label(&self, name: &str) -> Option<&str> {
        find(&self.labels, name)
    }

    pub fn field(&self, position: usize) -> &str {
        self.fields.get(position).map_or("", |v| v)
    }
}

impl machinery::labels::Labels for Attributes {
    fn value(&self, key: &str) -> Option<&str> {
        self.label(key)
    }
}

fn find<'a>(pairs: &'a [(Box<str>, Box<str>)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| &**key == name).map(|(_, value)| &**value)
}

type Read = dyn Fn(&[u8]) -> Attributes + Send + Sync;

/// How attributes are read.
#[derive(Clone)]
pub struct Extract {
    /// From the stored bytes. Must not fail: bytes that make no sense have none.
    pub read: Arc<Read>,
    /// The position of the field that lists and watches often ask for one value of.
    pub index: Option<usize>,
    /// Brings what is stored into the form the cache is to hold, in the same order; `None` where it is that already.
    pub serve: Option<Serve>,
}

pub type Serve = Arc<dyn Fn(Vec<KeyValue>) -> BoxFuture<'static, Result<Vec<KeyValue>, String>> + Send + Sync>;

/// Names another encoding of an object (protobuf, a table row, metadata only, another version). The caller gives out the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding(pub u32);

/// One version of one object.
#[derive(Debug)]
pub struct Entry {
    pub key: Key,
    /// Of the write that made it.
    pub revision: Revision,
    /// As stored: without a resourceVersion.
    pub bytes: Bytes,
    pub attributes: Attributes,
    insertion_point: Option<usize>,
    encodings: Mutex<Vec<(Encoding, Bytes)>>,
}

impl Entry {
    pub(crate) fn new(item: &KeyValue, extract: &Extract) -> Arc<Self> {
        Arc::new(Entry {
            key: item.key.clone(),
            revision: item.mod_revision,
            bytes: item.value.clone(),
            attributes: (extract.read)(&item.value),
            insertion_point: splice::insertion_point(&item.value),
            encodings: Mutex::new(Vec::new()),
        })
    }

    /// The last part of the key.
    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    /// The last but one part of the key; meaningless where objects have no namespace.
    pub fn namespace(&self) -> &str {
        self.key.rsplit('/').nth(1).unwrap_or_default()
    }

    /// The JSON with its own resourceVersion.
    pub fn json(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes.len() + 48);
        self.append_json(&mut out, self.revision);
        out.freeze()
    }

    /// Appends the JSON with this resourceVersion (a deletion's is not the object's own).
    pub fn append_json(&self, out: &mut BytesMut, revision: Revision) {
        splice::append(out, &self.bytes, self.insertion_point, revision);
    }

    /// Appends the JSON as an item of a list, which carries no kind and apiVersion.
    pub fn append_item_json(&self, out: &mut BytesMut) {
        splice::append_item(out, &self.bytes, self.insertion_point, self.revision);
    }

    /// Appends the metadata alone, as a JSON object with this resourceVersion.
    pub fn append_metadata_json(&self, out: &mut BytesMut, revision: Revision) {
        splice::append_metadata(out, &self.bytes, self.insertion_point, revision);
    }

    /// Another encoding: the kept one, or one made now.
    pub fn encoding(&self, encoding: Encoding, make: impl FnOnce(&Entry) -> Bytes) -> Bytes {
        let kept = |all: &[(Encoding, Bytes)]| all.iter().find(|(e, _)| *e == encoding).map(|(_, b)| b.clone());
        if let Some(bytes) = kept(&self.lock_encodings()) {
            return bytes;
        }
        let bytes = make(self);
        let mut all = self.lock_encodings();
        let size: usize = all.iter().map(|(_, b)| b.len()).sum();
        let everywhere = ALL_ENCODINGS_BYTES.load(Ordering::Relaxed);
        let room = size + bytes.len() <= ENCODINGS_BYTES_MAX && everywhere + bytes.len() <= ALL_ENCODINGS_BYTES_MAX;
        if room && kept(&all).is_none() {
            ALL_ENCODINGS_BYTES.fetch_add(bytes.len(), Ordering::Relaxed);
            all.push((encoding, bytes.clone()));
        }
        bytes
    }

    /// The revision the entry was written at is the one to show.
    pub fn is_of(&self, revision: Revision) -> bool {
        self.revision == revision
    }

    fn lock_encodings(&self) -> std::sync::MutexGuard<'_, Vec<(Encoding, Bytes)>> {
        self.encodings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let encodings = self.encodings.get_mut().unwrap_or_else(PoisonError::into_inner);
        let size: usize = encodings.iter().map(|(_, b)| b.len()).sum();
        ALL_ENCODINGS_BYTES.fetch_sub(size, Ordering::Relaxed);
    }
}
