//! The way to a kubelet, tried on a running API server and a kubelet of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::pki::Usage;
use crate::{Config, Handle, Server, tls};

/// Says what it was asked; switches to echoing where it is asked to switch.
async fn kubelet(mut request: Request<Incoming>, caller: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    if request.headers().contains_key("upgrade") {
        let asked = format!("{} {} {}\n", request.method(), request.uri(), request.headers()["sec-websocket-protocol"].to_str().unwrap());
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            io.write_all(asked.as_bytes()).await.unwrap();
            let (mut from, mut to) = tokio::io::split(io);
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        return response;
    }
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let code = match uri.path() {
        "/moved" => {
            response.headers_mut().insert("location", "/there".parse().unwrap());
            302
        }
        "/page" => {
            response.headers_mut().insert("content-type", "text/html; charset=utf-8".parse().unwrap());
            *response.body_mut() = Full::from("<a href=\"/logs/\">logs</a><img src=x>");
            return response;
        }
        p if p.ends_with("/waiting") => 400,
        p if p.ends_with("/lost") => 404,
        _ => 200,
    };
    let body = request.into_body().collect().await.unwrap().to_bytes();
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    *response.body_mut() = Full::from(format!("{caller}: {method} {uri} {}", String::from_utf8_lossy(&body)));
    response
}

struct Cluster {
    api: Handle,
    work: JoinSet<()>,
    /// Connections to the kubelet there were.
    accepted: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("pki"));
        config.bind_address = [127, 0, 0, 1].into();
        config.secure_port = 0;
        config.disable_admission_plugins = vec!["ServiceAccount".to_owned()];
        let api = Server::start(config, Arc::new(store::Embedded::in_memory())).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = api.pki().ca.issue("system:node:n", &["system:nodes"], &["127.0.0.1".to_owned()], Usage::Server).unwrap();
        let verifier = tls::verifier([api.pki().ca.der().unwrap()]).unwrap();
        let mut config = tls::server_config(&serving, verifier).unwrap();
        config.alpn_protocols.clear();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (mut work, accepted) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        let count = accepted.clone();
        work.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let tls = acceptor.accept(stream).await.unwrap();
                let leaf = tls.get_ref().1.peer_certificates().unwrap()[0].to_vec();
                let caller = crate::authn::x509::user_of(&leaf.into()).unwrap().name;
                let service = hyper::service::service_fn(move |request| {
                    let caller = caller.clone();
                    async move { Ok::<_, std::convert::Infallible>(kubelet(request, caller).await) }
                });
                let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).with_upgrades();
                tokio::spawn(async move { serving.await.unwrap_or_default() });
            }
        });
        let cluster = Self { api, work, accepted, _dir: dir };
        cluster.objects(port).await;
        cluster
    }

    async fn objects(&self, port: u16) {
        self.ok("POST", "/api/v1/nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})).await;
        let status =
            json!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": status});
        self.ok("PUT", "/api/v1/nodes/n/status", node).await;
        for (name, node, containers) in [("one", "n", vec!["a"]), ("two", "n", vec!["waiting", "lost"]), ("nowhere", "", vec!["a"])] {
            let containers: Vec<Value> = containers.iter().map(|c| json!({"name": c, "image": "i"})).collect();
            let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, "nodeName": node}});
            if node.is_empty() {
                pod["spec"].as_object_mut().unwrap().remove("nodeName");
            }
            self.ok("POST", "/api/v1/namespaces/default/pods", pod.clone()).await;
            pod["status"] = json!({"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]});
            self.ok("PUT", &format!("/api/v1/namespaces/default/pods/{name}/status"), pod).await;
        }
    }

    async fn ask(&self, method: &str, path: &str, body: String) -> (u16, String) {
        let request =
            Request::builder().method(method).uri(path).header("content-type", "application/json").body(Full::from(body)).unwrap();
        let answer = self.api.service().oneshot(request).await.unwrap();
        let code = answer.status().as_u16();
        (code, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    async fn ok(&self, method: &str, path: &str, body: Value) {
        let (code, text) = self.ask(method, path, body.to_string()).await;
        assert!(code < 300, "{method} {path}: {text}");
    }

    /// Code and message of a refusal, or the text of an answer.
    async fn get(&self, path: &str) -> (u16, String) {
        let (code, text) = self.ask("GET", path, String::new()).await;
        let status: Option<Value> = serde_json::from_str(&text).ok();
        (code, status.and_then(|s| s["message"].as_str().map(str::to_owned)).unwrap_or(text))
    }

    async fn end(mut self) {
        self.work.shutdown().await;
        self.api.shutdown().await;
    }
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let cluster = Cluster::start().await;
    let log = async |rest: &str| cluster.get(&format!("/api/v1/namespaces/default/pods/{rest}")).await;
    let me = "kube-apiserver-kubelet-client: GET";
    assert_eq!(log("one/log").await, (200, format!("{me} /containerLogs/default/one/a ")));
    assert_eq!(log("one/log?tailLines=3&follow=true").await.1, format!("{me} /containerLogs/default/one/a?follow=true&tailLines=3 "));
    let several = "a container name must be specified for pod two, choose one of: [waiting lost]";
    assert_eq!(log("two/log").await, (400, several.to_owned()));
    assert_eq!(log("two/log?container=x").await, (400, "container x is not valid for pod two".to_owned()));
    assert_eq!(log("two/log?container=waiting").await, (400, format!("{me} /containerLogs/default/two/waiting ")));
    let lost = "the server could not find the requested resource ( pods/log two)";
    assert_eq!(log("two/log?container=lost").await, (404, lost.to_owned()));
    assert_eq!(log("nowhere/log").await, (204, String::new()));
    assert_eq!(log("none/log").await, (404, "pods \"none\" not found".to_owned()));
    cluster.end().await;
}

#[tokio::test]
async fn proxies_pass_requests_on_but_not_to_this_host() {
    let cluster = Cluster::start().await;
    let (code, text) = cluster.ask("POST", "/api/v1/nodes/n/proxy/run/x%2Fy/?a=%20b", "body".to_owned()).await;
    assert_eq!((code, text.as_str()), (200, "kube-apiserver-kubelet-client: POST /run/x%2Fy/?a=%20b body"));
    assert_eq!(cluster.get("/api/v1/nodes/n/proxy").await.0, 301);
    let request = Request::get("/api/v1/nodes/n/proxy/moved").body(Full::<Bytes>::default()).unwrap();
    let answer = cluster.api.service().oneshot(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["location"]), (302, &"/api/v1/nodes/n/proxy/there".parse().unwrap()));
    let not_allowed = (400, "address not allowed".to_owned());
    assert_eq!(cluster.get("/api/v1/nodes/n:1/proxy/").await, not_allowed);
    assert_eq!(cluster.get("/api/v1/namespaces/default/pods/one:80/proxy/").await, not_allowed);
    assert_eq!(cluster.get("/api/v1/nodes/a:b:c:d/proxy/").await, (400, "invalid node request \"a:b:c:d\"".to_owned()));
    let none = |id: &str| (503, format!("no endpoints available for service {id:?}"));
    assert_eq!(cluster.get("/api/v1/namespaces/default/services/kubernetes:https/proxy/").await, none("kubernetes:https"));
    let port = "no service port 80 found for service \"kubernetes\"";
    assert_eq!(cluster.get("/api/v1/namespaces/default/services/kubernetes:80/proxy/").await, (503, port.to_owned()));
    cluster.end().await;
}

