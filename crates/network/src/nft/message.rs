//! Netlink messages and attributes: the writer and the reader. Knows nothing of what they mean.

/// A growing run of netlink messages.
#[derive(Default)]
pub(super) struct Writer {
    pub bytes: Vec<u8>,
    sequence: u32,
    open: Option<usize>,
}

pub(super) const REQUEST: u16 = 1;
pub(super) const ACK: u16 = 4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;
const HEADER_BYTES: usize = 16;
const NFGEN_BYTES: usize = 4;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;

impl Writer {
    /// Begin a message, ending the one before. `resource` is the subsystem in a batch's begin and end, else 0.
    pub(super) fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        self.finish();
        self.open = Some(self.bytes.len());
        self.sequence += 1;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
    }

    /// Fill in the length of the open message.
    pub(super) fn finish(&mut self) {
        if let Some(at) = self.open.take() {
            let len = (self.bytes.len() - at) as u32;
            self.bytes[at..at + 4].copy_from_slice(&len.to_ne_bytes());
        }
    }

    pub(super) fn attr(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn str(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes);
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// An attribute of attributes. It must stay below 64 KiB.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.attr(kind | NESTED, &[]);
        fill(self);
        let len = self.bytes.len() - at;
        debug_assert!(len <= usize::from(u16::MAX), "a nest of {len} bytes");
        self.bytes[at..at + 2].copy_from_slice(&(len as u16).to_ne_bytes());
    }
}

/// One received message without its headers.
pub(super) struct Message<'a> {
    kind: u16,
    /// After the netfilter header; of an error or the end of a dump, after the netlink header.
    pub body: &'a [u8],
}

impl Message<'_> {
    pub(super) fn is_done(&self) -> bool {
        self.kind == MESSAGE_DONE
    }

    /// Of an error or acknowledgement the code, 0 meaning success.
    pub(super) fn error(&self) -> Option<i32> {
        let code = self.body.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
        (self.kind == MESSAGE_ERROR).then(|| code.unwrap_or(0).wrapping_neg())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16_at(bytes, 4)?;
        let message = bytes.get(..len).filter(|_| len >= HEADER_BYTES)?;
        let skip = if kind <= MESSAGE_DONE { HEADER_BYTES } else { HEADER_BYTES + NFGEN_BYTES };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body: message.get(skip..).unwrap_or_default() })
    })
}

/// The attributes of a message or nest, without flag bits. Stops at the first malformed one.
pub(super) fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attrs(bytes).find(|(k, _)| *k == kind).map(|(_, v)| v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut w = Writer::default();
        w.message(0x0a00, ACK, 2, 0);
        w.str(1, "abc");
        w.nest(2, |w| w.u32(7, 0x0102_0304));
        w.message(0x0a01, 0, 2, 0);
        w.finish();
        let all: Vec<_> = messages(&w.bytes).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(find(all[0].body, 1), Some(&b"abc\0"[..]));
        let nest = find(all[0].body, 2).unwrap_or_default();
        assert_eq!(attrs(nest).collect::<Vec<_>>(), vec![(7, &[1, 2, 3, 4][..])]);
    }

    #[test]
    fn hostile_lengths_end_the_walk() {
        for bytes in [&[0u8; 3][..], &[0; 4], &[255; 8], &[3, 0, 1, 0], &[200, 0, 1, 0, 1, 1]] {
            assert_eq!(attrs(bytes).take(10).filter(|(_, v)| !v.is_empty()).count(), 0, "{bytes:?}");
            assert_eq!(messages(bytes).take(10).count(), 0);
        }
    }
}
