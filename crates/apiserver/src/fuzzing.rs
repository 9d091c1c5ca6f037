//! What the fuzz targets (`fuzz/src/bin`) attack in this crate and is no part of its interface. Only there when built for
//! fuzzing; nothing else calls it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::header::{ACCEPT, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use hyper_util::rt::TokioIo;
use rustls::ServerConnection;
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::audit::policy::{Level, Policy};
use crate::authn::options::RequestHeader;
use crate::authn::{Origin, Peer, impersonate, request_header, x509};
use crate::http::Query;
use crate::http::negotiate::{kinds, negotiate};
use crate::http::query::{decode, encode};
use crate::pki::{self, Grant, Pki};
use crate::request::RequestInfo;
use crate::{Config, Handle, Server, listen, tls};

/// An audit policy, and what it says of some requests.
pub fn audit_policy(bytes: &[u8]) {
    let Ok(policy) = Policy::parse(bytes) else { return };
    let user = auth::User::new("a", &["g", "system:authenticated"]);
    for path in ["/healthz", "/api/v1/namespaces/n/pods/p/log", "/apis/apps/v1/deployments", "/"] {
        for method in [Method::GET, Method::POST] {
            let info = RequestInfo::parse(&method, path, &Query::default());
            for user in [Some(&user), None] {
                let verdict = policy.judge(user, &info);
                assert!(verdict.level > Level::None || verdict.level.name() == "None");
                assert_eq!(verdict, policy.judge(user, &info));
            }
        }
    }
}

/// An AuthorizationConfiguration: a chain, or at least one reason why not.
pub fn authorization(bytes: &[u8]) {
    let Ok(read) = machinery::yaml::parse(bytes) else { return };
    match crate::authz::options::parse(&read.value, Path::new("/nowhere")) {
        Ok(chain) => assert!(!chain.is_empty()),
        Err(reasons) => assert!(!reasons.is_empty()),
    }
}

/// An AdmissionConfiguration, and what every plugin makes of its part.
pub fn admission(bytes: &[u8]) {
    let Ok(read) = machinery::yaml::parse(bytes) else { return };
    if let Err(why) = crate::admission::plugins::try_all(&read.value) {
        assert!(!why.is_empty());
    }
}

/// A kubeconfig of a webhook. Files it names are looked for where there are none.
pub fn kubeconfig(bytes: &[u8]) {
    let Ok(read) = machinery::yaml::parse(bytes) else { return };
    if let Ok(endpoint) = crate::webhook::kubeconfig::of_config(&read.value, Path::new("/nowhere")) {
        assert!(endpoint.url("").starts_with("https://"));
    }
}

/// `PATH?QUERY`, then headers, a line each: what the chain reads of a request before it knows who asks.
pub fn request(text: &str) {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let (path, query) = first.split_once('?').unwrap_or((first, ""));
    let query = Query::parse(query);
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let info = RequestInfo::parse(&method, path, &query);
        assert!(!info.verb.is_empty() && (info.is_resource || info.resource.is_empty()), "{info:?}");
    }
    assert_eq!(decode(&encode(path), true).as_deref(), Some(path));
    let mut headers = HeaderMap::new();
    for (name, value) in lines.take(64).filter_map(|l| l.split_once(':')) {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.trim().as_bytes()), HeaderValue::from_str(value.trim())) else { continue };
        headers.append(name, value);
    }
    for (views, protobuf) in [(true, true), (false, true), (true, false)] {
        if let Err(refusal) = negotiate(&headers, &query, views, protobuf) {
            assert_eq!(refusal.code, 406);
        }
    }
    for accept in headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()) {
        assert!(kinds(accept).len() <= 64);
    }
    if let Ok(Some(user)) = impersonate::wanted(&headers) {
        assert!(!user.name.is_empty());
    }
    let mut stripped = headers.clone();
    request_header::strip(&RequestHeader::default(), &mut stripped);
    let believed = ["x-remote-user", "x-remote-uid", "x-remote-group"];
    assert!(stripped.keys().all(|name| !believed.contains(&name.as_str()) && !name.as_str().starts_with("x-remote-extra-")));
}

/// Where a target keeps keys from run to run; the directory of another process would be written at the same time.
fn place() -> PathBuf {
    std::env::temp_dir().join(format!("skiff-fuzz-{}", std::process::id()))
}

/// A whole server, which nobody but the fuzzer reaches.
struct Front {
    runtime: tokio::runtime::Runtime,
    server: Handle,
}

impl Front {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut config = Config::new(place());
        config.bind_address = std::net::Ipv4Addr::LOCALHOST.into();
        config.secure_port = 0;
        let server = runtime.block_on(Server::start(config, Arc::new(store::Embedded::in_memory()))).expect("a server");
        Self { runtime, server }
    }
}

/// A connection of somebody unknown who says `said` and leaves, as it is after the handshake; what it is told goes nowhere.
pub fn http(said: &[u8]) {
    thread_local!(static FRONT: Front = Front::open());
    FRONT.with(|front| {
        let io = tokio::io::join(std::io::Cursor::new(said.to_vec()), tokio::io::sink());
        let origin = Origin::Network(Arc::new(Peer::new(Vec::new(), None)));
        front.runtime.block_on(async {
            listen::serve_io(TokioIo::new(io), front.server.api().clone(), origin, CancellationToken::new()).await;
            // What the connection has begun ends, too.
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        });
    });
}

/// What somebody says before and in the handshake.
pub fn tls(said: &[u8]) {
    thread_local!(static CONFIG: Arc<rustls::ServerConfig> = {
        let pki = Pki::open(&place()).expect("keys");
        let identity = pki.serving("fuzz", "fuzz", &[], &["localhost".to_owned()]).expect("a certificate");
        let verifier = tls::verifier([pki.ca.der().expect("a CA")]).expect("a verifier");
        Arc::new(tls::server_config_of(&tls::Offer::new(&[], "").expect("everything"), &identity, verifier).expect("a configuration"))
    });
    let mut connection = ServerConnection::new(CONFIG.with(Arc::clone)).expect("a connection");
    let mut said = said;
    while !said.is_empty() && connection.wants_read() {
        if connection.read_tls(&mut said).is_err() || connection.process_new_packets().is_err() {
            break;
        }
        while connection.wants_write() {
            connection.write_tls(&mut std::io::sink()).expect("a sink takes all");
        }
    }
    assert!(connection.is_handshaking(), "nobody shakes hands by chance");
}

/// A client's certificate, and a request for one.
pub fn certificate(der: &[u8]) {
    thread_local!(static PKI: Pki = Pki::open(&place()).expect("keys"));
    let certificate = CertificateDer::from(der.to_vec());
    if let Some(user) = x509::user_of(&certificate) {
        assert_eq!(x509::common_name(&certificate), Some(user.name));
    }
    let request = pki::service_account::pem("CERTIFICATE REQUEST", der);
    for pem in [request.as_bytes(), der] {
        drop(std::hint::black_box(pki::request_common_name(pem)));
        let usages = ["client auth".to_owned()];
        let grant = Grant { usages: &usages, not_before: 0, not_after: 1 << 31 };
        if let Err(why) = PKI.with(|pki| pki.ca.sign_request(pem, &grant)) {
            assert!(!why.is_empty());
        }
    }
}
