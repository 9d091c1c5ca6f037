//! Frames: the checksummed units of which log segments and snapshots consist. Knows no records; `log` and `snapshot` use it.
//!
//! A frame is `magic, sequence, length, payload checksum, header checksum, payload`. The header checksum is seeded with the
//! file's salt, so that bytes inside a value can never pass for a frame.

pub(crate) const HEADER_BYTES: usize = 28;
/// No frame is longer; a longer length is damage.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 96 << 20;
const MAGIC: u32 = 0x6b66_6672;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub sequence: u64,
    pub payload_bytes: usize,
    payload_crc: u32,
}

/// Appends one frame to `out`.
pub(crate) fn encode(out: &mut Vec<u8>, salt: u64, sequence: u64, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let crc = header_crc(salt, &out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(payload);
}

/// Reads a header at the start of `bytes`; `None`: there is no valid one.
pub(crate) fn header(bytes: &[u8], salt: u64) -> Option<Header> {
    let head = bytes.get(..HEADER_BYTES)?;
    if u32_at(head, 0)? != MAGIC || u32_at(head, 24)? != header_crc(salt, &head[..24]) {
        return None;
    }
    let payload_bytes = usize::try_from(u64_at(head, 12)?).ok().filter(|n| *n <= PAYLOAD_BYTES_MAX)?;
    Some(Header { sequence: u64_at(head, 4)?, payload_bytes, payload_crc: u32_at(head, 20)? })
}

impl Header {
    pub(crate) fn matches(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes && crc32fast::hash(payload) == self.payload_crc
    }
}

/// Whether anywhere in `bytes` a header with a sequence above `sequence` begins.
pub(crate) fn any_later(bytes: &[u8], salt: u64, sequence: u64) -> bool {
    let magic = MAGIC.to_le_bytes();
    (0..bytes.len().saturating_sub(HEADER_BYTES - 1))
        .filter(|at| bytes[*at] == magic[0] && bytes[*at..].starts_with(&magic))
        .any(|at| header(&bytes[at..], salt).is_some_and(|h| h.sequence > sequence))
}

fn header_crc(salt: u64, head: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(head);
    crc.finalize()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_and_every_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 7, 3, b"payload");
        let head = header(&bytes, 7).unwrap();
        assert_eq!((head.sequence, head.payload_bytes), (3, 7));
        assert!(head.matches(&bytes[HEADER_BYTES..]));
        assert_eq!(header(&bytes, 8), None, "another file's salt");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let ok = header(&flipped, 7).is_some_and(|h| h.matches(&flipped[HEADER_BYTES..]));
            assert!(!ok, "bit {bit}");
        }
    }

    #[test]
    fn a_later_frame_is_found_behind_rubbish() {
        let mut bytes = vec![0x72; 50];
        encode(&mut bytes, 7, 9, b"x");
        assert!(any_later(&bytes, 7, 8));
        assert!(!any_later(&bytes, 7, 9));
        assert!(!any_later(&bytes, 6, 8));
    }
}
