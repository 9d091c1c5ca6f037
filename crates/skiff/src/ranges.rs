//! Which address ranges this machine already routes.

use std::fs;
use std::net::Ipv4Addr;

/// First and last address of a CIDR, as numbers. `None`: not an IPv4 CIDR.
fn span(cidr: &str) -> Option<(u32, u32)> {
    let (address, bits) = cidr.split_once('/')?;
    let (address, bits): (Ipv4Addr, u32) = (address.parse().ok()?, bits.parse().ok()?);
    let mask = u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0);
    let first = u32::from(address) & mask;
    Some((first, first | !mask))
}

/// The spans of `/proc/net/route`, without the default route.
fn routed(table: &str) -> Vec<(u32, u32)> {
    let swapped = |s: &str| u32::from_str_radix(s, 16).ok().map(u32::swap_bytes);
    let line = |l: &str| {
        let fields: Vec<&str> = l.split_whitespace().collect();
        let (first, mask) = (swapped(fields.get(1)?)?, swapped(fields.get(7)?)?);
        (mask != 0).then_some((first, first | !mask))
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// Whether this machine has a route into the range.
pub fn in_use(cidr: &str) -> bool {
    overlaps(cidr, &routed(&fs::read_to_string("/proc/net/route").unwrap_or_default()))
}

fn overlaps(cidr: &str, routes: &[(u32, u32)]) -> bool {
    span(cidr).is_some_and(|(first, last)| routes.iter().any(|(a, b)| *a <= last && first <= *b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_with_routes_is_seen() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n\
                     x\t0003F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";
        let routes = routed(table);
        assert_eq!(routes.len(), 1);
        assert!(overlaps("10.244.0.0/16", &routes));
        assert!(!overlaps("10.96.0.0/16", &routes));
        assert!(!overlaps("nonsense", &routes));
    }
}
