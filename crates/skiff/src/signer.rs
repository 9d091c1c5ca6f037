//! The cluster's keys as controllers may use them: certificates of the CA, tokens of the ServiceAccount key.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::pki::{Authority, Grant, Pki, ServiceAccountKeys};
use controllers::keys::{Keys, NoToken, Order, Signer};
use serde_json::Value;

/// Over the PKI of an API server in this process.
struct OfPki(Arc<Pki>);

impl Signer for OfPki {
    fn certificate(&self, order: &Order) -> Result<String, String> {
        sign(&self.0.ca, order)
    }

    fn token(&self, claims: &Value) -> Result<String, NoToken> {
        self.0.made_service_account().ok_or(NoToken::NotYet)?.sign(claims).ok_or(NoToken::NoKey)
    }
}

/// Over files, as a controller manager of its own has them; each may be missing.
struct OfFiles {
    authority: Option<Authority>,
    accounts: Option<ServiceAccountKeys>,
}

impl Signer for OfFiles {
    fn certificate(&self, order: &Order) -> Result<String, String> {
        let authority = self.authority.as_ref().ok_or("this controller manager was given no CA to sign with")?;
        sign(authority, order)
    }

    fn token(&self, claims: &Value) -> Result<String, NoToken> {
        self.accounts.as_ref().and_then(|keys| keys.sign(claims)).ok_or(NoToken::NoKey)
    }
}

fn sign(authority: &Authority, order: &Order) -> Result<String, String> {
    let grant = Grant { usages: &order.usages, not_before: order.not_before, not_after: order.not_after };
    authority.sign_request(&order.request, &grant)
}

pub fn of_pki(pki: &Arc<Pki>) -> Keys {
    Keys(Some(Arc::new(OfPki(pki.clone()))))
}

/// None of the files: nothing is signed.
pub fn of_files(ca: Option<(&Path, &Path)>, accounts: Option<&Path>) -> Result<Keys> {
    if ca.is_none() && accounts.is_none() {
        return Ok(Keys::default());
    }
    let authority = ca.map(|(certificate, key)| Authority::load(certificate, key)).transpose().context("reading the CA to sign with")?;
    let accounts = accounts.map(|key| ServiceAccountKeys::load(key, &[])).transpose().context("reading the ServiceAccount key")?;
    Ok(Keys(Some(Arc::new(OfFiles { authority, accounts }))))
}
