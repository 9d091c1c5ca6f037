//! Reading what a group has used, from either version's files.

use std::fs;
use std::path::Path;

use super::{Cgroup, Hierarchies};

/// Use of resources by a group and those below it. Missing controllers read as zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_ns: u64,
    pub memory_bytes: u64,
    /// Memory in use less inactive file pages: what the kubelet evicts by.
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// None when there is no limit.
    pub memory_limit_bytes: Option<u64>,
    pub swap_bytes: u64,
    pub processes: u64,
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

/// A value of a `key value` file.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines().filter_map(|line| line.split_once(' ')).find(|(k, _)| *k == key).and_then(|(_, v)| v.trim().parse().ok()).unwrap_or(0)
}

pub(super) fn read(cgroup: &Cgroup) -> Usage {
    let v2 = Hierarchies::get().is_v2();
    let mut usage = Usage::default();
    if let Some(dir) = cgroup.controller(if v2 { "cpu" } else { "cpuacct" }) {
        usage.cpu_ns = if v2 {
            keyed(&fs::read_to_string(dir.join("cpu.stat")).unwrap_or_default(), "usage_usec") * 1000
        } else {
            number(&dir, "cpuacct.usage").unwrap_or(0)
        };
    }
    if let Some(dir) = cgroup.controller("memory") {
        memory(&dir, v2, &mut usage);
    }
    if let Some(dir) = cgroup.controller("pids") {
        usage.processes = number(&dir, "pids.current").unwrap_or(0);
    }
    usage
}

fn memory(dir: &Path, v2: bool, usage: &mut Usage) {
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let inactive;
    if v2 {
        usage.memory_bytes = number(dir, "memory.current").unwrap_or(0);
        usage.swap_bytes = number(dir, "memory.swap.current").unwrap_or(0);
        usage.memory_limit_bytes = number(dir, "memory.max");
        usage.rss_bytes = keyed(&stat, "anon");
        usage.page_faults = keyed(&stat, "pgfault");
        usage.major_page_faults = keyed(&stat, "pgmajfault");
        inactive = keyed(&stat, "inactive_file");
    } else {
        usage.memory_bytes = number(dir, "memory.usage_in_bytes").unwrap_or(0);
        // Version 1 says "no limit" with the largest page-aligned number.
        usage.memory_limit_bytes = number(dir, "memory.limit_in_bytes").filter(|limit| *limit < 1 << 62);
        usage.swap_bytes = keyed(&stat, "total_swap");
        usage.rss_bytes = keyed(&stat, "total_rss");
        usage.page_faults = keyed(&stat, "total_pgfault");
        usage.major_page_faults = keyed(&stat, "total_pgmajfault");
        inactive = keyed(&stat, "total_inactive_file");
    }
    usage.working_set_bytes = usage.memory_bytes.saturating_sub(inactive);
}

pub(super) fn oom_kills(cgroup: &Cgroup) -> u64 {
    let Some(dir) = cgroup.controller("memory") else { return 0 };
    let file = if Hierarchies::get().is_v2() { "memory.events" } else { "memory.oom_control" };
    keyed(&fs::read_to_string(dir.join(file)).unwrap_or_default(), "oom_kill")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_keyed_files() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed(text, "oom_kill"), 3);
        assert_eq!(keyed(text, "oom"), 0);
    }
}
