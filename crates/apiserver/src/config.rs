//! What the server can be told. The binary parses upstream's flags into this; nothing here reads the environment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    /// `--cert-dir`: where the PKI lives; made when missing.
    pub pki_dir: PathBuf,
    /// `--bind-address`
    pub bind_address: IpAddr,
    /// `--secure-port`; 0: any free one.
    pub secure_port: u16,
    /// `--advertise-address`: what `default/kubernetes` points to. `None`: the bind address, or loopback.
    pub advertise_address: Option<IpAddr>,
    /// More names and addresses for the serving certificate: the node's addresses and host name.
    pub extra_sans: Vec<String>,
    /// `--service-cluster-ip-range`: one CIDR, or two of different families.
    pub service_cluster_ip_ranges: Vec<String>,
    /// `--service-node-port-range`, both ends included.
    pub service_node_ports: (u16, u16),
    /// `--service-account-issuer`
    pub service_account_issuer: String,
    /// `--api-audiences`; empty: the issuer.
    pub api_audiences: Vec<String>,
    /// `--event-ttl`
    pub event_ttl: Duration,
    /// How users are known, by `--*-auth-*`, `--client-ca-file`, `--requestheader-*` and `--service-account-*`.
    pub authentication: crate::authn::options::Options,
    /// Who may what, by `--authorization-*`.
    pub authorization: crate::authz::options::Options,
    /// `--anonymous-auth`
    pub anonymous_auth: bool,
    /// `--enable-admission-plugins` beyond the default ones.
    pub enable_admission_plugins: Vec<String>,
    /// `--disable-admission-plugins`
    pub disable_admission_plugins: Vec<String>,
    /// `--admission-control-config-file`
    pub admission_control_config_file: Option<PathBuf>,
    /// `--etcd-compaction-interval`; zero: never.
    pub compaction_interval: Duration,
    /// The store is one that upstream's API servers may have written to: an etcd cluster.
    pub shared_store: bool,
    /// `--etcd-healthcheck-timeout`: how long the store may take to answer a health check.
    pub store_check_timeout: Duration,
    /// `--max-requests-inflight`; zero: no limit. With flow control the sum of both is what levels share.
    pub max_requests_inflight: usize,
    /// `--max-mutating-requests-inflight`; zero: no limit.
    pub max_mutating_requests_inflight: usize,
    /// `--enable-priority-and-fairness`
    pub priority_and_fairness: bool,
    /// `--request-timeout`: of all but watches, logs, streams and proxied requests.
    pub request_timeout: Duration,
    /// `--min-request-timeout`, in seconds: a watch that names none ends after this and up to twice as much.
    pub min_request_timeout: u64,
    /// `--shutdown-delay-duration`: how long a server that is to stop still takes requests, while `/readyz` fails.
    pub shutdown_delay: Duration,
    /// `--livez-grace-period`: how long `/livez` believes a server that is still starting.
    pub livez_grace_period: Duration,
    /// `--tracing-config-file`
    pub tracing_config_file: Option<PathBuf>,
    /// `--encryption-provider-config`
    pub encryption_provider_config: Option<PathBuf>,
    /// `--encryption-provider-config-automatic-reload`, and how often the file is looked at then.
    pub encryption_reload: Option<Duration>,
    /// `--audit-*`
    pub audit: crate::audit::Options,
    /// `--cors-allowed-origins`: regular expressions of sites whose pages may read answers.
    pub cors_allowed_origins: Vec<String>,
    /// `--strict-transport-security-directives`
    pub strict_transport_security_directives: Vec<String>,
    /// `--goaway-chance`: how likely a request ends its HTTP/2 connection, so that clients spread over servers.
    pub goaway_chance: f64,
    /// `--tls-cipher-suites`, by Go's names; empty: all that are safe. Those of TLS 1.3 are always on.
    pub tls_cipher_suites: Vec<String>,
    /// `--tls-min-version`: `VersionTLS12` (also where it is older, or empty) or `VersionTLS13`.
    pub tls_min_version: String,
    /// What clients may make the server keep.
    pub connections: crate::listen::Limits,
    /// `--feature-gates`
    pub features: crate::features::Gates,
    /// The flags as they were given, for `/flagz`; the binary fills it in.
    pub flags: Vec<(String, String)>,
}

impl Config {
    pub fn new(pki_dir: impl Into<PathBuf>) -> Self {
        Self {
            pki_dir: pki_dir.into(),
            bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            secure_port: 6443,
            advertise_address: None,
            extra_sans: Vec::new(),
            service_cluster_ip_ranges: vec!["10.96.0.0/12".to_owned()],
            service_node_ports: (30000, 32767),
            service_account_issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            api_audiences: Vec::new(),
            event_ttl: Duration::from_secs(3600),
            authentication: crate::authn::options::Options::default(),
            authorization: crate::authz::options::Options::default(),
            anonymous_auth: true,
            enable_admission_plugins: vec!["NodeRestriction".to_owned()],
            disable_admission_plugins: Vec::new(),
            admission_control_config_file: None,
            compaction_interval: Duration::from_secs(300),
            shared_store: false,
            store_check_timeout: Duration::from_secs(2),
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            priority_and_fairness: true,
            request_timeout: Duration::from_secs(60),
            min_request_timeout: 1800,
            shutdown_delay: Duration::ZERO,
            livez_grace_period: Duration::ZERO,
            tracing_config_file: None,
            encryption_provider_config: None,
            encryption_reload: None,
            audit: crate::audit::Options::default(),
            cors_allowed_origins: Vec::new(),
            strict_transport_security_directives: Vec::new(),
            goaway_chance: 0.0,
            tls_cipher_suites: Vec::new(),
            tls_min_version: String::new(),
            connections: crate::listen::Limits::default(),
            features: crate::features::Gates::default(),
            flags: Vec::new(),
        }
    }

    /// The address other machines reach this server at: what was configured, a definite bind address, or that of the default
    /// route, as upstream chooses. Loopback where the host has none.
    pub fn advertised(&self) -> IpAddr {
        let bound = Some(self.bind_address).filter(|a| !a.is_unspecified());
        self.advertise_address.or(bound).or_else(route_address).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Every issuer name that is this server's.
    pub(crate) fn own_issuers(&self) -> Vec<String> {
        let more = self.authentication.service_account.accepted_issuers.iter();
        std::iter::once(&self.service_account_issuer).chain(more).cloned().collect()
    }

    pub(crate) fn audiences(&self) -> Vec<String> {
        if self.api_audiences.is_empty() { vec![self.service_account_issuer.clone()] } else { self.api_audiences.clone() }
    }
}

/// The source address of the default route. Connecting a datagram socket chooses the route and sends nothing.
fn route_address() -> Option<IpAddr> {
    let toward = |from: IpAddr, to: IpAddr| -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect((to, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    // Addresses kept for documentation: any that is not on a local link does.
    let v4 = toward(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let found = v4.or_else(|_| toward(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()));
    found.ok().filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}
