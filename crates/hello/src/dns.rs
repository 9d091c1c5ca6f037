//! A DNS client: a static program cannot use the C library's resolver inside a container.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::files::fail;

const A: u16 = 1;
const AAAA: u16 = 28;

/// What `/etc/resolv.conf` says.
pub struct Resolver {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl Resolver {
    pub fn from_system() -> Self {
        Self::parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    pub fn parse(text: &str) -> Self {
        let mut out = Self { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => out.servers.extend(words.next().and_then(|w| w.parse::<IpAddr>().ok())),
                Some("search") => out.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.filter_map(|w| w.strip_prefix("ndots:")?.parse().ok()).next();
                    out.ndots = ndots.unwrap_or(out.ndots);
                }
                _ => {}
            }
        }
        out
    }

    /// The names to try, in order.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{}", domain.trim_end_matches('.')));
        if name.matches('.').count() >= self.ndots {
            std::iter::once(name.to_owned()).chain(searched).collect()
        } else {
            searched.chain(std::iter::once(name.to_owned())).collect()
        }
    }

    /// All addresses of a name, and the full name that had them.
    pub fn lookup(&self, name: &str) -> Result<(String, Vec<IpAddr>), String> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok((name.to_owned(), vec![address]));
        }
        if let Some(address) = from_hosts(name) {
            return Ok((name.to_owned(), vec![address]));
        }
        let mut last = "no nameserver in /etc/resolv.conf".to_owned();
        for server in &self.servers {
            for candidate in self.candidates(name) {
                let mut found = Vec::new();
                for kind in [A, AAAA] {
                    match ask(*server, &candidate, kind) {
                        Ok(addresses) => found.extend(addresses),
                        Err(why) => last = why,
                    }
                }
                if !found.is_empty() {
                    return Ok((candidate, found));
                }
            }
        }
        Err(last)
    }
}

fn from_hosts(name: &str) -> Option<IpAddr> {
    let hosts = fs::read_to_string("/etc/hosts").ok()?;
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|w| w == name).then_some(address)
    })
}

/// The first address of a name; IPv4 before IPv6.
pub fn resolve(name: &str) -> Result<IpAddr, String> {
    let (_, addresses) = Resolver::from_system().lookup(name)?;
    addresses.first().copied().ok_or_else(|| "no address".to_owned())
}

fn ask(server: IpAddr, name: &str, kind: u16) -> Result<Vec<IpAddr>, String> {
    let local: SocketAddr = if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let text = |e: std::io::Error| format!("{server}: {e}");
    let socket = UdpSocket::bind(local).map_err(text)?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).map_err(text)?;
    socket.connect((server, 53)).map_err(text)?;
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or(1) ^ kind;
    let query = encode(id, name, kind)?;
    for _ in 0..2 {
        socket.send(&query).map_err(text)?;
        let mut reply = [0_u8; 4096];
        if let Ok(length) = socket.recv(&mut reply)
            && reply[..2] == id.to_be_bytes()
        {
            return decode(&reply[..length], kind);
        }
    }
    Err(format!("{server}: no answer"))
}

fn encode(id: u16, name: &str, kind: u16) -> Result<Vec<u8>, String> {
    let mut out = id.to_be_bytes().to_vec();
    // Recursion wanted; one question.
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|l| !l.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|l| *l < 64).ok_or_else(|| format!("{name}: a label is too long"))?;
        out.push(length);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    Ok(out)
}

/// The addresses in a reply. Anything malformed is an error, never a panic.
fn decode(reply: &[u8], kind: u16) -> Result<Vec<IpAddr>, String> {
    const SHORT: &str = "a malformed answer";
    let at = |i: usize| reply.get(i).copied().ok_or(SHORT);
    let word = |i: usize| Ok::<u16, &str>(u16::from_be_bytes([at(i)?, at(i + 1)?]));
    match at(3)? & 15 {
        0 => {}
        3 => return Err("NXDOMAIN".to_owned()),
        code => return Err(format!("the server answers with code {code}")),
    }
    let skip = |mut i: usize| -> Result<usize, &str> {
        loop {
            match at(i)? {
                0 => return Ok(i + 1),
                n if n >= 0xc0 => return Ok(i + 2),
                n => i += usize::from(n) + 1,
            }
        }
    };
    let mut i = 12;
    for _ in 0..word(4)? {
        i = skip(i)? + 4;
    }
    let mut out = Vec::new();
    for _ in 0..word(6)? {
        i = skip(i)?;
        let (found, length) = (word(i)?, usize::from(word(i + 8)?));
        let data = reply.get(i + 10..i + 10 + length).ok_or(SHORT)?;
        if found == kind {
            if let Ok(four) = <[u8; 4]>::try_from(data) {
                out.push(IpAddr::from(four));
            } else if let Ok(sixteen) = <[u8; 16]>::try_from(data) {
                out.push(IpAddr::from(sixteen));
            }
        }
        i += 10 + length;
    }
    Ok(out)
}

/// `nslookup NAME [SERVER]`
pub fn nslookup(arguments: &[String]) -> i32 {
    let Some(name) = arguments.first() else { return fail("nslookup", "", &"which name?") };
    let mut resolver = Resolver::from_system();
    if let Some(server) = arguments.get(1) {
        match server.parse() {
            Ok(address) => resolver.servers = vec![address],
            Err(error) => return fail("nslookup", server, &error),
        }
    }
    if let Some(server) = resolver.servers.first() {
        println!("Server:\t\t{server}\nAddress:\t{server}:53\n");
    }
    match resolver.lookup(name) {
        Ok((full, addresses)) => {
            for address in addresses {
                println!("Name:\t{full}\nAddress: {address}");
            }
            0
        }
        Err(why) => {
            println!("** server can't find {name}: {why}");
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_searched_first() {
        let resolver = Resolver::parse("nameserver 10.96.0.10\nsearch ns.svc.cluster.local svc.cluster.local\noptions ndots:5\n");
        assert_eq!(resolver.candidates("web"), ["web.ns.svc.cluster.local", "web.svc.cluster.local", "web"]);
        assert_eq!(resolver.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(resolver.candidates("web."), ["web"]);
    }

    #[test]
    fn answers_are_read_and_lies_refused() {
        let mut reply = encode(7, "a.b", A).unwrap();
        reply[2] = 0x80;
        reply[7] = 1;
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 9]);
        assert_eq!(decode(&reply, A).unwrap(), ["10.0.0.9".parse::<IpAddr>().unwrap()]);
        for cut in 0..reply.len() {
            assert!(decode(&reply[..cut], A).is_err() || cut >= reply.len(), "cut at {cut}");
        }
        reply[3] = 3;
        assert_eq!(decode(&reply, A), Err("NXDOMAIN".to_owned()));
    }
}
