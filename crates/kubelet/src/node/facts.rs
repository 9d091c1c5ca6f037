//! What the host is and has: CPUs, memory, disk, identifiers. Read once at the start, pressures when asked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::VERSION;
use crate::config::Config;

/// Kept free of pods, as upstream's default hard eviction thresholds do.
const MEMORY_RESERVED_BYTES: i64 = 100 << 20;

#[derive(Clone, Debug)]
pub struct Facts {
    pub cpus: usize,
    pub memory_bytes: i64,
    pub disk_bytes: i64,
    pub max_pods: u32,
    hugepages: BTreeMap<String, i64>,
    machine_id: String,
    system_uuid: String,
    boot_id: String,
    kernel: String,
    os_image: String,
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn meminfo(key: &str) -> Option<i64> {
    let table = fs::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find(|l| l.starts_with(key))?;
    Some(line.split_whitespace().nth(1)?.parse::<i64>().ok()? * 1024)
}

pub fn memory_available() -> Option<i64> {
    meminfo("MemAvailable:")
}

fn disk(path: &Path) -> Option<(u64, u64)> {
    let s = nix::sys::statvfs::statvfs(path).ok()?;
    Some((s.blocks() * s.fragment_size(), s.blocks_available() * s.fragment_size()))
}

pub fn disk_available_percent(path: &Path) -> Option<u64> {
    let (total, free) = disk(path)?;
    (total > 0).then(|| free.saturating_mul(100) / total)
}

/// The architecture as Go names it.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Reads the host. What cannot be read is empty or zero.
pub fn facts(config: &Config) -> Facts {
    let mut hugepages = BTreeMap::new();
    for entry in fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kib) = name.strip_prefix("hugepages-").and_then(|n| n.strip_suffix("kB")).and_then(|n| n.parse::<i64>().ok()) else {
            continue;
        };
        let size = if kib >= 1 << 20 { format!("{}Gi", kib >> 20) } else { format!("{}Mi", kib >> 10) };
        let count = text(&entry.path().join("nr_hugepages").display().to_string()).parse::<i64>().unwrap_or(0);
        hugepages.insert(format!("hugepages-{size}"), count * kib * 1024);
    }
    let machine_id = text("/etc/machine-id");
    let uuid = text("/sys/class/dmi/id/product_uuid");
    let os = text("/etc/os-release");
    let pretty = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or_default().trim_matches('"').to_owned();
    let root: PathBuf = config.root_dir.clone();
    Facts {
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: meminfo("MemTotal:").unwrap_or(0),
        disk_bytes: disk(&root).map_or(0, |d| i64::try_from(d.0).unwrap_or(i64::MAX)),
        max_pods: config.max_pods,
        hugepages,
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        boot_id: text("/proc/sys/kernel/random/boot_id"),
        kernel: text("/proc/sys/kernel/osrelease"),
        os_image: pretty,
    }
}

impl Facts {
    pub fn capacity(&self) -> Value {
        let mut out = json!({
            "cpu": self.cpus.to_string(), "memory": format!("{}Ki", self.memory_bytes / 1024),
            "ephemeral-storage": format!("{}Ki", self.disk_bytes / 1024), "pods": self.max_pods.to_string()});
        for (k, v) in &self.hugepages {
            out[k] = json!(v.to_string());
        }
        out
    }

    pub fn allocatable(&self) -> Value {
        let mut out = self.capacity();
        out["memory"] = json!(format!("{}Ki", (self.memory_bytes - MEMORY_RESERVED_BYTES).max(0) / 1024));
        out["ephemeral-storage"] = json!((self.disk_bytes / 10 * 9).to_string());
        out
    }

    /// Allocatable in thousandths, for the downward API.
    pub fn allocatable_milli(&self) -> BTreeMap<String, i64> {
        BTreeMap::from([
            ("cpu".to_owned(), i64::try_from(self.cpus).unwrap_or(i64::MAX).saturating_mul(1000)),
            ("memory".to_owned(), (self.memory_bytes - MEMORY_RESERVED_BYTES).max(0).saturating_mul(1000)),
            ("ephemeral-storage".to_owned(), (self.disk_bytes / 10 * 9).saturating_mul(1000)),
        ])
    }

    /// Fewer than a tenth of the process IDs left.
    pub fn pids_low(&self) -> bool {
        let max = text("/proc/sys/kernel/pid_max").parse::<u64>().unwrap_or(0);
        let load = text("/proc/loadavg");
        let used = load.split([' ', '/']).nth(4).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        max > 0 && used > max / 10 * 9
    }

    pub fn node_info(&self, runtime: &str) -> Value {
        json!({
            "machineID": self.machine_id, "systemUUID": self.system_uuid, "bootID": self.boot_id,
            "kernelVersion": self.kernel, "osImage": self.os_image, "containerRuntimeVersion": runtime,
            "kubeletVersion": VERSION, "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": arch()})
    }
}
