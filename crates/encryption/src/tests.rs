//! Values on their way into a store and out of it again, with keys that change, and a KMS of the tests' own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use futures::StreamExt as _;
use store::{Expect, ListOptions, Op, Revision, Store, WatchItem};

use crate::config::{Config, ProviderConfig};
use crate::local::Cipher;
use crate::proto::key_management_service_server::{KeyManagementService, KeyManagementServiceServer};
use crate::proto::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse};
use crate::{Encrypted, ResourceOf};

fn resource_of() -> ResourceOf {
    Arc::new(|key| {
        let mut parts = key.trim_start_matches("/registry/").split('/');
        let first = parts.next().unwrap_or_default();
        match first.contains('.') {
            true => (first.to_owned(), parts.next().unwrap_or_default().to_owned()),
            false => (String::new(), first.to_owned()),
        }
    })
}

fn config(providers: &str) -> Config {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers: [{providers}]\n"
    );
    Config::parse(text.as_bytes()).unwrap()
}

fn key(byte: u8) -> String {
    base64::engine::general_purpose::STANDARD.encode([byte; 32])
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    let op = Op::Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), expect: Expect::Anything, ttl: None };
    store.write(op).await.unwrap().0
}

async fn raw(store: &dyn Store, key: &str) -> Vec<u8> {
    store.get(key).await.unwrap().1.unwrap().value.to_vec()
}

const SECRET: &str = "/registry/secrets/default/s";

#[tokio::test]
async fn every_cipher_keeps_values_from_readers_and_gives_them_back() {
    for kind in ["aescbc", "aesgcm", "secretbox"] {
        let inner: Arc<dyn Store> = Arc::new(store::Embedded::in_memory());
        let provider = format!("{{{kind}: {{keys: [{{name: key1, secret: {}}}]}}}}, {{identity: {{}}}}", key(1));
        let store = Encrypted::new(inner.clone(), config(&provider), resource_of());
        let mut watch = store.watch("/registry/", Revision(1)).await.unwrap();
        put(&store, SECRET, "hunter2").await;
        put(&store, "/registry/configmaps/default/c", "plain").await;
        let stored = raw(&*inner, SECRET).await;
        assert!(stored.starts_with(format!("k8s:enc:{kind}:v1:key1:").as_bytes()), "{kind}");
        assert!(!stored.windows(7).any(|w| w == b"hunter2"));
        assert_eq!(raw(&*inner, "/registry/configmaps/default/c").await, b"plain");
        assert_eq!(raw(&store, SECRET).await, b"hunter2");
        let listing = store.list("/registry/", ListOptions::default()).await.unwrap();
        assert_eq!(listing.items[1].value, "hunter2");
        let Some(Ok(WatchItem::Events(events))) = watch.next().await else { panic!("no event") };
        assert_eq!(events[0].value.as_ref().unwrap().value, "hunter2");
        let conflict = Op::Put { key: SECRET.into(), value: Bytes::new(), expect: Expect::Absent, ttl: None };
        let Err(store::Error::Conflict(Some(there))) = store.write(conflict).await else { panic!("it is there") };
        assert_eq!(there.value, "hunter2");
        let (_, gone) = store.write(Op::Delete { key: SECRET.into(), expect: Expect::Anything }).await.unwrap();
        assert_eq!(gone.unwrap().value, "hunter2");
    }
}

#[tokio::test]
async fn keys_rotate_and_old_values_are_stale() {
    let inner: Arc<dyn Store> = Arc::new(store::Embedded::in_memory());
    put(&*inner, SECRET, "from before").await;
    let gcm = |keys: &[(&str, u8)]| {
        let keys: Vec<String> = keys.iter().map(|(name, byte)| format!("{{name: {name}, secret: {}}}", key(*byte))).collect();
        format!("{{aesgcm: {{keys: [{}]}}}}, {{identity: {{}}}}", keys.join(", "))
    };
    let store = Encrypted::new(inner.clone(), config(&gcm(&[("one", 1)])), resource_of());
    assert_eq!(raw(&store, SECRET).await, b"from before");
    assert!(store.is_stale(SECRET).await.unwrap());
    put(&store, SECRET, "now").await;
    assert!(!store.is_stale(SECRET).await.unwrap());
    store.replace(config(&gcm(&[("two", 2), ("one", 1)]))).await.unwrap();
    assert_eq!(raw(&store, SECRET).await, b"now");
    assert!(store.is_stale(SECRET).await.unwrap());
    put(&store, SECRET, "now").await;
    assert!(raw(&*inner, SECRET).await.starts_with(b"k8s:enc:aesgcm:v1:two:"));
    store.replace(config(&gcm(&[("one", 1)]))).await.unwrap();
    let error = store.get(SECRET).await.unwrap_err().to_string();
    assert_eq!(error, format!("unable to transform key {SECRET:?}: no matching prefix found"));
}

