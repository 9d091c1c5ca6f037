//! Who asks: client certificates, ServiceAccount tokens, the front proxy's headers, or nobody. Called by the chain first.

pub mod impersonate;
pub mod token;
pub mod x509;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use auth::User;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use machinery::status::StatusError;
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::state::Api;
use crate::tls::Verifier;

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
    fn certified(&self, authority: &Verifier) -> Option<User> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, user)) = &*known
            && when.elapsed() < VERDICT_AGE_MAX
        {
            return user.clone();
        }
        let user = self.certificates.first().filter(|_| verified(authority, &self.certificates)).and_then(x509::user_of);
        *known = Some((Instant::now(), user.clone()));
        user
    }
}

/// The authorities client certificates are judged by.
pub struct Authorities {
    pub clients: Verifier,
    pub front_proxy: Verifier,
}

/// The user, or 401 for credentials that are no good. Removes what names the user from the headers.
pub async fn authenticate(api: &Api, origin: &Origin, headers: &mut HeaderMap) -> Result<User, StatusError> {
    let peer = match origin {
        Origin::InProcess(user) => return Ok(user.clone()),
        Origin::Network(peer) => peer,
    };
    if let Some(user) = front_proxy(api, peer, headers) {
        return Ok(user);
    }
    let mut failed = false;
    if !peer.certificates.is_empty() {
        if let Some(user) = peer.certified(&api.authorities.clients) {
            headers.remove(AUTHORIZATION);
            return Ok(user);
        }
        failed = true;
    }
    if let Some(header) = headers.remove(AUTHORIZATION) {
        let text = header.to_str().unwrap_or("").trim();
        if let Some((scheme, token)) = text.split_once(' ')
            && scheme.eq_ignore_ascii_case("bearer")
            && !token.trim().is_empty()
        {
            match token::authenticate(api, token.trim(), &api.config.audiences()).await {
                Some(found) => return Ok(found.user),
                None => failed = true,
            }
        }
    }
    if failed || !api.config.anonymous_auth {
        return Err(StatusError::unauthorized());
    }
    Ok(User::anonymous())
}

fn verified(verifier: &Verifier, chain: &[CertificateDer<'static>]) -> bool {
    let Some((leaf, rest)) = chain.split_first() else { return false };
    verifier.verify_client_cert(leaf, rest, UnixTime::now()).is_ok()
}

/// The user an aggregating proxy vouches for by `X-Remote-*` headers and its own certificate.
fn front_proxy(api: &Api, peer: &Peer, headers: &mut HeaderMap) -> Option<User> {
    let name = headers.get("x-remote-user")?.to_str().ok()?.to_owned();
    let leaf = peer.certificates.first()?;
    if !verified(&api.authorities.front_proxy, &peer.certificates) || x509::user_of(leaf)?.name != "front-proxy-client" {
        return None;
    }
    let groups: Vec<String> = headers.get_all("x-remote-group").iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    let mut user = User::new(name, &groups.iter().map(String::as_str).collect::<Vec<_>>());
    for (key, value) in headers.iter() {
        if let (Some(key), Ok(value)) = (key.as_str().strip_prefix("x-remote-extra-"), value.to_str()) {
            user.extra.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    headers.remove("x-remote-user");
    headers.remove("x-remote-group");
    Some(user)
}
