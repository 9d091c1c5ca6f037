//! Linux capabilities by name, and which ones a container gets. Pure.

/// In the kernel's order: the index is the number.
#[rustfmt::skip]
const NAMES: [&str; 41] = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
    "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
    "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
    "PERFMON", "BPF", "CHECKPOINT_RESTORE",
];

/// What containerd and CRI-O give by default.
#[rustfmt::skip]
const DEFAULT: [&str; 14] = [
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE",
    "SYS_CHROOT", "KILL", "AUDIT_WRITE",
];

fn number(name: &str) -> Result<u32, String> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().zip(0..).find(|(known, _)| **known == bare).map(|(_, at)| at).ok_or_else(|| format!("unknown capability {name:?}"))
}

pub fn all() -> Vec<u32> {
    NAMES.iter().zip(0..).map(|(_, at)| at).collect()
}

/// The default set, plus `add`, less `drop`; `ALL` in either means every one.
pub fn effective(add: &[String], drop: &[String]) -> Result<Vec<u32>, String> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut set: std::collections::BTreeSet<u32> = DEFAULT.iter().map(|name| number(name)).collect::<Result<_, _>>()?;
    if add.iter().any(is_all) {
        set.extend(all());
    }
    if drop.iter().any(is_all) {
        set.clear();
    }
    for name in add.iter().filter(|n| !is_all(n)) {
        set.insert(number(name)?);
    }
    for name in drop.iter().filter(|n| !is_all(n)) {
        set.remove(&number(name)?);
    }
    Ok(set.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_and_drops() {
        let check = |add: &[&str], drop: &[&str], expected: Result<usize, ()>| {
            let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
            assert_eq!(effective(&own(add), &own(drop)).map(|s| s.len()).map_err(|_| ()), expected, "{add:?} {drop:?}");
        };
        check(&[], &[], Ok(14));
        check(&["ALL"], &[], Ok(41));
        check(&["NET_ADMIN"], &["ALL"], Ok(1));
        check(&["cap_sys_admin"], &["CHOWN", "KILL"], Ok(13));
        check(&["ALL"], &["NET_RAW"], Ok(40));
        check(&["BOGUS"], &[], Err(()));
    }
}
