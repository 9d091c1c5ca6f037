//! KMS v2: values are encrypted with keys derived from a seed, and the seed is stored beside them as the KMS encrypted it. A
//! seed is used until the KMS has another key; seeds that were read are remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::local::{self, Cipher};
use crate::proto::key_management_service_client::KeyManagementServiceClient;
use crate::proto::{DecryptRequest, EncryptRequest, EncryptedObject, StatusRequest};
use crate::{Error, Result};

/// `HKDF_SHA256_XNONCE_AES_GCM_SEED`
const SEED: i32 = 1;
const KEY_ID_BYTES_MAX: usize = 1024;
const SEED_BYTES_MAX: usize = 1024;
const ANNOTATION_BYTES_MAX: usize = 32 * 1024;
const CACHE_MAX: usize = 1000;
/// How often a KMS is asked how it is, and for how long its last good word counts.
pub const STATUS_EVERY: Duration = Duration::from_secs(60);
pub const STATUS_EVERY_WHEN_BAD: Duration = Duration::from_secs(10);
const STATUS_AGE_MAX: Duration = Duration::from_secs(180);

pub struct Kms {
    name: String,
    timeout: Duration,
    client: KeyManagementServiceClient<Channel>,
    state: Mutex<State>,
    /// One seed is made at a time.
    making: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// What values are written with.
    writing: Option<Arc<Writing>>,
    /// Seeds by what the KMS made of them.
    seeds: HashMap<Vec<u8>, Cipher>,
    /// The key the KMS has now, and when it said so.
    key: Option<(String, Instant)>,
    bad: Option<String>,
}

struct Writing {
    cipher: Cipher,
    key_id: String,
    encrypted_seed: Vec<u8>,
    annotations: HashMap<String, Vec<u8>>,
}

fn failed(why: impl std::fmt::Display) -> Error {
    Error::Transform(why.to_string())
}

impl Kms {
    pub fn new(name: &str, socket: &str, timeout: Duration) -> Self {
        let socket = socket.to_owned();
        let connect = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The address is of no use: the connector knows the socket.
        let channel = Endpoint::from_static("http://kms").connect_with_connector_lazy(connect);
        Self {
            name: name.to_owned(),
            timeout,
            client: KeyManagementServiceClient::new(channel),
            state: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn within<T>(&self, call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(failed(format!("rpc error: code = {:?} desc = {}", status.code(), status.message()))),
            Err(_) => Err(failed("rpc error: code = DeadlineExceeded desc = context deadline exceeded")),
        }
    }

    /// Asks the KMS how it is, and which key it has.
    pub async fn ask(&self) -> Result<()> {
        let asked = self.probe().await;
        let mut state = self.state();
        match &asked {
            Ok(key_id) => {
                state.key = Some((key_id.clone(), Instant::now()));
                state.bad = None;
                if state.writing.as_ref().is_some_and(|w| w.key_id != *key_id) {
                    tracing::info!(kms = self.name, "the KMS has another key");
                    state.writing = None;
                }
            }
            Err(error) => state.bad = Some(error.to_string()),
        }
        asked.map(drop)
    }

    async fn probe(&self) -> Result<String> {
        let status = self.within(self.client.clone().status(StatusRequest {})).await?;
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            return Err(failed(format!("expected KMSv2 API version v2, got {}", status.version)));
        }
        if status.healthz != "ok" {
            return Err(failed(format!("got unexpected healthz status: {}", status.healthz)));
        }
        key_id(&status.key_id)?;
        Ok(status.key_id)
    }

    /// `Ok` while the KMS said lately that it is well.
    pub async fn healthy(&self) -> Result<()> {
        self.ask().await.map_err(|e| failed(format!("kms provider {:?}: {e}", self.name)))
    }

    pub fn is_bad(&self) -> bool {
        let state = self.state();
        state.bad.is_some() || state.key.is_none()
    }