#[tokio::test]
async fn a_value_moved_to_another_key_does_not_open() {
    let inner: Arc<dyn Store> = Arc::new(store::Embedded::in_memory());
    let provider = format!("{{aesgcm: {{keys: [{{name: k, secret: {}}}]}}}}", key(1));
    let store = Encrypted::new(inner.clone(), config(&provider), resource_of());
    put(&store, SECRET, "mine").await;
    let stolen = inner.get(SECRET).await.unwrap().1.unwrap().value;
    let other = "/registry/secrets/default/other";
    inner.write(Op::Put { key: other.into(), value: stolen, expect: Expect::Anything, ttl: None }).await.unwrap();
    assert!(matches!(store.get(other).await, Err(store::Error::Transform { .. })));
}

/// Values made by other implementations of the same formats.
#[test]
fn formats_are_those_of_others() {
    // Go's secretbox.Seal of "some secret message" is tag and then cipher; NaCl's own vector:
    let key: Vec<u8> = hex::decode("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389").unwrap();
    let nonce = hex::decode("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37").unwrap();
    let sealed = hex::decode(concat!(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a",
        "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae",
        "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74",
        "e355a5"
    ))
    .unwrap();
    let plain = hex::decode(concat!(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c6129",
        "6cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde",
        "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
    ))
    .unwrap();
    assert_eq!(Cipher::SecretBox(key).open(&[nonce, sealed].concat(), b"").unwrap(), plain);
    // NIST SP 800-38A, F.2.5, with the padding of a whole block after it is only ours to make: round trip and length.
    let cbc = Cipher::AesCbc(vec![7; 32]);
    for length in [0, 1, 15, 16, 17] {
        let sealed = cbc.seal(&vec![1; length], b"").unwrap();
        assert_eq!(sealed.len(), 16 + (length / 16 + 1) * 16);
        assert_eq!(cbc.open(&sealed, b"").unwrap(), vec![1; length]);
    }
    for cipher in [Cipher::AesCbc(vec![1; 32]), Cipher::AesGcm(vec![1; 16]), Cipher::SecretBox(vec![1; 32]), Cipher::Derived(vec![1; 32])] {
        for length in [0, 1, 15, 16, 31, 32, 33, 100] {
            assert!(cipher.open(&vec![0; length], b"").is_err(), "{cipher:?} {length}");
        }
    }
}

#[test]
fn configurations_are_judged_as_upstream_does() {
    let parse = |resources: &str| {
        Config::parse(format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: {resources}").as_bytes())
    };
    let good = format!(
        "[{{resources: [secrets., '*.apps', widgets.example.com], providers: [{{secretbox: {{keys: [{{name: a, secret: {}}}]}}}}]}},
          {{resources: ['*.*'], providers: [{{identity: {{}}}}]}}]",
        key(1)
    );
    let config = parse(&good).unwrap();
    let boxed = |group: &str, resource: &str| matches!(config.providers(group, resource), [ProviderConfig::Local { .. }]);
    assert!(boxed("", "secrets") && boxed("apps", "deployments") && boxed("example.com", "widgets"));
    assert!(!boxed("", "configmaps") && !boxed("example.com", "others"));
    for (bad, why) in [
        ("[]", "at least one resource"),
        ("[{resources: [], providers: [{identity: {}}]}]", "at least one resource"),
        ("[{resources: [secrets], providers: []}]", "at least one provider"),
        ("[{resources: ['*'], providers: [{identity: {}}]}]", "use '*.'"),
        ("[{resources: [Secrets], providers: [{identity: {}}]}]", "capital"),
        ("[{resources: [secrets, secrets], providers: [{identity: {}}]}]", "already specified"),
        ("[{resources: [secrets], providers: [{aesgcm: {keys: [{name: a, secret: c2hvcnQ=}]}}]}]", "expected length, got 5"),
        ("[{resources: [secrets], providers: [{aesgcm: {keys: [{name: a, secret: '!'}]}}]}]", "base64"),
        ("[{resources: [secrets], providers: [{kms: {apiVersion: v1, name: a, endpoint: 'unix:///a'}}]}]", "only v2"),
        ("[{resources: [secrets], providers: [{kms: {apiVersion: v2, name: a, endpoint: 'tcp://a'}}]}]", "must be unix"),
        ("[{resources: [secrets], providers: [{identity: {}, aescbc: {}}]}]", "more than one provider"),
    ] {
        let error = parse(bad).unwrap_err().to_string();
        assert!(error.contains(why), "{bad}: {error}");
        assert!(!error.contains("c2hvcnQ"), "a secret in an error");
    }
}

