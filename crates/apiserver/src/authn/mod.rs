//! Who asks: a front proxy's word, client certificates, tokens of several makes, or nobody. Called by the chain first. One file
//! per authenticator; [`token`] asks those of bearer tokens one after another.

pub mod impersonate;
mod issuers;
mod legacy_token;
pub mod options;
pub mod request_header;
pub mod service_account;
mod static_token;
#[cfg(test)]
pub(crate) mod tests;
pub mod token;
mod webhook;
pub mod x509;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use auth::User;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::HeaderValue;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use machinery::status::StatusError;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::Config;
use crate::error::{Error, Result};
use crate::pki::Pki;
use crate::state::Api;
use crate::tls::{self, Verifier};

/// A certificate that expires is refused so late at most.
const VERDICT_AGE_MAX: Duration = Duration::from_secs(60);

/// Where a request comes from. Made by transports alone; nothing in a request can set it.
#[derive(Clone)]
pub enum Origin {
    /// A network peer, with the certificates it showed.
    Network(Arc<Peer>),
    /// A component in this process.
    InProcess(User),
}

impl Origin {
    /// The client's, where it came over the network.
    pub fn address(&self) -> Option<std::net::IpAddr> {
        match self {
            Self::Network(peer) => peer.address.map(|a| a.ip()),
            Self::InProcess(_) => None,
        }
    }
}

#[derive(Default)]
pub struct Peer {
    certificates: Vec<CertificateDer<'static>>,
    address: Option<std::net::SocketAddr>,
    /// Whom the certificates were last found to name, and when.
    known: Mutex<Option<(Instant, Option<User>)>>,
}

impl Peer {
    pub fn new(certificates: Vec<CertificateDer<'static>>, address: Option<std::net::SocketAddr>) -> Self {
        Self { certificates, address, known: Mutex::default() }
    }

    /// The user the client certificates name; `None` if they are no good. Verifying takes longer than most requests, so that a
    /// connection keeps the verdict for a while.
    fn certified(&self, authority: &Verifier, now: Instant) -> Option<User> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, user)) = &*known
            && now.saturating_duration_since(*when) < VERDICT_AGE_MAX
        {
            return user.clone();
        }
        let user = self.certificates.first().filter(|_| verified(authority, &self.certificates)).and_then(x509::user_of);
        *known = Some((now, user.clone()));
        user
    }
}

/// What the authenticators know, made once.
pub struct Authenticators {
    /// Judge client certificates, and those of front proxies.
    clients: Verifier,
    front_proxy: Verifier,
    /// The same authorities in PEM, for those who judge clients by them too.
    bundles: (String, String),
    static_tokens: Option<static_token::Tokens>,
    pub(crate) issuers: issuers::Issuers,
    webhook: Option<webhook::Webhook>,
}

pub use issuers::Issuers;

impl Authenticators {
    pub fn new(config: &Config, pki: &Pki) -> Result<Self> {
        let options = &config.authentication;
        let clients = bundle(options.client_ca_file.as_deref(), pki.ca.pem())?;
        let proxies = bundle(options.request_header.client_ca_file.as_deref(), pki.front_proxy_ca.pem())?;
        Ok(Self {
            clients: authority(&clients)?,
            front_proxy: authority(&proxies)?,
            bundles: (clients, proxies),
            webhook: options
                .webhook_config_file
                .as_deref()
                .map(|path| webhook::Webhook::new(path, options.webhook_cache_ttl))
                .transpose()?,
            issuers: issuers::Issuers::new(options, config.own_issuers())?,
            static_tokens: options.token_auth_file.as_deref().map(static_token::Tokens::load).transpose()?,
        })
    }

    /// PEM of the authorities of clients and of front proxies.
    pub fn bundles(&self) -> (&str, &str) {
        (&self.bundles.0, &self.bundles.1)
    }
}

/// What a file holds, or the PKI's own.
fn bundle(file: Option<&std::path::Path>, own: &str) -> Result<String> {
    match file {
        Some(path) => std::fs::read_to_string(path).map_err(|source| Error::File { doing: "read", path: path.to_owned(), source }),
        None => Ok(own.to_owned()),
    }
}

fn authority(bundle: &str) -> Result<Verifier> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(std::result::Result::ok).collect();
    if certificates.is_empty() {
        return Err(Error::Config("a bundle to judge client certificates by holds none".to_owned()));
    }
    tls::verifier(certificates)
}

/// Who asks, and what is to be said of their token.
pub struct Authenticated {
    pub user: User,
    pub remarks: token::Remarks,
}

/// The user, or 401 for credentials that are no good. Removes what names the user from the headers.
pub async fn authenticate(
    api: &Arc<Api>,
    origin: &Origin,
    headers: &mut HeaderMap,
    path: &str,
    now: Instant,
) -> Result<Authenticated, StatusError> {
    let peer = match origin {
        Origin::InProcess(user) => return Ok(Authenticated { user: user.clone(), remarks: token::Remarks::default() }),
        Origin::Network(peer) => peer,
    };
    let options = &api.config.authentication.request_header;
    let vouched = request_header::authenticate(options, &api.authn.front_proxy, &peer.certificates, headers);
    request_header::strip(options, headers);
    let known = |user: User| Ok(Authenticated { user, remarks: token::Remarks::default() });
    let bearer = bearer(headers);
    headers.remove(AUTHORIZATION);
    if let Some(user) = vouched {
        return known(user);
    }
    let mut failed = false;
    if !peer.certificates.is_empty() {
        if let Some(user) = peer.certified(&api.authn.clients, now) {
            return known(user);
        }
        failed = true;
    }
    if let Some(token) = bearer {
        match token::authenticate(api, &token, &api.config.audiences()).await {
            Ok(found) => return Ok(Authenticated { user: found.user, remarks: found.remarks }),
            Err(_) => failed = true,
        }
    }
    if failed || !api.authn.issuers.anonymous(path).unwrap_or(api.config.anonymous_auth) {
        return Err(StatusError::unauthorized());
    }
    known(User::anonymous())
}

const WEBSOCKET_BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// The bearer token: of the usual header, or of a browser's WebSocket, which can set subprotocols alone. It is taken away.
fn bearer(headers: &mut HeaderMap) -> Option<String> {
    if let Some(header) = headers.get(AUTHORIZATION) {
        let (scheme, token) = header.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim_start();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    let upgrade = headers.get(http::header::UPGRADE)?.to_str().ok()?;
    if !upgrade.eq_ignore_ascii_case("websocket") {
        return None;
    }
    let offered: Vec<String> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|p| p.trim().to_owned())
        .collect();
    let (tokens, rest): (Vec<String>, Vec<String>) = offered.into_iter().partition(|p| p.starts_with(WEBSOCKET_BEARER));
    let [token] = tokens.as_slice() else { return None };
    // One of the others is what the connection will speak.
    let rest = HeaderValue::from_str(&rest.join(", ")).ok().filter(|r| !r.is_empty())?;
    let token = String::from_utf8(URL_SAFE_NO_PAD.decode(&token[WEBSOCKET_BEARER.len()..]).ok()?).ok().filter(|t| !t.is_empty())?;
    headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
    Some(token)
}

fn verified(verifier: &Verifier, chain: &[CertificateDer<'static>]) -> bool {
    let Some((leaf, rest)) = chain.split_first() else { return false };
    verifier.verify_client_cert(leaf, rest, UnixTime::now()).is_ok()
}
