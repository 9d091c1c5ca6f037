//! `skiff doctor`: what this machine lacks, in words.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use nix::unistd::geteuid;

/// What keeps a cluster from running here, one line each; empty where nothing does.
pub fn lacking() -> Vec<String> {
    let mut out = Vec::new();
    if !geteuid().is_root() {
        out.push("  - root: containers need namespaces, mounts and network links; run it with sudo".to_owned());
        return out;
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|l| l.split_whitespace().last() == Some("overlay")) {
        out.push("  - overlayfs in the kernel: try `modprobe overlay`".to_owned());
    }
    for (namespace, what) in [("net", "network"), ("pid", "process"), ("ipc", "IPC"), ("uts", "host name"), ("mnt", "mount")] {
        if !Path::new("/proc/self/ns").join(namespace).exists() {
            out.push(format!("  - {what} namespaces in the kernel"));
        }
    }
    let cgroups = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if !cgroups.lines().any(|l| l.contains(" - cgroup")) {
        out.push("  - control groups: mount them, for example with `mount -t cgroup2 none /sys/fs/cgroup`".to_owned());
    }
    out
}

pub fn run() -> Result<()> {
    let lacking = lacking();
    if lacking.is_empty() {
        println!("This machine has all that a cluster needs.");
        return Ok(());
    }
    bail!("this machine lacks:\n{}", lacking.join("\n"))
}
