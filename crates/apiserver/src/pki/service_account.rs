//! The key that ServiceAccount tokens are signed with, and all keys they are checked with. What the claims mean is
//! `authn::service_account`'s business.

use std::path::{Path, PathBuf};

use auth::jwt::{self, Jwt};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use super::files;
use super::jose::{self, Key};
use crate::error::{Error, Result};

/// The signing key's file in a PKI directory.
const PRIVATE: &str = "sa.key";

/// What a PKI directory has.
pub(super) enum Found {
    Keys(ServiceAccountKeys),
    Missing(Missing),
}

/// A directory without a key of its own. To make one takes longer than all else that a server does to start: two primes are
/// searched for, by luck in 20 ms or in 300.
pub struct Missing {
    dir: PathBuf,
    verifying: Vec<PathBuf>,
}

impl Missing {
    /// Makes the key. It is on disk, whole, before anything can be signed with it. May be called again when it failed.
    pub(crate) fn make(&self) -> Result<ServiceAccountKeys> {
        let path = self.dir.join(PRIVATE);
        if files::read(&path)?.is_none() {
            let failed = |_| Error::Tls("cannot generate an RSA key".to_owned());
            let key = KeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
            let der = key.as_der().map_err(failed)?;
            files::write(&path, &pem("PRIVATE KEY", der.as_ref()))?;
            files::sync_dir(&self.dir)?;
        }
        ServiceAccountKeys::of_dir(&self.dir, &self.verifying)
    }
}

enum Private {
    Rsa(KeyPair),
    Ec(EcdsaKeyPair),
}

/// Signs with one key; checks with it and with those of earlier times.
pub struct ServiceAccountKeys {
    private: Private,
    /// The signing key's first.
    public: Vec<Key>,
}

impl ServiceAccountKeys {
    /// The key of a PKI directory, made when missing.
    #[cfg(test)]
    fn open(dir: &Path) -> Result<Self> {
        match Self::find(dir, &[])? {
            Found::Keys(keys) => Ok(keys),
            Found::Missing(missing) => missing.make(),
        }
    }

    /// The key of a PKI directory, with more to check with, or what makes it.
    pub(super) fn find(dir: &Path, verifying: &[PathBuf]) -> Result<Found> {
        if files::read(&dir.join(PRIVATE))?.is_some() {
            return Self::of_dir(dir, verifying).map(Found::Keys);
        }
        // What is wrong with the others must not come to light when the server is said to be ready.
        public_keys(verifying)?;
        Ok(Found::Missing(Missing { dir: dir.to_owned(), verifying: verifying.to_vec() }))
    }

    fn of_dir(dir: &Path, verifying: &[PathBuf]) -> Result<Self> {
        let keys = Self::load(&dir.join(PRIVATE), verifying)?;
        let spki = keys.public_der().ok_or_else(|| Error::Tls("cannot encode the public key".to_owned()))?;
        let (path, public) = (dir.join("sa.pub"), pem("PUBLIC KEY", &spki));
        if files::read(&path)?.is_none_or(|there| there != public) {
            files::write(&path, &public)?;
        }
        Ok(keys)
    }

    /// `--service-account-signing-key-file` and `--service-account-key-file`, the latter as often as given.
    pub fn load(signing: &Path, verifying: &[PathBuf]) -> Result<Self> {
        let text = read(signing)?;
        let private = private(&text).ok_or_else(|| damaged(signing, "it holds no private key that can sign"))?;
        let mut public = Key::all_from_pem(&text);
        public.truncate(1);
        if public.is_empty() {
            return Err(damaged(signing, "it holds no private key that can sign"));
        }
        for key in public_keys(verifying)? {
            if !public.contains(&key) {
                public.push(key);
            }
        }
        Ok(Self { private, public })
    }

    fn public_der(&self) -> Option<Vec<u8>> {
        match &self.private {
            Private::Rsa(key) => key.public_key().as_der().ok().map(|d| d.as_ref().to_vec()),
            Private::Ec(key) => key.public_key().as_der().ok().map(|d| d.as_ref().to_vec()),
        }
    }

    /// Signs claims into a compact JWT.
    pub fn sign(&self, claims: &Value) -> Option<String> {
        let own = self.public.first()?;
        let header = json!({"alg": own.signing_algorithm(), "kid": own.id});
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let random = aws_lc_rs::rand::SystemRandom::new();
        let signature = match &self.private {
            Private::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).ok()?;
                signature
            }
            Private::Ec(key) => key.sign(&random, text.as_bytes()).ok()?.as_ref().to_vec(),
        };
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whether one of the keys made the token's signature.
    pub fn signed(&self, jwt: &Jwt<'_>) -> bool {
        jose::candidates(&self.public, jwt).any(|key| key.verifies(jwt))
    }

    /// The claims of a token with our signature; time, issuer and audience are for the caller to check.
    pub fn verify(&self, token: &str) -> Option<Value> {
        let jwt = jwt::parse(token).ok()?;
        self.signed(&jwt).then_some(jwt.claims)
    }

    /// The public keys as a JSON web key set.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.public.iter().map(Key::to_jwk).collect::<Vec<_>>()})
    }

    /// The algorithms of the keys, once each.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut out: Vec<&str> = self.public.iter().map(Key::signing_algorithm).collect();
        out.sort_unstable();
        out.dedup();
        out
    }
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::Damaged { path: path.to_owned(), why: why.to_owned() }
}

