//! Issuers of OpenID Connect tokens at run time: their keys, fetched when first needed and again when a token names one that is
//! not known, and the configuration file, which is read again when it changes. What the claims mean is in `auth::oidc`.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use auth::jwt::{self, Algorithm, Jwt};
use auth::oidc::{Anonymous, Configuration, Flags, Issuer};
use auth::{User, oidc};
use machinery::object::str_at;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::options::Options;
use crate::error::{Error, Result};
use crate::metrics::table;
use crate::pki::jose::{self, Key};
use crate::reload;
use crate::state::Api;
use crate::webhook::{self, Endpoint, Trust};

/// A token with a made-up key id must not make this server hammer the issuer's.
const REFETCH: Duration = Duration::from_secs(10);
/// Keys that were withdrawn are forgotten so late at most.
const KEYS_AGE_MAX: Duration = Duration::from_secs(3600);
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

struct Live {
    issuer: Issuer,
    trust: Trust,
    keys: tokio::sync::RwLock<Fetched>,
}

#[derive(Default)]
struct Fetched {
    keys: Vec<Key>,
    tried: Option<Instant>,
    fetched: Option<Instant>,
}

/// What the configuration of the moment says.
#[derive(Default)]
struct State {
    issuers: Vec<Live>,
    anonymous: Option<Anonymous>,
}

/// All issuers of the moment.
pub struct Issuers {
    state: RwLock<Arc<State>>,
    file: Option<PathBuf>,
    own: Vec<String>,
}

impl Issuers {
    pub fn new(options: &Options, own: Vec<String>) -> Result<Self> {
        let mut configuration = match &options.authentication_config {
            Some(path) => read(path, &own).map_err(|why| Error::Config(format!("{}: {why}", path.display())))?,
            None => Configuration::default(),
        };
        if let Some(flags) = &options.oidc {
            if options.authentication_config.is_some() {
                return Err(Error::Config("--authentication-config and --oidc-* flags cannot be used together".to_owned()));
            }
            configuration.issuers.push(of_flags(flags)?);
        }
        let state = State::new(configuration).map_err(Error::Config)?;
        Ok(Self { state: RwLock::new(Arc::new(state)), file: options.authentication_config.clone(), own })
    }

    /// Whether somebody without credentials may come at all, and to this path; `None`: the flag decides.
    pub fn anonymous(&self, path: &str) -> Option<bool> {
        let state = self.now();
        let anonymous = state.anonymous.as_ref()?;
        Some(anonymous.enabled && (anonymous.paths.is_empty() || anonymous.paths.iter().any(|p| p == path)))
    }

