//! Writing limits: the CRI's units are those of version 1; version 2 is converted to as runc does.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sys::device_filter::Rule;

use super::{Cgroup, Hierarchies};
use crate::shim::protocol::{DeviceSpec, Resources};

fn write(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::write(dir.join(file), value)
        .map_err(|error| io::Error::new(error.kind(), format!("write {value:?} to {}/{file}: {error}", dir.display())))
}

/// Version 1 CPU shares (2 to 262144) to version 2 weight (1 to 10000).
fn cpu_weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + ((shares - 2) * 9999) / 262_142
}

/// A hugepage size as cgroup files spell it is what the CRI sends, e.g. `2MB`.
fn hugetlb_file(v2: bool, size: &str) -> Option<String> {
    let sound = !size.is_empty() && size.bytes().all(|b| b.is_ascii_alphanumeric());
    sound.then(|| if v2 { format!("hugetlb.{size}.max") } else { format!("hugetlb.{size}.limit_in_bytes") })
}

pub(super) fn apply(cgroup: &Cgroup, resources: &Resources) -> io::Result<()> {
    let v2 = Hierarchies::get().is_v2();
    if let Some(dir) = cgroup.controller("cpu") {
        cpu(&dir, resources, v2)?;
    }
    if let Some(dir) = cgroup.controller("memory") {
        memory(&dir, resources, v2)?;
    }
    if let Some(dir) = cgroup.controller("pids")
        && resources.pids_limit != 0
    {
        let limit = if resources.pids_limit < 0 { "max".to_owned() } else { resources.pids_limit.to_string() };
        write(&dir, "pids.max", &limit)?;
    }
    if let Some(dir) = cgroup.controller("cpuset") {
        for (file, value) in [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)] {
            if !value.is_empty() {
                write(&dir, file, value)?;
            }
        }
    }
    if let Some(dir) = cgroup.controller("hugetlb") {
        for (size, limit) in &resources.hugepages {
            if let Some(file) = hugetlb_file(v2, size).filter(|file| dir.join(file).exists()) {
                write(&dir, &file, &limit.to_string())?;
            }
        }
    }
    if v2 && let Some(dir) = cgroup.controller("") {
        for (file, value) in &resources.unified {
            if file.contains('/') {
                return Err(io::Error::other(format!("{file:?} is no cgroup file")));
            }
            write(&dir, file, value)?;
        }
    }
    Ok(())
}

fn cpu(dir: &Path, resources: &Resources, v2: bool) -> io::Result<()> {
    if resources.cpu_shares != 0 {
        if v2 {
            write(dir, "cpu.weight", &cpu_weight(resources.cpu_shares).to_string())?;
        } else {
            write(dir, "cpu.shares", &resources.cpu_shares.to_string())?;
        }
    }
    if resources.cpu_quota == 0 && resources.cpu_period == 0 {
        return Ok(());
    }
    let period = if resources.cpu_period == 0 { 100_000 } else { resources.cpu_period };
    if v2 {
        let quota = if resources.cpu_quota > 0 { resources.cpu_quota.to_string() } else { "max".to_owned() };
        return write(dir, "cpu.max", &format!("{quota} {period}"));
    }
    // With the old quota a new period may be invalid, and the other way round: lift the quota first.
    write(dir, "cpu.cfs_quota_us", "-1")?;
    write(dir, "cpu.cfs_period_us", &period.to_string())?;
    if resources.cpu_quota > 0 {
        write(dir, "cpu.cfs_quota_us", &resources.cpu_quota.to_string())?;
    }
    Ok(())
}

fn memory(dir: &Path, resources: &Resources, v2: bool) -> io::Result<()> {
    let limit = resources.memory_limit_bytes;
    if limit == 0 {
        return Ok(());
    }
    let swap = resources.memory_swap_limit_bytes;
    if v2 {
        write(dir, "memory.max", &if limit < 0 { "max".to_owned() } else { limit.to_string() })?;
        if dir.join("memory.swap.max").exists() && swap != 0 {
            write(dir, "memory.swap.max", &if swap < 0 { "max".to_owned() } else { (swap - limit).max(0).to_string() })?;
        }
        return Ok(());
    }
    // Memory must never exceed memory+swap, so the order depends on the direction; without swap accounting only the first exists.
    let both = dir.join("memory.memsw.limit_in_bytes").exists() && swap != 0;
    if both && write(dir, "memory.limit_in_bytes", &limit.to_string()).is_ok() {
        return write(dir, "memory.memsw.limit_in_bytes", &swap.to_string());
    }
    if both {
        write(dir, "memory.memsw.limit_in_bytes", &swap.to_string())?;
    }
    write(dir, "memory.limit_in_bytes", &limit.to_string())
}

fn rule(kind: char, major: Option<u32>, minor: Option<u32>, permissions: &str) -> Rule {
    let has = |c| permissions.contains(c);
    Rule { kind, major, minor, read: has('r'), write: has('w'), mknod: has('m') }
}

/// What every container may use: runc's list.
fn usual_devices() -> Vec<Rule> {
    let mut rules = vec![rule('c', None, None, "m"), rule('b', None, None, "m"), rule('c', Some(136), None, "rwm")];
    let named = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200)];
    rules.extend(named.map(|(major, minor)| rule('c', Some(major), Some(minor), "rwm")));
    rules
}

fn device_rules(devices: &[DeviceSpec]) -> io::Result<Vec<Rule>> {
    let mut rules = usual_devices();
    for device in devices {
        let metadata = fs::metadata(&device.host_path)
            .map_err(|error| io::Error::new(error.kind(), format!("device {}: {error}", device.host_path.display())))?;
        let kind = if metadata.file_type().is_block_device() { 'b' } else { 'c' };
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        rules.push(rule(kind, Some(major), Some(minor), &device.permissions));
    }
    Ok(rules)
}

pub(super) fn allow_devices(cgroup: &Cgroup, devices: &[DeviceSpec], privileged: bool) -> io::Result<()> {
    let Some(dir) = cgroup.controller("devices") else { return Ok(()) };
    if privileged {
        return if Hierarchies::get().is_v2() { Ok(()) } else { write(&dir, "devices.allow", "a") };
    }
    let rules = device_rules(devices)?;
    if Hierarchies::get().is_v2() {
        return sys::device_filter::attach(fs::File::open(&dir)?.as_fd(), &rules);
    }
    write(&dir, "devices.deny", "a")?;
    let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
    for rule in rules {
        let access: String =
            [('r', rule.read), ('w', rule.write), ('m', rule.mknod)].iter().filter(|(_, on)| *on).map(|(c, _)| *c).collect();
        write(&dir, "devices.allow", &format!("{} {}:{} {access}", rule.kind, number(rule.major), number(rule.minor)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_shares_to_weight() {
        assert_eq!([2, 1024, 262_144, 0, u64::MAX].map(cpu_weight), [1, 39, 10_000, 1, 10_000]);
    }

    #[test]
    fn hugetlb_names_cannot_leave_the_directory() {
        assert_eq!(hugetlb_file(true, "2MB").as_deref(), Some("hugetlb.2MB.max"));
        assert_eq!(hugetlb_file(false, "../x"), None);
    }
}