/// A KMS that remembers what it was given and says which key it has.
#[derive(Clone, Default)]
struct Vault {
    key: Arc<AtomicU32>,
    sick: Arc<AtomicU32>,
    calls: Arc<Mutex<HashMap<&'static str, u32>>>,
}

impl Vault {
    fn called(&self, what: &'static str) {
        *self.calls.lock().unwrap().entry(what).or_default() += 1;
    }

    fn count(&self, what: &'static str) -> u32 {
        self.calls.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

#[tonic::async_trait]
impl KeyManagementService for Vault {
    async fn status(&self, _: tonic::Request<StatusRequest>) -> Result<tonic::Response<StatusResponse>, tonic::Status> {
        let healthz = if self.sick.load(Ordering::SeqCst) > 0 { "no" } else { "ok" }.to_owned();
        let key_id = self.key.load(Ordering::SeqCst).to_string();
        Ok(tonic::Response::new(StatusResponse { version: "v2".to_owned(), healthz, key_id }))
    }

    async fn decrypt(&self, request: tonic::Request<DecryptRequest>) -> Result<tonic::Response<DecryptResponse>, tonic::Status> {
        self.called("decrypt");
        let request = request.into_inner();
        if request.annotations.get("vault.example.com/a").map(Vec::as_slice) != Some(b"x") {
            return Err(tonic::Status::invalid_argument("no annotation"));
        }
        let key: u8 = request.key_id.parse().map_err(|_| tonic::Status::invalid_argument("no key"))?;
        Ok(tonic::Response::new(DecryptResponse { plaintext: request.ciphertext.iter().map(|b| b ^ (key + 1)).collect() }))
    }

    async fn encrypt(&self, request: tonic::Request<EncryptRequest>) -> Result<tonic::Response<EncryptResponse>, tonic::Status> {
        self.called("encrypt");
        let key = self.key.load(Ordering::SeqCst);
        let mask = u8::try_from(key).unwrap_or(0) + 1;
        let ciphertext = request.into_inner().plaintext.iter().map(|b| b ^ mask).collect();
        let annotations = HashMap::from([("vault.example.com/a".to_owned(), b"x".to_vec())]);
        Ok(tonic::Response::new(EncryptResponse { ciphertext, key_id: key.to_string(), annotations }))
    }
}

#[tokio::test]
async fn a_kms_keeps_the_seeds_and_may_change_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let vault = Vault::default();
    let service = KeyManagementServiceServer::new(vault.clone());
    let server = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(listener)),
    );
    let provider =
        format!("{{kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}', timeout: 1s}}}}, {{identity: {{}}}}", socket.display());
    let inner: Arc<dyn Store> = Arc::new(store::Embedded::in_memory());
    let store = Encrypted::new(inner.clone(), config(&provider), resource_of());
    store.healthy(None).await.unwrap();
    for i in 0..5 {
        put(&store, &format!("{SECRET}{i}"), "hunter2").await;
    }
    assert!(raw(&*inner, &format!("{SECRET}0")).await.starts_with(b"k8s:enc:kms:v2:vault:"));
    assert_eq!((vault.count("encrypt"), vault.count("decrypt")), (1, 0), "one seed for all");
    // Another server has to ask for the seed, once.
    let other = Encrypted::new(inner.clone(), config(&provider), resource_of());
    for i in 0..5 {
        assert_eq!(raw(&other, &format!("{SECRET}{i}")).await, b"hunter2");
    }
    assert_eq!(vault.count("decrypt"), 1);
    vault.key.store(1, Ordering::SeqCst);
    store.healthy(None).await.unwrap();
    assert!(store.is_stale(&format!("{SECRET}0")).await.unwrap());
    put(&store, &format!("{SECRET}0"), "hunter2").await;
    assert!(!store.is_stale(&format!("{SECRET}0")).await.unwrap());
    assert_eq!(vault.count("encrypt"), 2);
    vault.sick.store(1, Ordering::SeqCst);
    let error = store.healthy(None).await.unwrap_err().to_string();
    assert_eq!(error, "kms provider \"vault\": got unexpected healthz status: no");
    server.abort();
}
