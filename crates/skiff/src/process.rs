//! Processes by identity: a pid alone may since belong to somebody else.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process, told apart from later ones of the same pid by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks after boot.
    pub started_ticks: u64,
}

/// Field 22 of `/proc/PID/stat`; the name in field 2 may hold anything, so count from behind it.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

impl Identity {
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, started_ticks: stat(pid)?.1 })
    }

    pub fn own() -> Result<Self> {
        let pid = i32::try_from(std::process::id()).context("a pid fits")?;
        Self::of(pid).context("reading /proc/self/stat")
    }

    /// It still runs, and is no zombie.
    pub fn alive(&self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| started == self.started_ticks && state != 'Z')
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.alive() {
            kill(Pid::from_raw(self.pid), signal).with_context(|| format!("sending {signal} to process {}", self.pid))?;
        }
        Ok(())
    }

    /// Waits until it is gone; says whether it is.
    pub fn wait_gone(&self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        while self.alive() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

/// Memory that a process would give back if it ended, in KiB: its share of pages shared with others counted in part.
pub fn pss_kib(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|l| l.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok())
}

/// Every process whose executable is this file, also where the file has been replaced since.
pub fn running(executable: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let is_ours = |pid: &i32| {
        let link = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        link.to_string_lossy().trim_end_matches(" (deleted)") == executable.to_string_lossy()
    };
    entries.flatten().filter_map(|e| e.file_name().to_string_lossy().parse().ok()).filter(is_ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_pid_and_start() {
        let own = Identity::own().unwrap();
        assert!(own.alive());
        let other = Identity { started_ticks: own.started_ticks + 1, ..own };
        assert!(!other.alive());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(identity.alive() && !identity.wait_gone(Duration::from_millis(20)));
        identity.signal(Signal::SIGKILL).unwrap();
        assert!(identity.wait_gone(Duration::from_secs(5)));
        child.wait().unwrap();
        assert!(!identity.alive());
    }
}
