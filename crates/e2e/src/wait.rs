//! Waiting for what takes time, with the last reason in the failure.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Tries until it works, for half a minute.
pub fn eventually<T>(what: &str, attempt: impl FnMut() -> Result<T>) -> Result<T> {
    eventually_within(Duration::from_secs(30), what, attempt)
}

/// Tries until it works, for so long.
pub fn eventually_within<T>(time: Duration, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let until = Instant::now() + time;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= until => bail!("{what}: not after {time:?}: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
