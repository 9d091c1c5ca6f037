//! Pieces of the ring as some watcher has already written them out: the next one at the same place sends the same bytes.
//! Watchers are woken together, so that of a thousand one encodes and 999 find it here. Kept by `core` under its lock.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use store::Revision;

/// A few forms and namespaces, and some watchers that are a round late.
const SPANS_MAX: usize = 16;
const BYTES_MAX: usize = 4 << 20;

/// How events are written out. Two watchers of a cache with the same form and prefix, and no filter, see the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Metadata,
    Protobuf,
}

/// Events written out, one after the other.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub bytes: Bytes,
    pub events: u32,
}

/// From which change to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub first: Revision,
    pub last: Revision,
}

struct Span {
    place: Place,
    form: Form,
    prefix: Arc<str>,
    encoded: Encoded,
    fresh: bool,
}

#[derive(Default)]
pub(super) struct Spans(VecDeque<Span>);

impl Spans {
    pub(super) fn get(&self, place: Place, form: Form, prefix: &str) -> Option<Encoded> {
        let known = self.0.iter().rev().find(|s| s.place == place && s.form == form && *s.prefix == *prefix);
        known.map(|s| s.encoded.clone())
    }

    pub(super) fn put(&mut self, place: Place, form: Form, prefix: &Arc<str>, encoded: &Encoded) {
        if encoded.bytes.len() > BYTES_MAX / 4 || self.get(place, form, prefix).is_some() {
            return;
        }
        self.0.push_back(Span { place, form, prefix: prefix.clone(), encoded: encoded.clone(), fresh: true });
        let mut bytes: usize = self.0.iter().map(|s| s.encoded.bytes.len()).sum();
        while self.0.len() > SPANS_MAX || bytes > BYTES_MAX {
            let Some(gone) = self.0.pop_front() else { break };
            bytes -= gone.encoded.bytes.len();
        }
    }

    /// New changes: what nobody has asked for since the last ones is not worth its memory.
    pub(super) fn begin(&mut self) {
        self.0.retain_mut(|s| std::mem::take(&mut s.fresh));
    }
}