#[tokio::test]
async fn connections_are_used_again_and_pages_lead_back() {
    let cluster = Cluster::start().await;
    for number in 0..20 {
        let (code, text) = cluster.get("/api/v1/nodes/n/proxy/page").await;
        let want = "<a href=\"/api/v1/nodes/n/proxy/logs/\">logs</a><img src=x>";
        assert_eq!((code, text.as_str()), (200, want));
        assert!(cluster.get("/api/v1/namespaces/default/pods/one/log").await.1.ends_with("/containerLogs/default/one/a "));
        // The answer was read a moment before the connection waits again.
        let waiting = async || cluster.api.api().connections.idle.count() == 1;
        trial::until(&format!("one connection waits after round {number}"), waiting).await;
    }
    assert!(cluster.accepted.load(Ordering::Relaxed) <= 2, "{}", cluster.accepted.load(Ordering::Relaxed));
    cluster.end().await;
}

#[tokio::test]
async fn upgrades_reach_the_kubelet_and_carry_bytes() {
    let cluster = Cluster::start().await;
    let base = "/api/v1/namespaces/default/pods";
    let required = (400, "Upgrade request required".to_owned());
    assert_eq!(cluster.get(&format!("{base}/one/exec?command=ls")).await, required);
    let unassigned = (400, "pod nowhere does not have a host assigned".to_owned());
    assert_eq!(cluster.get(&format!("{base}/nowhere/attach")).await, unassigned);

    let admin = cluster.api.pki().issue_client("admin", &["system:masters"]).unwrap();
    let (chain, key) = admin.to_rustls().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cluster.api.pki().ca.der().unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    let tcp = TcpStream::connect(cluster.api.local_addr).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut io = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let request = format!(
        "GET {base}/one/exec?command=echo&command=a%20b&stdin=true&stdout=true HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let want = "GET /exec/default/one/a?input=1&output=1&command=echo&command=a%20b v5.channel.k8s.io\n";
    while !String::from_utf8_lossy(&seen).ends_with(want) {
        assert_ne!(io.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
    }
    assert!(seen.starts_with(b"HTTP/1.1 101 "));
    io.write_all(b"any bytes \0\xff").await.unwrap();
    let mut echo = [0; 12];
    io.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"any bytes \0\xff");
    // An open stream does not keep the server from stopping.
    cluster.end().await;
    assert_eq!(io.read(&mut echo).await.unwrap_or(0), 0);
}