fn read(path: &Path) -> Result<String> {
    files::read(path)?.ok_or_else(|| damaged(path, "it is missing"))
}

/// Of files that must hold one each at least.
fn public_keys(paths: &[PathBuf]) -> Result<Vec<Key>> {
    let mut all = Vec::new();
    for path in paths {
        let keys = Key::all_from_pem(&read(path)?);
        if keys.is_empty() {
            return Err(damaged(path, "it holds no public key"));
        }
        all.extend(keys);
    }
    Ok(all)
}

fn private(pem: &str) -> Option<Private> {
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()? {
        PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()).ok().map(Private::Rsa),
        PrivateKeyDer::Sec1(der) => jose::ec_key(der.secret_sec1_der()).map(|(_, key)| Private::Ec(key)),
        PrivateKeyDer::Pkcs8(der) => {
            let der: PrivatePkcs8KeyDer<'_> = der;
            let rsa = KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok().map(Private::Rsa);
            rsa.or_else(|| jose::ec_key(der.secret_pkcs8_der()).map(|(_, key)| Private::Ec(key)))
        }
        _ => None,
    }
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|b| char::from(*b)));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_ours_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let key = ServiceAccountKeys::open(dir.path()).unwrap();
        let token = key.sign(&json!({"sub": "x"})).unwrap();
        assert_eq!(ServiceAccountKeys::open(dir.path()).unwrap().verify(&token).unwrap(), json!({"sub": "x"}));
        let other = tempfile::tempdir().unwrap();
        assert_eq!(ServiceAccountKeys::open(other.path()).unwrap().verify(&token), None);
        for bad in ["", "a.b", "a.b.c", &token[1..], "...."] {
            assert_eq!(key.verify(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_key_is_whole_on_disk_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let Found::Missing(missing) = ServiceAccountKeys::find(dir.path(), &[]).unwrap() else { panic!("a key of nothing") };
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is made by looking");
        let temporary = dir.path().join("sa.key.new");
        std::fs::create_dir(&temporary).unwrap();
        assert!(missing.make().is_err() && !dir.path().join(PRIVATE).exists());
        std::fs::remove_dir(&temporary).unwrap();
        // As a server leaves it that was killed while it wrote.
        std::fs::write(&temporary, "-----BEGIN PRIV").unwrap();
        let token = missing.make().unwrap().sign(&json!({"sub": "x"})).unwrap();
        let Found::Keys(again) = ServiceAccountKeys::find(dir.path(), &[]).unwrap() else { panic!("no key was kept") };
        assert!(again.verify(&token).is_some() && !temporary.exists());
        assert!(missing.make().unwrap().verify(&token).is_some(), "a key that is there stays");
        assert!(ServiceAccountKeys::find(&dir.path().join("other"), &[dir.path().join("none.pub")]).is_err(), "known before the start");
    }

    #[test]
    fn tokens_of_an_earlier_key_stay_good_and_the_set_shows_both() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let before = ServiceAccountKeys::open(old.path()).unwrap();
        let token = before.sign(&json!({"sub": "x"})).unwrap();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let signing = new.path().join("ec.key");
        std::fs::write(&signing, key.serialize_pem()).unwrap();
        let now = ServiceAccountKeys::load(&signing, &[old.path().join("sa.pub")]).unwrap();
        assert_eq!(now.verify(&token).unwrap(), json!({"sub": "x"}));
        let newer = now.sign(&json!({"sub": "y"})).unwrap();
        assert_eq!((now.verify(&newer), before.verify(&newer)), (Some(json!({"sub": "y"})), None));
        assert_eq!(now.jwks()["keys"].as_array().unwrap().len(), 2);
        assert_eq!(now.algorithms(), ["ES256", "RS256"]);
        let again = Key::from_jwk(&now.jwks()["keys"][0]).unwrap();
        assert!(again.verifies(&jwt::parse(&newer).ok().unwrap()));
        assert!(!again.verifies(&jwt::parse(&token).ok().unwrap()));
    }

    #[test]
    fn a_public_key_is_no_shared_secret_and_an_algorithm_no_wish() {
        let dir = tempfile::tempdir().unwrap();
        let key = ServiceAccountKeys::open(dir.path()).unwrap();
        let token = key.sign(&json!({"sub": "x"})).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let claims = signed.split_once('.').unwrap().1;
        for alg in ["none", "HS256", "RS384", "PS256", "ES256"] {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": key.public[0].id}).to_string());
            assert_eq!(key.verify(&format!("{header}.{claims}.{signature}")), None, "{alg}");
            assert_eq!(key.verify(&format!("{header}.{claims}.")), None, "{alg} without a signature");
        }
    }
}
