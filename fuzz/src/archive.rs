//! Tar archives out of fuzzed bytes, for the targets of layers and images: chance finds no checksums and no digests.

use sha2::{Digest, Sha256};

/// Entries: a type, a name, a link and contents, each text after its length. `@0` to `@9` in a name or in contents become the
/// SHA-256 of that entry's contents, if it came before.
pub fn tar(mut bytes: &[u8]) -> Vec<u8> {
    const TYPES: &[u8] = b"0012345671SLxg05";
    let mut out = Vec::new();
    let mut digests: Vec<String> = Vec::new();
    while let Some((kind, rest)) = bytes.split_first() {
        bytes = rest;
        let name = named(&text(&mut bytes, 1), &digests);
        let link = text(&mut bytes, 1);
        let contents = named(&text(&mut bytes, 2), &digests);
        digests.push(hex::encode(Sha256::digest(&contents)));
        let mut header = tar::Header::new_gnu();
        let raw = header.as_old_mut();
        let size = name.len().min(100);
        raw.name[..size].copy_from_slice(&name[..size]);
        let size = link.len().min(100);
        raw.linkname[..size].copy_from_slice(&link[..size]);
        raw.linkflag[0] = TYPES[usize::from(*kind) % TYPES.len()];
        header.set_mode(u32::from(*kind) << 4 | 0o500);
        header.set_uid(u64::from(kind >> 6));
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(contents.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&contents);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn text(bytes: &mut &[u8], size_bytes: usize) -> Vec<u8> {
    let (head, rest) = bytes.split_at(size_bytes.min(bytes.len()));
    let length = head.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
    let (found, rest) = rest.split_at(length.min(rest.len()));
    *bytes = rest;
    found.to_vec()
}

fn named(text: &[u8], digests: &[String]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let digit = (text[at] == b'@').then(|| text.get(at + 1)).flatten().filter(|d| d.is_ascii_digit());
        match digit.and_then(|d| digests.get(usize::from(d - b'0'))) {
            Some(digest) => {
                out.extend_from_slice(digest.as_bytes());
                at += 2;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}
