//! The audit log and webhook.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{As, Cluster};
use crate::audit::{Batching, Format, LogOptions, Mode, WebhookOptions};

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  users: [system:apiserver]
- level: None
  nonResourceURLs: [/readyz]
- level: Metadata
  resources: [{group: '', resources: [secrets, serviceaccounts/token]}]
- level: RequestResponse
  omitManagedFields: true
  omitStages: [RequestReceived]
  verbs: [create]
- level: Request
  verbs: [patch]
- level: Metadata
";

fn log_to(config: &mut crate::Config, dir: &std::path::Path) {
    let policy = dir.join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    config.audit.policy_file = Some(policy);
    let path = dir.join("audit.log");
    config.audit.log =
        Some(LogOptions { path, max_age: 0, max_backup: 0, max_size: 100, format: Format::Json, compress: false, mode: Mode::Blocking });
}

fn events(dir: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("audit.log")).unwrap_or_default();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn at<'a>(events: &'a [Value], id: &str, stage: &str) -> Option<&'a Value> {
    events.iter().find(|e| e["auditID"] == id && e["stage"] == stage)
}

#[tokio::test]
async fn tokens_that_should_have_been_replaced_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(|config| log_to(config, dir.path())).await;
    let account = cluster.ok("POST", "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "s"}})).await;
    let (now, issuer) = (jiff::Timestamp::now().as_second(), "https://kubernetes.default.svc.cluster.local");
    for (warn_after, id) in [(now + 300, "fresh"), (now - 100, "stale")] {
        let private =
            json!({"namespace": "default", "serviceaccount": {"name": "s", "uid": account["metadata"]["uid"]}, "warnafter": warn_after});
        let claims = json!({"iss": issuer, "aud": [issuer], "exp": now + 600, "iat": now - 60, "nbf": now - 60,
            "sub": "system:serviceaccount:default:s", "kubernetes.io": private});
        let bearer = format!("Bearer {}", cluster.api.pki().service_account().await.sign(&claims).unwrap());
        let mut nobody = cluster.client(As::Nobody).await;
        let request = Request::get("https://h/version").header("authorization", bearer).header("audit-id", id);
        assert_eq!(nobody.0.send_request(request.body(Full::default()).unwrap()).await.unwrap().status(), 200);
    }
    let metrics = cluster.metrics().await;
    assert!(metrics.contains("serviceaccount_stale_tokens_total 1") && metrics.contains("serviceaccount_valid_tokens_total 1"));
    cluster.end().await;
    let events = events(dir.path());
    let note = |id: &str| at(&events, id, "ResponseComplete").unwrap()["annotations"]["authentication.k8s.io/stale-token"].clone();
    assert_eq!(note("fresh"), Value::Null);
    let said = note("stale").as_str().unwrap().to_owned();
    assert!(said.starts_with("subject: system:serviceaccount:default:s, seconds after warning threshold: 10"), "{said}");
}

