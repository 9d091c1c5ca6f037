//! The ServiceAccount signing key: RS256 JSON web tokens made and checked. What the claims mean is `authn::token`'s business.

use std::path::Path;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::files;
use crate::error::{Error, Result};

pub struct ServiceAccountKey {
    key: KeyPair,
    id: String,
}

impl ServiceAccountKey {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("sa.key");
        let key = match files::read(&path)? {
            Some(pem) => {
                let damaged = |why: String| Error::Damaged { path: path.clone(), why };
                let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| damaged(format!("{e:?}")))?;
                KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|e| damaged(e.to_string()))?
            }
            None => {
                let failed = |_| Error::Tls("cannot generate an RSA key".to_owned());
                let key = KeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
                let der = key.as_der().map_err(failed)?;
                files::write(&path, &pem("PRIVATE KEY", der.as_ref()))?;
                key
            }
        };
        let public = key.public_key().as_der().map_err(|_| Error::Tls("cannot encode the RSA key".to_owned()))?;
        files::write(&dir.join("sa.pub"), &pem("PUBLIC KEY", public.as_ref()))?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(public.as_ref()));
        Ok(Self { key, id })
    }

    /// Signs claims into a compact JWT.
    pub fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({"alg": "RS256", "kid": self.id});
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = aws_lc_rs::rand::SystemRandom::new();
        self.key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).ok()?;
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token with our signature; time, issuer and audience are for the caller to check.
    pub fn verify(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.get("alg")?.as_str()? != "RS256" {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    /// The public key as a JSON web key set.
    pub fn jwks(&self) -> Value {
        let public = self.key.public_key();
        let n = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
        let e = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
        json!({"keys": [{"use": "sig", "kty": "RSA", "kid": self.id, "alg": "RS256", "n": n, "e": e}]})
    }
}

fn pem(label: &str, der: &[u8]) -> String {
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
        let key = ServiceAccountKey::open(dir.path()).unwrap();
        let token = key.sign(&json!({"sub": "x"})).unwrap();
        assert_eq!(ServiceAccountKey::open(dir.path()).unwrap().verify(&token).unwrap(), json!({"sub": "x"}));
        let other = tempfile::tempdir().unwrap();
        assert_eq!(ServiceAccountKey::open(other.path()).unwrap().verify(&token), None);
        for bad in ["", "a.b", "a.b.c", &token[1..], "...."] {
            assert_eq!(key.verify(bad), None, "{bad}");
        }
    }
}
