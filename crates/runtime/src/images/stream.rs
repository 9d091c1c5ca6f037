//! Reading layers: decompression, digests and limits, as layers of `Read`.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use sha2::{Digest, Sha256};

use crate::config::ImageLimits;

/// Below this many unpacked bytes the ratio is not looked at.
const RATIO_FROM_BYTES: u64 = 64 << 20;

/// `sha256:HEX` of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Hashes and counts what passes.
pub struct Hashing<R> {
    inner: R,
    hash: Sha256,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Hashing<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), count: Rc::default() }
    }

    /// Reads the rest and returns `sha256:HEX` of everything.
    pub fn finish(&mut self) -> io::Result<String> {
        io::copy(self, &mut io::sink())?;
        Ok(format!("sha256:{}", hex::encode(self.hash.clone().finalize())))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// Fails with `FileTooLarge` when more comes out than may.
struct Limited<R> {
    inner: R,
    count: u64,
    packed: Rc<Cell<u64>>,
    limits: ImageLimits,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        let too_large = |text: String| Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        if self.count > self.limits.layer_bytes_max {
            return too_large(format!("a layer has more than {} bytes", self.limits.layer_bytes_max));
        }
        if self.count > RATIO_FROM_BYTES && self.count / self.limits.ratio_max.max(1) > self.packed.get() {
            return too_large(format!("a layer unpacks to more than {} times its size", self.limits.ratio_max));
        }
        Ok(count)
    }
}

/// A stream unpacked by what its first bytes say, within the limits. Boxed, because the format is known at run time.
pub fn decompress<'a, R: Read + 'a>(packed: &'a mut Hashing<R>, limits: &ImageLimits) -> io::Result<Box<dyn Read + 'a>> {
    let count = Rc::clone(&packed.count);
    let mut buffered = BufReader::with_capacity(64 * 1024, packed);
    let magic = buffered.fill_buf()?;
    let limited = |inner: Box<dyn Read + 'a>| Box::new(Limited { inner, count: 0, packed: count, limits: limits.clone() });
    if magic.starts_with(&[0x1f, 0x8b]) {
        Ok(limited(Box::new(flate2::bufread::MultiGzDecoder::new(buffered))))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = ruzstd::decoding::StreamingDecoder::new(buffered).map_err(io::Error::other)?;
        Ok(limited(Box::new(decoder)))
    } else {
        Ok(limited(Box::new(buffered)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_stopped() {
        let packed = gzip(&vec![0; 80 << 20]);
        let limits = ImageLimits { ratio_max: 100, ..Default::default() };
        let mut hashing = Hashing::new(packed.as_slice());
        let error = io::copy(&mut decompress(&mut hashing, &limits).unwrap(), &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn plain_and_gzip_are_told_apart() {
        for packed in [b"hello".to_vec(), gzip(b"hello")] {
            let mut hashing = Hashing::new(packed.as_slice());
            let mut out = String::new();
            decompress(&mut hashing, &ImageLimits::default()).unwrap().read_to_string(&mut out).unwrap();
            assert_eq!(out, "hello");
            assert_eq!(hashing.finish().unwrap(), digest(&packed));
        }
    }
}
