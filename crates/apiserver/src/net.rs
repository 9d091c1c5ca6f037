//! CIDRs of Service addresses, as far as the allocator and the serving certificate need them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub bits: u8,
}

impl Cidr {
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("invalid CIDR address: {text}");
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most { Err(bad()) } else { Ok(Self { address, bits }) }
    }

    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    fn host_bits(&self) -> u32 {
        (if self.address.is_ipv4() { 32 } else { 128 }) - u32::from(self.bits)
    }

    /// How many addresses there are, at most 2^64 - 1.
    pub fn size(&self) -> u64 {
        1u64.checked_shl(self.host_bits()).unwrap_or(u64::MAX)
    }

    /// The address at an offset, `None` outside of the range.
    pub fn nth(&self, offset: u64) -> Option<IpAddr> {
        if offset >= self.size() {
            return None;
        }
        Some(match self.address {
            IpAddr::V4(ip) => {
                let base = u32::from(ip) & u32::MAX.checked_shl(self.host_bits()).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(base + u32::try_from(offset).ok()?))
            }
            IpAddr::V6(ip) => {
                let base = u128::from(ip) & u128::MAX.checked_shl(self.host_bits()).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(base + u128::from(offset)))
            }
        })
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mask = u32::MAX.checked_shl(self.host_bits()).unwrap_or(0);
                u32::from(a) & mask == u32::from(b) & mask
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = u128::MAX.checked_shl(self.host_bits()).unwrap_or(0);
                u128::from(a) & mask == u128::from(b) & mask
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_and_contain() {
        let c = Cidr::parse("10.96.0.0/12").unwrap();
        assert_eq!((c.size(), c.nth(1).unwrap().to_string()), (1 << 20, "10.96.0.1".to_owned()));
        assert!(c.contains("10.111.255.255".parse().unwrap()) && !c.contains("10.112.0.0".parse().unwrap()));
        assert_eq!(Cidr::parse("fd00::/64").unwrap().nth(10).unwrap().to_string(), "fd00::a");
        assert!(Cidr::parse("10.0.0.0/33").is_err() && Cidr::parse("x").is_err());
    }
}
