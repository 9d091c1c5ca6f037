//! Kernel settings under /proc/sys/net, which are those of the network namespace of the thread that opens them.

use std::io;
use std::path::PathBuf;

use crate::{Error, NetNs, Result};

/// Set `net.<name>` unless it has the value already (so that a read-only /proc/sys with the right value is fine).
/// A setting the kernel does not have (IPv6 switched off) is left alone.
pub(crate) fn set(netns: &NetNs, settings: &[(String, &'static str)]) -> Result<()> {
    netns.run(|| settings.iter().try_for_each(|(name, value)| set_here(name, value)))?
}

fn set_here(name: &str, value: &str) -> Result<()> {
    let path: PathBuf = ["/proc/sys/net", name].iter().collect();
    match std::fs::read_to_string(&path) {
        Ok(now) if now.trim() == value => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    std::fs::write(&path, value).map_err(|e| Error::file("write", path, e))
}