#[tokio::test]
async fn events_say_what_the_policy_asks_for_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(|config| log_to(config, dir.path())).await;
    let admin = cluster.client(As::Admin).await;
    let path = "/api/v1/namespaces/default";
    let send =
        async |method: &str, path: &str, kind: &str, body: Value| admin.send(method, path, kind, body.to_string().into()).await.unwrap();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let made = send("POST", &format!("{path}/configmaps"), "application/json", map).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "hunter2"}});
    let hidden = send("POST", &format!("{path}/secrets"), "application/json", secret).await;
    let patched = send("PATCH", &format!("{path}/configmaps/a"), "application/merge-patch+json", json!({"data": {"k": "w"}})).await;
    let missing = admin.get(&format!("{path}/configmaps/none?pretty=1")).await;
    admin.get("/readyz").await;
    let nobody = cluster.client(As::Nobody).await;
    let forbidden = nobody.get(&format!("{path}/pods")).await;
    let watch = admin.begin(&format!("{path}/configmaps?watch=true&timeoutSeconds=1")).await;
    let watch_id = watch.headers()["audit-id"].to_str().unwrap().to_owned();
    watch.into_body().collect().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let all = events(dir.path());
    let of = |said: &super::Said, stage: &str| at(&all, said.header("audit-id"), stage).cloned();

    let event = of(&made, "ResponseComplete").unwrap();
    assert_eq!(of(&made, "RequestReceived"), None);
    assert_eq!(
        (&event["level"], &event["verb"], &event["user"]["username"]),
        (&"RequestResponse".into(), &"create".into(), &"admin".into())
    );
    assert_eq!(event["requestURI"], format!("{path}/configmaps"));
    assert_eq!(event["objectRef"], json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"}));
    assert_eq!((&event["requestObject"]["data"]["k"], &event["responseObject"]["metadata"]["name"]), (&"v".into(), &"a".into()));
    assert_eq!(event["responseObject"]["metadata"].get("managedFields"), None);
    assert_eq!((&event["responseStatus"], &event["sourceIPs"]), (&json!({"metadata": {}, "code": 201}), &json!(["127.0.0.1"])));
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");

    let event = of(&hidden, "ResponseComplete").unwrap();
    assert_eq!((event.get("requestObject"), event.get("responseObject")), (None, None));
    assert_eq!(event["objectRef"]["name"], "s");
    assert!(of(&hidden, "RequestReceived").is_some());
    assert!(!std::fs::read_to_string(dir.path().join("audit.log")).unwrap().contains("hunter2"));

    assert_eq!(of(&patched, "ResponseComplete").unwrap()["requestObject"], json!({"data": {"k": "w"}}));
    assert_eq!(of(&patched, "ResponseComplete").unwrap().get("responseObject"), None);
    let status = &of(&missing, "ResponseComplete").unwrap()["responseStatus"];
    assert_eq!((&status["code"], &status["reason"]), (&404.into(), &"NotFound".into()));
    let event = of(&forbidden, "ResponseComplete").unwrap();
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(event["responseStatus"]["code"], 403);
    assert!(at(&all, &watch_id, "ResponseStarted").is_some() && at(&all, &watch_id, "ResponseComplete").is_some());
    assert!(all.iter().all(|e| e["requestURI"] != "/readyz" && e["user"]["username"] != "system:apiserver"));
    cluster.end().await;
}

#[tokio::test]
async fn tokens_never_reach_the_log_and_failures_do() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(|config| log_to(config, dir.path())).await;
    let mut io = cluster.tls(As::Nobody, "http/1.1").await;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let request =
        "GET /api/v1/pods HTTP/1.1\r\nhost: x\r\naudit-id: mine\r\nauthorization: Bearer sesame-open\r\nconnection: close\r\n\r\n";
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap_or_default();
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("\r\naudit-id: mine\r\n"), "{answer}");
    let all = events(dir.path());
    let event = at(&all, "mine", "ResponseStarted").unwrap();
    assert_eq!((&event["responseStatus"]["code"], &event["user"]), (&401.into(), &json!({})));
    assert_eq!(event["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    assert!(!std::fs::read_to_string(dir.path().join("audit.log")).unwrap().contains("sesame"));
    cluster.end().await;
}

#[tokio::test]
async fn a_webhook_gets_batches() {
    let dir = tempfile::tempdir().unwrap();
    let pki = crate::pki::Pki::open(&dir.path().join("hook-pki")).unwrap();
    let ca = &pki.ca;
    let serving = ca.issue("hook", &[], &["127.0.0.1".to_owned()], crate::pki::Usage::Server).unwrap();
    let mut tls = crate::tls::server_config(&serving, crate::tls::verifier([ca.der().unwrap()]).unwrap()).unwrap();
    tls.alpn_protocols.clear();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let got: Arc<Mutex<Vec<Value>>> = Arc::default();
    let sink = got.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(stream).await else { continue };
            let sink = sink.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let sink = sink.clone();
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let mut seen = sink.lock().unwrap();
                    seen.push(serde_json::from_slice(&body).unwrap());
                    // The first is refused, and comes again.
                    let code = if seen.len() == 1 { 503 } else { 200 };
                    Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(Full::<Bytes>::default()).unwrap())
                }
            });
            tokio::spawn(async move {
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await.unwrap_or_default()
            });
        }
    });
    let config_file = dir.path().join("hook.yaml");
    use base64::Engine as _;
    let bundle = base64::engine::general_purpose::STANDARD.encode(ca.pem());
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: k}}}}]\nclusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:{port}/audit', certificate-authority-data: {bundle}}}}}]"
    );
    std::fs::write(&config_file, text).unwrap();
    let cluster = Cluster::start(|config| {
        log_to(config, dir.path());
        config.audit.log = None;
        let (wait_max, backoff) = (Duration::from_millis(50), Duration::from_millis(50));
        let mode = Mode::Batch(Batching { buffer: 100, events_max: 400, wait_max, throttle: Some((10.0, 15.0)) });
        config.audit.webhook = Some(WebhookOptions { mode, backoff, ..WebhookOptions::new(config_file) });
    })
    .await;
    let admin = cluster.client(As::Admin).await;
    let said = admin.get("/api/v1/namespaces/default").await;
    trial::until("two batches came", async || got.lock().unwrap().len() >= 2).await;
    cluster.end().await;
    let lists = got.lock().unwrap();
    assert_eq!(lists[0], lists[1], "what was refused came again");
    assert_eq!((&lists[1]["kind"], &lists[1]["apiVersion"]), (&"EventList".into(), &"audit.k8s.io/v1".into()));
    let items: Vec<Value> = lists.iter().flat_map(|l| l["items"].as_array().unwrap().clone()).collect();
    assert!(at(&items, said.header("audit-id"), "ResponseComplete").is_some());
}

