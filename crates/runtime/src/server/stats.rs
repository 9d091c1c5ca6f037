//! Statistics: cgroups, the writable layer, the pod's links. Blocking: callers run it off the async threads.

use std::path::Path;

use cri::v1::{
    ContainerAttributes, ContainerStats, CpuUsage, FilesystemIdentifier, FilesystemUsage, LinuxPodSandboxStats, MemoryUsage,
    NetworkInterfaceUsage, NetworkUsage, PodSandboxAttributes, PodSandboxStats, ProcessUsage, SwapUsage, UInt64Value,
};

use super::state::{Container, Sandbox};
use crate::cgroup::{Cgroup, Usage};
use crate::shim::now_ns;

/// Entries looked at when a directory is measured; beyond, the figure is a lower bound.
const ENTRIES_MAX: u64 = 1_000_000;

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

/// Bytes and inodes below `dir`.
pub fn measure(dir: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let (mut bytes, mut inodes, mut dirs) = (0, 0, vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().filter_map(Result::ok) {
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.blocks() * 512;
            inodes += 1;
            if metadata.is_dir() && inodes < ENTRIES_MAX {
                dirs.push(entry.path());
            }
        }
    }
    (bytes, inodes)
}

pub fn filesystem(dir: &Path, used: (u64, u64)) -> FilesystemUsage {
    let fs_id = Some(FilesystemIdentifier { mountpoint: dir.display().to_string() });
    FilesystemUsage { timestamp: now_ns(), fs_id, used_bytes: value(used.0), inodes_used: value(used.1) }
}

fn usage(cgroup: &str) -> Usage {
    Cgroup::new(cgroup).map(|c| c.usage()).unwrap_or_default()
}

fn cpu(usage: &Usage) -> CpuUsage {
    CpuUsage { timestamp: now_ns(), usage_core_nano_seconds: value(usage.cpu_ns), ..Default::default() }
}

fn memory(usage: &Usage) -> MemoryUsage {
    MemoryUsage {
        timestamp: now_ns(),
        working_set_bytes: value(usage.working_set_bytes),
        available_bytes: usage.memory_limit_bytes.and_then(|limit| value(limit.saturating_sub(usage.working_set_bytes))),
        usage_bytes: value(usage.memory_bytes),
        rss_bytes: value(usage.rss_bytes),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
        psi: None,
    }
}

pub fn container(container: &Container) -> ContainerStats {
    let config = &container.config.0;
    let usage = usage(&container.spec.cgroup);
    let upper = container.spec.dir.join("upper");
    ContainerStats {
        attributes: Some(ContainerAttributes {
            id: container.id.clone(),
            metadata: config.metadata.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        cpu: Some(cpu(&usage)),
        memory: Some(memory(&usage)),
        writable_layer: Some(filesystem(&upper, measure(&upper))),
        swap: Some(SwapUsage { timestamp: now_ns(), swap_available_bytes: None, swap_usage_bytes: value(usage.swap_bytes) }),
        io: None,
    }
}

/// The links of `/proc/PID/net/dev`, loopback left out.
fn interfaces(text: &str) -> Vec<NetworkInterfaceUsage> {
    let parse = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let fields: Vec<u64> = rest.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        let at = |index: usize| fields.get(index).copied().and_then(value);
        Some(NetworkInterfaceUsage { name: name.trim().to_owned(), rx_bytes: at(0), rx_errors: at(2), tx_bytes: at(8), tx_errors: at(10) })
    };
    text.lines().filter_map(parse).filter(|i| i.name != "lo").collect()
}

pub fn sandbox(sandbox: &Sandbox, containers: &[Container]) -> PodSandboxStats {
    let config = &sandbox.config.0;
    let usage = usage(&sandbox.cgroup);
    let dev = if sandbox.host_network() {
        String::new()
    } else {
        std::fs::read_to_string(format!("/proc/{}/net/dev", sandbox.shim_pid)).unwrap_or_default()
    };
    let mut interfaces = interfaces(&dev).into_iter();
    let network = NetworkUsage { timestamp: now_ns(), default_interface: interfaces.next(), interfaces: interfaces.collect() };
    PodSandboxStats {
        attributes: Some(PodSandboxAttributes {
            id: sandbox.id.clone(),
            metadata: config.metadata.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        linux: Some(LinuxPodSandboxStats {
            cpu: Some(cpu(&usage)),
            memory: Some(memory(&usage)),
            network: Some(network),
            process: Some(ProcessUsage { timestamp: now_ns(), process_count: value(usage.processes) }),
            containers: containers.iter().map(self::container).collect(),
            io: None,
        }),
        windows: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_links() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12\n  eth0: 100 2 3 4 5 6 7 8 900 10 11 12\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].rx_bytes, found[0].tx_bytes), (value(100), value(900)));
    }
}