    async fn writing(&self) -> Result<Arc<Writing>> {
        let fresh = |state: &State| {
            let recent = state.key.as_ref().is_some_and(|(_, when)| when.elapsed() < STATUS_AGE_MAX);
            state.writing.clone().filter(|_| recent)
        };
        if let Some(writing) = fresh(&self.state()) {
            return Ok(writing);
        }
        let _one = self.making.lock().await;
        if let Some(writing) = fresh(&self.state()) {
            return Ok(writing);
        }
        self.ask().await?;
        let seed = local::seed()?;
        let uid = hex::encode(&local::seed()?[..16]);
        let answer = self.within(self.client.clone().encrypt(EncryptRequest { plaintext: seed.clone(), uid })).await?;
        key_id(&answer.key_id)?;
        check(&answer.ciphertext, &answer.annotations)?;
        let writing = Arc::new(Writing {
            cipher: Cipher::Derived(seed),
            key_id: answer.key_id,
            encrypted_seed: answer.ciphertext,
            annotations: answer.annotations,
        });
        let mut state = self.state();
        state.writing = Some(writing.clone());
        state.seeds.insert(writing.encrypted_seed.clone(), writing.cipher.clone());
        Ok(writing)
    }

    pub async fn seal(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>> {
        let writing = self.writing().await?;
        let object = EncryptedObject {
            encrypted_data: writing.cipher.seal(plain, context)?,
            key_id: writing.key_id.clone(),
            encrypted_dek_source: writing.encrypted_seed.clone(),
            annotations: writing.annotations.clone(),
            encrypted_dek_source_type: SEED,
        };
        Ok(object.encode_to_vec())
    }

    /// The value, and whether it would be stored otherwise now.
    pub async fn open(&self, stored: &[u8], context: &[u8]) -> Result<(Vec<u8>, bool)> {
        let object = EncryptedObject::decode(stored).map_err(|e| failed(format!("failed to unmarshal encrypted data: {e}")))?;
        key_id(&object.key_id)?;
        check(&object.encrypted_dek_source, &object.annotations)?;
        let known = self.state().seeds.get(&object.encrypted_dek_source).cloned();
        let cipher = match known {
            Some(cipher) => cipher,
            None => self.unlock(&object).await?,
        };
        let plain = cipher.open(&object.encrypted_data, context)?;
        let state = self.state();
        let other_key = state.key.as_ref().is_some_and(|(now, _)| *now != object.key_id);
        Ok((plain, other_key || object.encrypted_dek_source_type != SEED))
    }

    async fn unlock(&self, object: &EncryptedObject) -> Result<Cipher> {
        let request = DecryptRequest {
            ciphertext: object.encrypted_dek_source.clone(),
            uid: hex::encode(&local::seed()?[..16]),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone(),
        };
        let answer = self.within(self.client.clone().decrypt(request)).await;
        let seed = answer.map_err(|e| failed(format!("failed to decrypt DEK, error: {e}")))?.plaintext;
        let cipher = if object.encrypted_dek_source_type == SEED { Cipher::Derived(seed) } else { Cipher::AesGcm(seed) };
        let mut state = self.state();
        if state.seeds.len() >= CACHE_MAX {
            state.seeds.clear();
        }
        state.seeds.insert(object.encrypted_dek_source.clone(), cipher.clone());
        Ok(cipher)
    }
}

fn key_id(id: &str) -> Result<()> {
    match id.len() {
        0 => Err(failed("keyID is empty")),
        n if n > KEY_ID_BYTES_MAX => Err(failed(format!("keyID is {n} bytes, which exceeds the max size of {KEY_ID_BYTES_MAX}"))),
        _ => Ok(()),
    }
}

fn check(seed: &[u8], annotations: &HashMap<String, Vec<u8>>) -> Result<()> {
    if seed.is_empty() || seed.len() > SEED_BYTES_MAX {
        return Err(failed(format!("encrypted DEK source is {} bytes, must be 1 to {SEED_BYTES_MAX}", seed.len())));
    }
    let total: usize = annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
    if total > ANNOTATION_BYTES_MAX {
        return Err(failed(format!("total size of annotations is {total}, which exceeds the max size of {ANNOTATION_BYTES_MAX}")));
    }
    Ok(())
}
