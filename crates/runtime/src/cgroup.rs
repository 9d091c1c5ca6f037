//! Control groups, version 1 and 2 alike: a group is the same path in every mounted hierarchy.
//!
//! Used by shims (joining), by the daemon (limits, statistics, killing) and by teardown.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::shim::protocol::{DeviceSpec, Resources};

mod limits;
mod stats;

pub use stats::Usage;

/// The mounted hierarchies of this host.
#[derive(Clone, Debug, Default)]
pub struct Hierarchies {
    /// Version 1: controller name and mount point; a mount point may serve several controllers.
    v1: Vec<(String, PathBuf)>,
    /// Version 2; on a hybrid host it carries no controllers but still tracks processes.
    unified: Option<PathBuf>,
}

const CONTROLLERS: [&str; 9] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "hugetlb", "blkio"];

impl Hierarchies {
    /// Those of `/proc/self/mountinfo`, read once.
    pub fn get() -> &'static Self {
        static FOUND: OnceLock<Hierarchies> = OnceLock::new();
        FOUND.get_or_init(|| Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((head, tail)) = line.split_once(" - ") else { continue };
            let (Some(point), mut tail) = (head.split(' ').nth(4), tail.split(' ')) else { continue };
            match tail.next() {
                Some("cgroup2") if found.unified.is_none() => found.unified = Some(PathBuf::from(point)),
                Some("cgroup") => {
                    let options = tail.nth(1).unwrap_or_default();
                    for option in options.split(',').filter(|o| CONTROLLERS.contains(o)) {
                        if found.v1(option).is_none() {
                            found.v1.push((option.to_owned(), PathBuf::from(point)));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    fn v1(&self, controller: &str) -> Option<&Path> {
        self.v1.iter().find(|(name, _)| name == controller).map(|(_, path)| path.as_path())
    }

    fn roots(&self) -> impl Iterator<Item = &Path> {
        let mut seen: Vec<&Path> = Vec::new();
        for (_, path) in &self.v1 {
            if !seen.contains(&path.as_path()) {
                seen.push(path);
            }
        }
        seen.into_iter().chain(self.unified.as_deref())
    }

    /// Whether the memory controller is on version 2.
    pub fn is_v2(&self) -> bool {
        self.v1.is_empty()
    }

    /// The version 1 hierarchies a container sees: the name under `/sys/fs/cgroup`, and the controllers to mount.
    pub fn v1_mounts(&self) -> Vec<(String, Vec<&str>)> {
        let mut mounts: Vec<(&Path, Vec<&str>)> = Vec::new();
        for (controller, root) in &self.v1 {
            match mounts.iter_mut().find(|(known, _)| known == root) {
                Some((_, controllers)) => controllers.push(controller),
                None => mounts.push((root, vec![controller])),
            }
        }
        mounts.into_iter().map(|(_, controllers)| (controllers.join(","), controllers)).collect()
    }
}

/// One group, by its absolute path inside the hierarchies.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: String,
}

impl Cgroup {
    /// `path` is absolute and has no `..`.
    pub fn new(path: impl Into<String>) -> io::Result<Self> {
        let path = path.into();
        let sound = path.starts_with('/') && path.len() > 1 && !path.split('/').any(|part| part == ".." || part == ".");
        if sound { Ok(Self { path }) } else { Err(io::Error::other(format!("{path:?} is no absolute cgroup path"))) }
    }

    fn dir(&self, root: &Path) -> PathBuf {
        root.join(self.path.trim_start_matches('/'))
    }

    fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        Hierarchies::get().roots().map(|root| self.dir(root))
    }

    /// The directory that holds `controller`'s files.
    fn controller(&self, controller: &str) -> Option<PathBuf> {
        let hierarchies = Hierarchies::get();
        match hierarchies.v1(controller) {
            Some(root) => Some(self.dir(root)),
            None if hierarchies.is_v2() => hierarchies.unified.as_deref().map(|root| self.dir(root)),
            None => None,
        }
    }

    /// Makes the group and its parents in every hierarchy, with all controllers enabled on version 2.
    pub fn create(&self) -> io::Result<()> {
        let hierarchies = Hierarchies::get();
        for root in hierarchies.roots() {
            fs::create_dir_all(self.dir(root))?;
        }
        if let Some(cpuset) = hierarchies.v1("cpuset") {
            inherit_cpuset(cpuset, &self.path)?;
        }
        if let (true, Some(root)) = (hierarchies.is_v2(), &hierarchies.unified) {
            enable_controllers(root, &self.path);
        }
        Ok(())
    }

    /// Moves a process into the group; 0 is the caller.
    pub fn join(&self, pid: i32) -> io::Result<()> {
        for dir in self.dirs() {
            fs::write(dir.join("cgroup.procs"), pid.to_string())
                .map_err(|e| io::Error::new(e.kind(), format!("join cgroup {}: {e}", dir.display())))?;
        }
        Ok(())
    }

    /// The processes in the group itself.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = Vec::new();
        for dir in self.dirs() {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// The groups directly below, by name.
    pub fn children(&self) -> Vec<Cgroup> {
        let mut names: Vec<String> = self
            .dirs()
            .filter_map(|dir| fs::read_dir(dir).ok())
            .flat_map(|entries| entries.filter_map(Result::ok))
            .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|name| Cgroup { path: format!("{}/{name}", self.path) }).collect()
    }

    /// Sends SIGKILL to everything in the group and below. Returns how many processes were found.
    pub fn kill(&self) -> usize {
        let mut found = 0;
        for child in self.children() {
            found += child.kill();
        }
        if let Some(root) = &Hierarchies::get().unified
            && let Err(error) = fs::write(self.dir(root).join("cgroup.kill"), "1")
        {
            tracing::trace!(path = self.path, %error, "cgroup.kill");
        }
        for pid in self.processes() {
            found += 1;
            if let Err(error) = sys::process::kill(pid, libc_kill()) {
                tracing::trace!(pid, %error, "kill");
            }
        }
        found
    }

    /// Removes the group and those below; processes must be gone. Absent groups are fine.
    pub fn remove(&self) -> io::Result<()> {
        for child in self.children() {
            child.remove()?;
        }
        for dir in self.dirs() {
            match fs::remove_dir(&dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("remove cgroup {}: {error}", dir.display()))),
            }
        }
        Ok(())
    }

    /// Kills and removes, waiting up to two seconds for the processes to be gone. Blocks.
    pub fn destroy(&self) -> io::Result<()> {
        for _ in 0..200 {
            if self.kill() == 0 && self.remove().is_ok() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        self.remove()
    }

    /// Sets limits; unset ones stay as they are.
    pub fn limit(&self, resources: &Resources) -> io::Result<()> {
        limits::apply(self, resources)
    }

    /// Allows only the usual devices and `devices`; all when `privileged`.
    pub fn allow_devices(&self, devices: &[DeviceSpec], privileged: bool) -> io::Result<()> {
        limits::allow_devices(self, devices, privileged)
    }

    /// What the group has used.
    pub fn usage(&self) -> Usage {
        stats::read(self)
    }

    /// How often the kernel killed a process of this group for want of memory.
    pub fn oom_kills(&self) -> u64 {
        stats::oom_kills(self)
    }
}

fn libc_kill() -> i32 {
    rustix::process::Signal::KILL.as_raw()
}

/// Version 1 wants `cpuset.cpus` and `cpuset.mems` set before a process may join.
fn inherit_cpuset(root: &Path, path: &str) -> io::Result<()> {
    let mut dir = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let parent = dir.clone();
        dir.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(dir.join(file))?.trim().is_empty() {
                fs::write(dir.join(file), fs::read_to_string(parent.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

/// Enables for the children of every ancestor what that ancestor has; a controller that cannot be is left off.
fn enable_controllers(root: &Path, path: &str) {
    let mut dir = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        for controller in available.split_whitespace() {
            if let Err(error) = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")) {
                tracing::debug!(dir = %dir.display(), controller, %error, "enable controller");
            }
        }
        dir.push(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_hierarchies() {
        let v1 = Hierarchies::parse(
            "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(v1.roots().count(), 3);
        assert!(!v1.is_v2());
        assert_eq!(v1.v1("cpuacct"), v1.v1("cpu"));
        assert!(Hierarchies::parse("1 2 0:3 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n").is_v2());
    }

    #[test]
    fn refuses_paths_that_climb() {
        for path in ["/a/../b", "a", "/", "/./a"] {
            assert!(Cgroup::new(path).is_err(), "{path}");
        }
    }
}
