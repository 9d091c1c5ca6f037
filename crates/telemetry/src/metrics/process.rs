//! `process_*`: what the kernel knows of this process, read when asked.

use super::{line, number};

/// USER_HZ and the page size of every Linux this runs on.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;

pub fn text(out: &mut String) {
    let mut put = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
            line(out, name, "", "", "", &number(value));
        }
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name in parentheses, and may hold anything.
    let fields: Vec<f64> = stat.rsplit(')').next().unwrap_or("").split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
    let field = |number: usize| fields.get(number.wrapping_sub(3)).copied();
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS_PER_SECOND);
    put("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu);
    put("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", field(24).map(|pages| pages * PAGE_BYTES));
    put("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", field(23));
    put("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", started(field(22)));
    let open = std::fs::read_dir("/proc/self/fd").map(|fds| fds.count() as f64).ok();
    put("process_open_fds", "gauge", "Number of open file descriptors.", open);
    put("process_max_fds", "gauge", "Maximum number of open file descriptors.", limit("Max open files"));
    let memory = limit("Max address space").unwrap_or(-1.0);
    put("process_virtual_memory_max_bytes", "gauge", "Maximum amount of virtual memory available in bytes.", Some(memory));
    let network = network();
    put(
        "process_network_receive_bytes_total",
        "counter",
        "Number of bytes received by the process over the network.",
        network.map(|n| n.0),
    );
    put("process_network_transmit_bytes_total", "counter", "Number of bytes sent by the process over the network.", network.map(|n| n.1));
}

/// When the process began, alone.
pub fn start_time(out: &mut String) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).and_then(|f| f.parse().ok());
    if let Some(value) = started(ticks) {
        out.push_str("# TYPE process_start_time_seconds gauge\n");
        line(out, "process_start_time_seconds", "", "", "", &number(value));
    }
}

fn started(ticks: Option<f64>) -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks? / TICKS_PER_SECOND)
}

fn limit(name: &str) -> Option<f64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn network() -> Option<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/self/net/netstat").ok()?;
    let mut lines = text.lines().filter(|l| l.starts_with("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let find = |wanted: &str| {
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        pairs.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.parse().ok())
    };
    Some((find("InOctets")?, find("OutOctets")?))
}
