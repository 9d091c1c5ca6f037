//! Who the server takes its clients for, over real TLS.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use crate::pki::{Identity, Usage};
use crate::{Config, Handle, Server, tls};

mod issuers;

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

pub(crate) struct Cluster {
    pub(crate) api: Handle,
    dir: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start(change: impl FnOnce(&mut Config, &std::path::Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("pki"));
        config.bind_address = [127, 0, 0, 1].into();
        config.secure_port = 0;
        change(&mut config, dir.path());
        let api = Server::start(config, Arc::new(store::Embedded::in_memory())).await.unwrap();
        Self { api, dir }
    }

    /// As the all-powerful.
    pub(crate) async fn root(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let answer = self.api.service().oneshot(request.body(Full::from(body.to_string())).unwrap()).await.unwrap();
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub(crate) async fn make(&self, path: &str, body: Value) -> Value {
        let (code, made) = self.root("POST", path, body).await;
        assert!(code < 300, "{path}: {made}");
        made
    }

    /// Over TLS, with a certificate or without.
    pub(crate) async fn send(
        &self,
        identity: Option<&Identity>,
        headers: &[(&str, &str)],
        method: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value, http::HeaderMap) {
        let mut roots = RootCertStore::empty();
        roots.add(self.api.pki().ca.der().unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(tls::provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = match identity {
            Some(identity) => {
                let (chain, key) = identity.to_rustls().unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.api.local_addr).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tls = connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "x").header("content-type", "application/json");
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        let answer = sender.send_request(request.body(Full::<Bytes>::from(body.to_string())).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        driver.abort();
        (parts.status.as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null), parts.headers)
    }

    /// The user the server sees, or the code of its refusal.
    pub(crate) async fn who(&self, identity: Option<&Identity>, headers: &[(&str, &str)]) -> Result<Value, u16> {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let (code, answer, _) = self.send(identity, headers, "POST", WHO, body).await;
        if code == 201 { Ok(answer["status"]["userInfo"].clone()) } else { Err(code) }
    }

    pub(crate) async fn bearer(&self, token: &str) -> Result<Value, u16> {
        self.who(None, &[("authorization", &format!("Bearer {token}"))]).await
    }

    async fn token(&self, account: &str, spec: Value) -> String {
        let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
        let answer = self.make(&path, json!({"spec": spec})).await;
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    async fn review(&self, token: &str, audiences: &[&str]) -> Value {
        let body = json!({"spec": {"token": token, "audiences": audiences}});
        self.make("/apis/authentication.k8s.io/v1/tokenreviews", body).await["status"].clone()
    }
}

/// A certificate of the cluster's CA (or of another signer), made to measure.
fn certificate(ca_pem: &str, ca_key: &str, chain: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "alice");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let (key, signer) = (KeyPair::generate().unwrap(), KeyPair::from_pem(ca_key).unwrap());
    let issuer = Issuer::from_ca_cert_pem(ca_pem, &signer).unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    Identity { cert_pem: format!("{}{chain}", cert.pem()), key_pem: key.serialize_pem() }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_judged_and_not_just_read() {
    let cluster = Cluster::start(|_, _| {}).await;
    let (ca, key) = (cluster.api.pki().ca.pem().to_owned(), cluster.api.pki().ca.key_pem());
    let good = certificate(&ca, &key, "", |_| {});
    assert_eq!(cluster.who(Some(&good), &[]).await.unwrap()["username"], "alice");
    let expired = certificate(&ca, &key, "", |p| {
        p.not_before = rcgen::date_time_ymd(2020, 1, 1);
        p.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let not_yet = certificate(&ca, &key, "", |p| p.not_before = rcgen::date_time_ymd(2999, 1, 1));
    let serving = certificate(&ca, &key, "", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let nameless = certificate(&ca, &key, "", |p| p.distinguished_name = rcgen::DistinguishedName::new());
    let proxy = cluster.api.pki().front_proxy_client().unwrap();
    let other = tempfile::tempdir().unwrap();
    let stranger = crate::pki::Pki::open(other.path()).unwrap().issue_client("system:admin", &["system:masters"]).unwrap();
    for (name, identity) in [
        ("expired", &expired),
        ("not yet valid", &not_yet),
        ("for servers", &serving),
        ("without a name", &nameless),
        ("of the front proxy's CA", &proxy),
        ("of a stranger's CA", &stranger),
    ] {
        assert_eq!(cluster.who(Some(identity), &[]).await, Err(401), "{name}");
    }
    // A bad certificate beside a good token: the token counts.
    cluster.make("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "sa"}})).await;
    let token = cluster.token("sa", json!({})).await;
    let both = cluster.who(Some(&expired), &[("authorization", &format!("Bearer {token}"))]).await.unwrap();
    assert_eq!(both["username"], "system:serviceaccount:default:sa");
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_end_at_the_authority_and_leaves_sign_nothing() {
    let cluster = Cluster::start(|_, _| {}).await;
    let (ca, key) = (cluster.api.pki().ca.pem().to_owned(), cluster.api.pki().ca.key_pem());
    let middle = certificate(&ca, &key, "", |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        p.distinguished_name.push(DnType::CommonName, "middle");
        p.extended_key_usages.clear();
    });
    let through = certificate(&middle.cert_pem, &middle.key_pem, &middle.cert_pem, |_| {});
    assert_eq!(cluster.who(Some(&through), &[]).await.unwrap()["username"], "alice");
    let alone = certificate(&middle.cert_pem, &middle.key_pem, "", |_| {});
    assert_eq!(cluster.who(Some(&alone), &[]).await, Err(401), "the chain is incomplete");
    // A client's own certificate is no authority.
    let leaf = certificate(&ca, &key, "", |p| p.distinguished_name.push(DnType::CommonName, "leaf"));
    let forged = certificate(&leaf.cert_pem, &leaf.key_pem, &leaf.cert_pem, |_| {});
    assert_eq!(cluster.who(Some(&forged), &[]).await, Err(401));
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_front_proxy_vouches_for_others() {
    let cluster = Cluster::start(|_, _| {}).await;
    let pki = cluster.api.pki();
    let claim = [("x-remote-user", "system:admin"), ("x-remote-group", "system:masters"), ("x-remote-extra-scopes", "a")];
    assert_eq!(cluster.who(None, &claim).await, Err(403), "anonymous, whatever the headers say");
    let client = pki.issue_client("alice", &[]).unwrap();
    let seen = cluster.who(Some(&client), &claim).await.unwrap();
    assert_eq!((&seen["username"], &seen["groups"]), (&json!("alice"), &json!(["system:authenticated"])));
    // The right name from the wrong authority, and a wrong name from the right one.
    let namesake = pki.issue_client("front-proxy-client", &[]).unwrap();
    assert_eq!(cluster.who(Some(&namesake), &claim).await.unwrap()["username"], "front-proxy-client");
    let stranger = pki.front_proxy_ca.issue("someone", &[], &[], Usage::Client).unwrap();
    assert_eq!(cluster.who(Some(&stranger), &claim).await, Err(401));
    let proxy = pki.front_proxy_client().unwrap();
    let seen = cluster.who(Some(&proxy), &claim).await.unwrap();
    assert_eq!(seen["username"], "system:admin");
    assert_eq!(seen["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(seen["extra"]["scopes"], json!(["a"]));
    assert_eq!(cluster.who(Some(&proxy), &[("x-remote-group", "system:masters")]).await, Err(401), "no user named");
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_live_and_die_with_what_they_are_bound_to() {
    let cluster = Cluster::start(|_, _| {}).await;
    cluster.make("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "sa"}})).await;
    cluster.make("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "sa", "nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    let pod = cluster.make("/api/v1/namespaces/default/pods", pod).await;
    let bound = cluster.token("sa", json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}})).await;
    let user = cluster.bearer(&bound).await.unwrap();
    let extra = |key: &str| user["extra"][format!("authentication.kubernetes.io/{key}")][0].as_str().unwrap_or("").to_owned();
    assert_eq!(extra("pod-uid"), pod["metadata"]["uid"]);
    assert_eq!(extra("node-name"), "n");
    assert!(extra("node-uid").len() == 36 && extra("credential-id").starts_with("JTI="));
    let (_, gone) = cluster.root("DELETE", "/api/v1/namespaces/default/pods/p", json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(gone["kind"], "Pod");
    assert_eq!(cluster.bearer(&bound).await, Err(401));
    let why = cluster.review(&bound, &[]).await["error"].clone();
    assert_eq!(why, "[invalid bearer token, service account token has been invalidated]");
    // Another account of the same name is another account.
    let plain = cluster.token("sa", json!({})).await;
    assert!(cluster.bearer(&plain).await.is_ok());
    cluster.root("DELETE", "/api/v1/namespaces/default/serviceaccounts/sa", json!({})).await;
    assert_eq!(cluster.bearer(&plain).await, Err(401));
    cluster.make("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "sa"}})).await;
    assert_eq!(cluster.bearer(&plain).await, Err(401));
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_its_audience_alone() {
    let cluster = Cluster::start(|_, _| {}).await;
    cluster.make("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "sa"}})).await;
    let vault = cluster.token("sa", json!({"audiences": ["vault", "other"]})).await;
    assert_eq!(cluster.bearer(&vault).await, Err(401));
    let seen = cluster.review(&vault, &["vault", "third"]).await;
    assert_eq!((&seen["authenticated"], &seen["audiences"]), (&json!(true), &json!(["vault"])));
    let refused = cluster.review(&vault, &["third"]).await;
    assert_eq!(refused["authenticated"], Value::Null);
    let text = "[invalid bearer token, token audiences [\"vault\" \"other\"] is invalid for the target audiences [\"third\"]]";
    assert_eq!(refused["error"], text);
    for token in ["x", "a.b.c", &vault[..vault.len() - 4], ""] {
        let seen = cluster.review(if token.is_empty() { "y" } else { token }, &[]).await;
        assert_eq!(seen["error"], "invalid bearer token", "{token}");
    }
    let huge = "a".repeat(50_000);
    assert_eq!(cluster.bearer(&huge).await, Err(401));
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_tokens_are_checked() {
    let cluster = Cluster::start(|config, _| {
        config.authentication.service_account.max_token_expiration = Some(std::time::Duration::from_secs(7200));
    })
    .await;
    cluster.make("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "sa"}})).await;
    let ask = async |body: Value| cluster.root("POST", "/api/v1/namespaces/default/serviceaccounts/sa/token", body).await;
    let message = async |body: Value| {
        let (code, answer) = ask(body).await;
        (code, answer["message"].as_str().unwrap_or("").to_owned())
    };
    let bind =
        |kind: &str, version: &str, name: &str| json!({"spec": {"boundObjectRef": {"kind": kind, "apiVersion": version, "name": name}}});
    for (body, code, text) in [
        (json!({"spec": {"expirationSeconds": 599}}), 422, "may not specify a duration less than 10 minutes"),
        (json!({"spec": {"expirationSeconds": 1_i64 << 33}}), 422, "may not specify a duration larger than 2^32 seconds"),
        (json!({"metadata": {"name": "other"}}), 422, "must match the service account name if specified"),
        (json!({"metadata": {"uid": "x"}}), 409, "the UID in the token request (x) does not match"),
        (bind("ConfigMap", "v1", "c"), 400, "cannot bind token for object of type /v1, Kind=ConfigMap"),
        (bind("Pod", "v1", "none"), 404, "pods \"none\" not found"),
    ] {
        let (got, said) = message(body).await;
        assert!(got == code && said.contains(text), "{got} {said}");
    }
    let (code, long) = ask(json!({"spec": {"expirationSeconds": 86400}})).await;
    assert_eq!((code, &long["spec"]["expirationSeconds"]), (201, &json!(7200)));
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_and_bootstrap_tokens_name_their_users() {
    let cluster = Cluster::start(|config, dir| {
        let path = dir.join("tokens.csv");
        std::fs::write(&path, "s3cret,carol,7,\"a,b\"\n").unwrap();
        config.authentication.token_auth_file = Some(path);
    })
    .await;
    let carol = cluster.bearer("s3cret").await.unwrap();
    assert_eq!(
        (&carol["username"], &carol["uid"], &carol["groups"]),
        (&json!("carol"), &json!("7"), &json!(["a", "b", "system:authenticated"]))
    );
    let encoded = |text: &str| STANDARD.encode(text);
    let secret = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": {
        "token-id": encoded("abcdef"), "token-secret": encoded("0123456789abcdef"), "usage-bootstrap-authentication": encoded("true"),
        "auth-extra-groups": encoded("system:bootstrappers:kubeadm:default-node-token"),
    }});
    assert_eq!(cluster.bearer("abcdef.0123456789abcdef").await, Err(401));
    cluster.make("/api/v1/namespaces/kube-system/secrets", secret).await;
    let user = cluster.bearer("abcdef.0123456789abcdef").await.unwrap();
    assert_eq!(user["username"], "system:bootstrap:abcdef");
    assert_eq!(cluster.bearer("abcdef.0123456789abcdee").await, Err(401));
    // A browser's WebSocket has no other place for a token than its subprotocols; there must be another one.
    let protocol = |token: &str, rest: &str| {
        let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token);
        format!("base64url.bearer.authorization.k8s.io.{encoded}{rest}")
    };
    let socket = async |protocols: &str| {
        cluster.who(None, &[("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-protocol", protocols)]).await
    };
    assert_eq!(socket(&protocol("s3cret", ", v4.channel.k8s.io")).await.unwrap()["username"], "carol");
    assert_eq!(socket(&protocol("s3cret", "")).await, Err(403), "anonymous");
    assert_eq!(socket(&protocol("wrong", ", v4.channel.k8s.io")).await, Err(401));
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_tokens_are_good_while_their_secret_holds_them() {
    let cluster = Cluster::start(|_, _| {}).await;
    let account = cluster.make("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "sa"}})).await;
    let claims = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:sa",
        "kubernetes.io/serviceaccount/namespace": "default", "kubernetes.io/serviceaccount/secret.name": "s",
        "kubernetes.io/serviceaccount/service-account.name": "sa",
        "kubernetes.io/serviceaccount/service-account.uid": account["metadata"]["uid"],
    });
    let token = cluster.api.pki().service_account().await.sign(&claims).unwrap();
    assert_eq!(cluster.bearer(&token).await, Err(401), "no secret holds it");
    let secret = json!({"metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "sa"}},
        "type": "kubernetes.io/service-account-token", "data": {"token": STANDARD.encode(&token)}});
    cluster.make("/api/v1/namespaces/default/secrets", secret).await;
    assert_eq!(cluster.bearer(&token).await.unwrap()["uid"], account["metadata"]["uid"]);
    let (_, noted) = cluster.root("GET", "/api/v1/namespaces/default/secrets/s", Value::Null).await;
    let day = noted["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].as_str().unwrap();
    assert!(day.len() == 10 && day.starts_with("20"), "{day}");
    let path = "/api/v1/namespaces/default/serviceaccounts/sa";
    let (_, mut account) = cluster.root("GET", path, Value::Null).await;
    account["secrets"] = json!([{"name": "s"}]);
    assert_eq!(cluster.root("PUT", path, account).await.0, 200);
    let bearer = format!("Bearer {token}");
    let (_, _, headers) = cluster.send(None, &[("authorization", &bearer)], "GET", "/version", Value::Null).await;
    assert!(headers["warning"].to_str().unwrap().contains("auto-generated secret-based tokens"));
    let path = "/api/v1/namespaces/default/secrets/s";
    let (_, mut secret) = cluster.root("GET", path, Value::Null).await;
    secret["metadata"]["labels"]["kubernetes.io/legacy-token-invalid-since"] = json!("2026-01-01");
    assert_eq!(cluster.root("PUT", path, secret).await.0, 200);
    assert_eq!(cluster.bearer(&token).await, Err(401));
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_anonymous_users_everybody_needs_a_name() {
    let cluster = Cluster::start(|config, _| config.anonymous_auth = false).await;
    assert_eq!(cluster.send(None, &[], "GET", "/healthz", Value::Null).await.0, 401);
    let basic = [("authorization", "Basic YTpi")];
    assert_eq!(cluster.send(None, &basic, "GET", "/healthz", Value::Null).await.0, 401);
    let pem = std::fs::read_to_string(cluster.dir.path().join("pki/ca.crt")).unwrap();
    assert!(CertificateDer::from_pem_slice(pem.as_bytes()).is_ok());
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acting_as_others_takes_the_rights_to() {
    let cluster = Cluster::start(|_, _| {}).await;
    let bob = cluster.api.pki().issue_client("bob", &[]).unwrap();
    let grant = async |name: &str, rules: Value| {
        let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        cluster.make(roles, json!({"metadata": {"name": name}, "rules": rules})).await;
        let binding = json!({"metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "name": "bob"}]});
        cluster.make("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    };
    let as_alice = [("impersonate-user", "alice")];
    let (code, refusal, _) = cluster.send(Some(&bob), &as_alice, "GET", "/api/v1/namespaces", Value::Null).await;
    let text = "namespaces is forbidden: User \"bob\" cannot impersonate-on:user-info:list resource \"namespaces\" in API group \"\" at the cluster scope";
    assert_eq!((code, refusal["message"].as_str().unwrap()), (403, text));
    // The legacy verb is enough, for what was named.
    grant("legacy", json!([{"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["alice"]}])).await;
    let seen = cluster.who(Some(&bob), &as_alice).await.unwrap();
    assert_eq!((&seen["username"], &seen["groups"]), (&json!("alice"), &json!(["system:authenticated"])));
    assert_eq!(cluster.who(Some(&bob), &[("impersonate-user", "carol")]).await, Err(403));
    assert_eq!(cluster.who(Some(&bob), &[("impersonate-user", "alice"), ("impersonate-group", "system:masters")]).await, Err(403));
    assert_eq!(cluster.who(Some(&bob), &[("impersonate-group", "system:masters")]).await, Err(400));
    // Constrained: as any account, but to say who it is alone.
    grant(
        "constrained",
        json!([{"apiGroups": ["authentication.k8s.io"], "resources": ["serviceaccounts"], "verbs": ["impersonate:serviceaccount"]},
            {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["impersonate-on:serviceaccount:create"]}]),
    )
    .await;
    let account = [("impersonate-user", "system:serviceaccount:kube-system:x")];
    let seen = cluster.who(Some(&bob), &account).await.unwrap();
    assert_eq!(seen["groups"], json!(["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]));
    assert_eq!(cluster.send(Some(&bob), &account, "GET", "/api/v1/namespaces", Value::Null).await.0, 403);
    cluster.api.shutdown().await;
}
