//! A host and its pods, each an anonymous network namespace that ends with the test, and small TCP and UDP services in
//! them. Nothing touches the namespace the test runs in.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use netplan::proxy::ProxyConfig;
use network::{HostPort, Instance, Links, NetNs, NodeConfig, PodIdentity, PodNetworker, Route};

const PATIENCE: Duration = Duration::from_secs(3);

/// A machine with one address on a network of its own.
pub struct Host {
    pub netns: NetNs,
    pub address: IpAddr,
    dir: tempfile::TempDir,
}

impl Host {
    pub async fn new(address: &str) -> Self {
        let netns = NetNs::anonymous().unwrap();
        let links = Links::open(&netns).await.unwrap();
        links.set_up("lo").await.unwrap();
        let link = links.add_dummy("lan0").await.unwrap();
        let net: IpNet = address.parse().unwrap();
        links.add_address(link, net).await.unwrap();
        links.replace_route(link, &Route::to("0.0.0.0/0".parse().unwrap())).await.unwrap();
        Host { netns, address: net.addr(), dir: tempfile::tempdir().unwrap() }
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    pub fn config(&self, instance: &str, pods: &str, services: &str) -> NodeConfig {
        NodeConfig {
            instance: Instance::new(instance),
            node_name: "node-1".into(),
            netns: self.netns.clone(),
            state_dir: self.dir.path().join(instance),
            cluster_cidrs: vec![pods.parse().unwrap()],
            service_cidrs: vec![services.parse().unwrap()],
            node_cidr: None,
            mtu: None,
        }
    }
}

pub fn proxy_config(config: &NodeConfig) -> ProxyConfig {
    ProxyConfig {
        table: config.instance.proxy_table(),
        node_name: config.node_name.clone(),
        cluster_cidrs: config.cluster_cidrs.clone(),
        ..ProxyConfig::default()
    }
}

pub struct Pod {
    pub netns: NetNs,
    pub ip: IpAddr,
    pub sandbox: String,
}

pub async fn pod(network: &PodNetworker) -> Pod {
    pod_with_ports(network, &[]).await
}

pub async fn pod_with_ports(network: &PodNetworker, ports: &[HostPort]) -> Pod {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let netns = NetNs::anonymous().unwrap();
    let sandbox = format!("sandbox-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let identity = PodIdentity { sandbox_id: sandbox.clone(), ..PodIdentity::default() };
    let ips = network.attach(&netns.path(), &identity, ports).await.unwrap();
    Pod { netns, ip: ips[0], sandbox }
}

/// Answer every TCP connection with a name and the client's address, until the test ends.
pub fn serve_tcp(netns: &NetNs, port: u16, name: &str) {
    let name = name.to_owned();
    let listener = netns.run(|| TcpListener::bind(("::", port))).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            // A client may be gone already; the test looks at what clients got.
            if stream.write_all(format!("{name} {peer}").as_bytes()).is_err() {
                continue;
            }
        }
    });
}

/// Answer every UDP packet likewise.
pub fn serve_udp(netns: &NetNs, at: SocketAddr, name: &str) {
    let name = name.to_owned();
    let socket = netns.run(|| UdpSocket::bind(at)).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let answer = format!("{name} {}", peer.ip());
            if socket.send_to(answer.as_bytes(), peer).is_err() {
                break;
            }
        }
    });
}

/// Who answered, and whom it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub name: String,
    pub saw: IpAddr,
}

fn answer(text: &str) -> Answer {
    let (name, saw) = text.split_once(' ').unwrap();
    Answer { name: name.into(), saw: saw.parse().unwrap() }
}

pub fn ask_tcp(from: &NetNs, to: SocketAddr) -> std::io::Result<Answer> {
    ask_tcp_within(from, to, PATIENCE.as_millis() as u64)
}

pub fn ask_tcp_within(from: &NetNs, to: SocketAddr, patience_ms: u64) -> std::io::Result<Answer> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(patience_ms))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(answer(&text))
    })
    .unwrap()
}

pub fn udp_client(from: &NetNs, to: SocketAddr) -> UdpSocket {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    from.run(|| {
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    })
    .unwrap()
}

pub fn ask_udp(socket: &UdpSocket) -> std::io::Result<Answer> {
    socket.send(b"?")?;
    let mut buffer = [0; 128];
    let len = socket.recv(&mut buffer)?;
    Ok(answer(std::str::from_utf8(&buffer[..len]).unwrap()))
}

pub fn at(ip: impl ToString, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_string().parse().unwrap(), port)
}
