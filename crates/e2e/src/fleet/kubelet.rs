//! Real kubelets on a fleet's machines, with the embedded runtime and pod network. Pods outlive their kubelet, so what is left of
//! them is removed with the fleet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use nix::mount::MntFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Fleet;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Names cgroups of a process's fleets, which no other has.
fn instance() -> String {
    format!("fleet{}", std::process::id())
}

impl Fleet {
    /// Where a machine's kubelet keeps what it has.
    pub fn kubelet_dir(&self, at: usize) -> PathBuf {
        self.dir().join(format!("kubelet{at}"))
    }

    /// Starts a machine's kubelet, `kubelet`, as a node of this name.
    pub fn run_kubelet(&mut self, at: usize, node: &str, kubeconfig: &Path, more: impl FnOnce(&mut Command)) -> Result<()> {
        let dir = self.kubelet_dir(at);
        let mut command = Command::new(crate::skiff());
        command.args(["kubelet", "--hostname-override", node, "--node-ip", &Self::address(at), "--instance", &instance()]);
        command.arg("--kubeconfig").arg(kubeconfig);
        command.arg("--root-dir").arg(&dir).arg("--run-dir").arg(dir.join("run"));
        more(&mut command);
        self.spawn(at, "kubelet", &mut command)
    }
}

/// Ends what pods have left of themselves: their shims, their mounts and their cgroups. Nothing, where all were deleted.
pub(super) fn clean(dir: &Path) {
    let here = dir.to_string_lossy();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_string_lossy().parse::<i32>().ok());
    let ours = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*here));
    for pid in pids.filter(ours) {
        eprintln!("a process of a kubelet is left: {pid}: {:?}", kill(Pid::from_raw(pid), Signal::SIGKILL));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|place| Path::new(place).starts_with(dir));
    for place in places.collect::<Vec<_>>().into_iter().rev() {
        eprintln!("a mount of a kubelet is left: {place}: {:?}", nix::mount::umount2(place, MntFlags::MNT_DETACH));
    }
    let prefix = format!("skiff-{}-", instance());
    let controllers = fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|e| e.path());
    for root in controllers.chain([PathBuf::from(CGROUPS)]) {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                remove_cgroup(&entry.path());
            }
        }
    }
}

/// From below: a cgroup with others in it is not removed.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(path) {
        eprintln!("a cgroup of a kubelet is left: {}: {error}", path.display());
    }
}
