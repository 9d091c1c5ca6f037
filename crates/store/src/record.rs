//! What a frame's payload says: the engine's time and a list of records. `log` and `snapshot` write and read it; `state`
//! applies the records.

use std::sync::Arc;

use bytes::Bytes;

use crate::frame::{u32_at, u64_at};
use crate::{Key, KeyValue, Revision};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// `deadline_ms`: of the key's lease in engine time; 0: none.
    Put {
        item: Arc<KeyValue>,
        deadline_ms: u64,
    },
    Delete {
        key: Key,
        revision: Revision,
    },
    Compact {
        revision: Revision,
    },
    /// In snapshots only, first: the state the following records build on.
    Begin {
        compacted: Revision,
        revision: Revision,
    },
    /// In snapshots only: a key as it was at the compacted revision.
    Base {
        item: Arc<KeyValue>,
    },
    /// In snapshots only: a key's lease.
    Lease {
        key: Key,
        deadline_ms: u64,
    },
    /// In snapshots only, last: how many records came before.
    End {
        records: u64,
    },
}

/// Starts a payload.
pub(crate) fn begin(out: &mut Vec<u8>, now_ms: u64) {
    out.extend_from_slice(&now_ms.to_le_bytes());
}

/// Whether a payload holds only the time.
pub(crate) fn is_empty(payload: &[u8]) -> bool {
    payload.len() <= 8
}

impl Record {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Put { item, deadline_ms } => {
                out.push(1);
                put_u64s(out, &[item.mod_revision.0, item.create_revision.0, *deadline_ms]);
                put_bytes(out, item.key.as_bytes());
                put_bytes(out, &item.value);
            }
            Record::Delete { key, revision } => {
                out.push(2);
                put_u64s(out, &[revision.0]);
                put_bytes(out, key.as_bytes());
            }
            Record::Compact { revision } => {
                out.push(3);
                put_u64s(out, &[revision.0]);
            }
            Record::Begin { compacted, revision } => {
                out.push(4);
                put_u64s(out, &[compacted.0, revision.0]);
            }
            Record::Base { item } => {
                out.push(5);
                put_u64s(out, &[item.mod_revision.0, item.create_revision.0]);
                put_bytes(out, item.key.as_bytes());
                put_bytes(out, &item.value);
            }
            Record::Lease { key, deadline_ms } => {
                out.push(6);
                put_u64s(out, &[*deadline_ms]);
                put_bytes(out, key.as_bytes());
            }
            Record::End { records } => {
                out.push(7);
                put_u64s(out, &[*records]);
            }
        }
    }

    /// An upper bound of the encoded size.
    pub(crate) fn bytes(&self) -> usize {
        48 + match self {
            Record::Put { item, .. } | Record::Base { item } => item.key.len() + item.value.len(),
            Record::Delete { key, .. } | Record::Lease { key, .. } => key.len(),
            _ => 0,
        }
    }
}

/// A payload's time and records; `None`: it is not well-formed.
pub(crate) fn decode(payload: &[u8]) -> Option<(u64, Vec<Record>)> {
    let mut reader = Reader { rest: payload };
    let now_ms = reader.u64()?;
    let mut records = Vec::new();
    while !reader.rest.is_empty() {
        records.push(reader.record()?);
    }
    Some((now_ms, records))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn record(&mut self) -> Option<Record> {
        let kind = self.take(1)?[0];
        Some(match kind {
            1 => {
                let (mod_revision, create_revision) = (self.revision()?, self.revision()?);
                let deadline_ms = self.u64()?;
                Record::Put { item: self.item(mod_revision, create_revision)?, deadline_ms }
            }
            2 => {
                let revision = self.revision()?;
                Record::Delete { key: self.key()?, revision }
            }
            3 => Record::Compact { revision: self.revision()? },
            4 => Record::Begin { compacted: self.revision()?, revision: self.revision()? },
            5 => {
                let (mod_revision, create_revision) = (self.revision()?, self.revision()?);
                Record::Base { item: self.item(mod_revision, create_revision)? }
            }
            6 => {
                let deadline_ms = self.u64()?;
                Record::Lease { key: self.key()?, deadline_ms }
            }
            7 => Record::End { records: self.u64()? },
            _ => return None,
        })
    }

    fn item(&mut self, mod_revision: Revision, create_revision: Revision) -> Option<Arc<KeyValue>> {
        let key = self.key()?;
        let value = Bytes::copy_from_slice(self.bytes()?);
        Some(Arc::new(KeyValue { key, value, mod_revision, create_revision }))
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(head)
    }

    fn u64(&mut self) -> Option<u64> {
        u64_at(self.take(8)?, 0)
    }

    fn revision(&mut self) -> Option<Revision> {
        self.u64().map(Revision)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = u32_at(self.take(4)?, 0)?;
        self.take(usize::try_from(n).ok()?)
    }

    fn key(&mut self) -> Option<Key> {
        std::str::from_utf8(self.bytes()?).ok().map(Arc::from)
    }
}

fn put_u64s(out: &mut Vec<u8>, numbers: &[u64]) {
    for n in numbers {
        out.extend_from_slice(&n.to_le_bytes());
    }
}

/// Sizes are bounded where values enter the store, far below 4 GiB.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_a_cut_payload_is_refused() {
        let item = Arc::new(KeyValue {
            key: Arc::from("/a/b"),
            value: Bytes::from_static(b"value"),
            mod_revision: Revision(7),
            create_revision: Revision(5),
        });
        let records = vec![
            Record::Put { item: item.clone(), deadline_ms: 99 },
            Record::Delete { key: Arc::from("/a"), revision: Revision(8) },
            Record::Compact { revision: Revision(3) },
            Record::Begin { compacted: Revision(1), revision: Revision(2) },
            Record::Base { item },
            Record::Lease { key: Arc::from("/é"), deadline_ms: 5 },
            Record::End { records: 6 },
        ];
        let mut payload = Vec::new();
        begin(&mut payload, 42);
        let mut ends = vec![payload.len()];
        for record in &records {
            let before = payload.len();
            record.encode(&mut payload);
            assert!(payload.len() - before <= record.bytes());
            ends.push(payload.len());
        }
        assert_eq!(decode(&payload).unwrap(), (42, records));
        for cut in 0..payload.len() {
            assert_eq!(decode(&payload[..cut]).is_some(), ends.contains(&cut), "cut at {cut}");
        }
    }
}
