//! Keys: ours begin with `/registry`, etcd's with what `--etcd-prefix` says.

use bytes::Bytes;
use store::{Error, Key, Result};

const ROOT: &str = "/registry";

#[derive(Clone, Debug)]
pub struct Keys {
    /// Without a slash at its end; `None`: as ours.
    prefix: Option<String>,
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        let clean = format!("/{}", prefix.split('/').filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/"));
        let prefix = match clean.as_str() {
            ROOT => None,
            "/" => Some(String::new()),
            _ => Some(clean),
        };
        Self { prefix }
    }

    /// As etcd has it.
    pub fn outer(&self, key: &str) -> Bytes {
        match (&self.prefix, key.strip_prefix(ROOT)) {
            (Some(prefix), Some(rest)) => format!("{prefix}{rest}").into(),
            _ => Bytes::copy_from_slice(key.as_bytes()),
        }
    }

    /// As we have it.
    pub fn inner(&self, key: &[u8]) -> Result<Key> {
        let text = std::str::from_utf8(key).map_err(|_| Error::Transform {
            key: String::from_utf8_lossy(key).into_owned(),
            why: "the key is no text; remove it with etcdctl".into(),
        })?;
        Ok(match self.prefix.as_deref().and_then(|prefix| text.strip_prefix(prefix)) {
            Some(rest) => format!("{ROOT}{rest}").into(),
            None => text.into(),
        })
    }
}

/// The end of the range of all keys with a prefix.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    // All keys.
    Bytes::from_static(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_move_under_the_prefix_and_back() {
        for (prefix, outer) in [
            ("/registry", "/registry/pods/a/b"),
            ("registry/", "/registry/pods/a/b"),
            ("/clusters/one/", "/clusters/one/pods/a/b"),
            ("/", "/pods/a/b"),
        ] {
            let keys = Keys::new(prefix);
            assert_eq!(keys.outer("/registry/pods/a/b"), outer, "{prefix}");
            assert_eq!(&*keys.inner(outer.as_bytes()).unwrap(), "/registry/pods/a/b", "{prefix}");
        }
        assert!(Keys::new("/registry").inner(b"/registry/\xff").is_err());
    }

    #[test]
    fn ranges_end_after_the_last_key_of_the_prefix() {
        assert_eq!(prefix_end(b"/a/"), &b"/a0"[..]);
        assert_eq!(prefix_end(b"a\xff"), &b"b"[..]);
        assert_eq!(prefix_end(b"\xff"), &b"\0"[..]);
    }
}