    fn now(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `None`: no issuer of ours; `Err`: one of ours, and no good.
    pub async fn authenticate(&self, api: &Arc<Api>, token: &str) -> Option<Result<User, String>> {
        let state = self.now();
        let all = &state.issuers;
        if all.is_empty() {
            return None;
        }
        let jwt = jwt::parse(token).ok()?;
        let named = jwt.claims.get("iss")?.as_str()?;
        let live = all.iter().find(|l| l.issuer.url == named)?;
        Some(live.authenticate(api, &jwt).await)
    }

    /// Follows the file.
    pub async fn follow(api: Arc<Api>, cancel: CancellationToken) {
        let Some(path) = api.authn.issuers.file.clone() else { return };
        let metrics = [&table::AUTHENTICATION_RELOADS, &table::AUTHENTICATION_RELOADED];
        let file = reload::File { what: "authentication", path, every: api.config.authentication.reload, metrics };
        reload::follow(api, file, cancel, |api, text| {
            let issuers = &api.authn.issuers;
            let state = parse(text, &issuers.own).and_then(State::new)?;
            *issuers.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
            Ok(())
        })
        .await;
    }
}

impl State {
    fn new(configuration: Configuration) -> Result<Self, String> {
        Ok(Self { issuers: live(configuration.issuers)?, anonymous: configuration.anonymous })
    }
}

fn read(path: &std::path::Path, own: &[String]) -> Result<Configuration, String> {
    parse(&std::fs::read(path).map_err(|e| e.to_string())?, own)
}

fn parse(text: &[u8], own: &[String]) -> Result<Configuration, String> {
    let tree = machinery::yaml::parse(text).map_err(|e| e.to_string())?.value;
    Configuration::parse(&tree, own).map_err(|errors| errors.join("; "))
}

fn of_flags(flags: &Flags) -> Result<Issuer> {
    flags.issuer().map_err(|errors| Error::Config(errors.join("; ")))
}

fn live(issuers: Vec<oidc::Issuer>) -> Result<Vec<Live>, String> {
    let one = |issuer: Issuer| {
        let trust = match issuer.certificate_authority.as_str() {
            "" => Trust::System,
            pem => Trust::bundle(pem.as_bytes())?,
        };
        Ok(Live { issuer, trust, keys: tokio::sync::RwLock::default() })
    };
    issuers.into_iter().map(one).collect()
}

impl Live {
    async fn authenticate(&self, api: &Arc<Api>, jwt: &Jwt<'_>) -> Result<User, String> {
        let allowed = &self.issuer.algorithms;
        if !allowed.is_empty() && !allowed.iter().any(|a| Algorithm::parse(a) == Some(jwt.algorithm)) {
            return Err("oidc: verify token: oidc: id token signed with unsupported algorithm".to_owned());
        }
        if !self.signed(api, jwt).await? {
            return Err("oidc: verify token: failed to verify signature: failed to verify id token signature".to_owned());
        }
        self.issuer.user(&jwt.claims, jiff::Timestamp::now().as_second())
    }

    async fn signed(&self, api: &Arc<Api>, jwt: &Jwt<'_>) -> Result<bool, String> {
        let good = |fetched: &Fetched| jose::candidates(&fetched.keys, jwt).any(|key| key.verifies(jwt));
        {
            let known = self.keys.read().await;
            if known.fetched.is_some_and(|at| at.elapsed() < KEYS_AGE_MAX) && good(&known) {
                return Ok(true);
            }
        }
        // One fetches, the others wait for what it finds.
        let mut known = self.keys.write().await;
        let stale = known.fetched.is_none_or(|at| at.elapsed() >= KEYS_AGE_MAX);
        if !stale && good(&known) {
            return Ok(true);
        }
        if known.tried.is_none_or(|at| at.elapsed() >= REFETCH) {
            known.tried = Some(Instant::now());
            match self.fetch(api).await {
                Ok(keys) => {
                    known.keys = keys;
                    known.fetched = Some(Instant::now());
                }
                Err(why) => {
                    tracing::warn!(issuer = self.issuer.url, why, "the keys of an issuer cannot be read");
                    if known.fetched.is_none() {
                        return Err("oidc: authenticator not initialized".to_owned());
                    }
                }
            }
        }
        Ok(good(&known))
    }

    async fn fetch(&self, api: &Arc<Api>) -> Result<Vec<Key>, String> {
        let issuer = &self.issuer;
        let discovery = match issuer.discovery_url.as_str() {
            "" => format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/')),
            url => url.to_owned(),
        };
        let get = async |url: &str| webhook::get(api, &Endpoint::url_of(url, self.trust.clone())?, FETCH_TIMEOUT).await;
        let document = get(&discovery).await?;
        let named = str_at(&document, "issuer");
        if named != issuer.url {
            return Err(format!("oidc: issuer did not match the issuer returned by provider, expected {:?} got {named:?}", issuer.url));
        }
        let set = get(str_at(&document, "jwks_uri")).await?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("the key set has no keys")?;
        // More than any issuer has: what it sends must not grow without bound.
        Ok(keys.iter().take(100).filter_map(Key::from_jwk).collect())
    }
}