#[tokio::test]
async fn the_log_is_written_later_or_must_be_written_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(|config| {
        log_to(config, dir.path());
        config.audit.log.as_mut().unwrap().mode =
            Mode::Batch(Batching { buffer: 100, events_max: 1, wait_max: Duration::ZERO, throttle: None });
    })
    .await;
    let admin = cluster.client(As::Admin).await;
    for _ in 0..5 {
        assert_eq!(admin.get("/version").await.code, 200);
    }
    cluster.end().await;
    let versions = events(dir.path()).iter().filter(|e| e["requestURI"] == "/version" && e["stage"] == "ResponseComplete").count();
    assert_eq!(versions, 5, "what is left is written when the server ends");
    // A device that is always full: nothing can be noted, so nothing is served.
    for (mode, code) in [(Mode::Blocking, 200), (Mode::BlockingStrict, 500)] {
        let cluster = Cluster::start(|config| {
            log_to(config, dir.path());
            let log = config.audit.log.as_mut().unwrap();
            (log.path, log.mode) = ("/dev/full".into(), mode);
        })
        .await;
        let said = cluster.client(As::Admin).await.get("/version").await;
        assert_eq!(said.code, code, "{mode:?}: {}", said.text);
        assert!(code == 200 || said.text.contains("failed to update audit event"), "{}", said.text);
        cluster.end().await;
    }
}

#[tokio::test]
async fn a_webhook_may_have_to_take_events_before_the_request_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    // A port that nobody listens at.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config_file = dir.path().join("hook.yaml");
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: k}}}}]\nclusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:{closed}/audit', insecure-skip-tls-verify: true}}}}]"
    );
    std::fs::write(&config_file, text).unwrap();
    for (mode, code) in [(Mode::Blocking, 200), (Mode::BlockingStrict, 500)] {
        let cluster = Cluster::start(|config| {
            log_to(config, dir.path());
            let backoff = Duration::from_millis(1);
            config.audit.webhook = Some(WebhookOptions { mode, backoff, ..WebhookOptions::new(config_file.clone()) });
        })
        .await;
        let said = cluster.client(As::Admin).await.get("/version").await;
        assert_eq!(said.code, code, "{mode:?}: {}", said.text);
        let metrics = cluster.metrics().await;
        assert!(metrics.contains("apiserver_audit_error_total{plugin=\"webhook\"} "), "{metrics}");
        cluster.end().await;
    }
}
