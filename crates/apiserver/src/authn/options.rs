//! What can be told about authentication, by upstream's flags. Part of [`crate::Config`]; [`super::Authenticators`] is made of it.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Options {
    /// `--client-ca-file`; `None`: the CA of the PKI directory.
    pub client_ca_file: Option<PathBuf>,
    pub request_header: RequestHeader,
    /// `--token-auth-file`
    pub token_auth_file: Option<PathBuf>,
    /// `--enable-bootstrap-token-auth`
    pub bootstrap_tokens: bool,
    pub service_account: ServiceAccount,
    /// `--authentication-config`
    pub authentication_config: Option<PathBuf>,
    /// How often that file is looked at.
    pub reload: Option<Duration>,
    /// `--oidc-*`
    pub oidc: Option<auth::oidc::Flags>,
    /// `--authentication-token-webhook-config-file`
    pub webhook_config_file: Option<PathBuf>,
    /// `--authentication-token-webhook-cache-ttl`
    pub webhook_cache_ttl: Duration,
}

/// `--requestheader-*`: whom a front proxy may vouch for.
#[derive(Clone, Debug)]
pub struct RequestHeader {
    /// `None`: the front-proxy CA of the PKI directory.
    pub client_ca_file: Option<PathBuf>,
    /// Common names of proxies; none: whoever has a certificate.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_headers_prefix: Vec<String>,
}

/// `--service-account-*`
#[derive(Clone, Debug)]
pub struct ServiceAccount {
    /// `None`: `sa.key` of the PKI directory.
    pub signing_key_file: Option<PathBuf>,
    /// Further keys that tokens may be signed with.
    pub key_files: Vec<PathBuf>,
    /// Issuers whose tokens are taken beside [`crate::Config::service_account_issuer`]: earlier names of this one.
    pub accepted_issuers: Vec<String>,
    /// `--service-account-jwks-uri`; empty: this server's.
    pub jwks_uri: String,
    pub max_token_expiration: Option<Duration>,
    /// Tokens of projected volumes live a year, for clients that read them once.
    pub extend_token_expiration: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client_ca_file: None,
            request_header: RequestHeader::default(),
            token_auth_file: None,
            bootstrap_tokens: true,
            service_account: ServiceAccount::default(),
            authentication_config: None,
            reload: None,
            oidc: None,
            webhook_config_file: None,
            webhook_cache_ttl: Duration::from_secs(120),
        }
    }
}

impl Default for RequestHeader {
    fn default() -> Self {
        let one = |text: &str| vec![text.to_owned()];
        Self {
            client_ca_file: None,
            allowed_names: one("front-proxy-client"),
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_headers_prefix: one("X-Remote-Extra-"),
        }
    }
}

impl Default for ServiceAccount {
    fn default() -> Self {
        Self {
            signing_key_file: None,
            key_files: Vec::new(),
            accepted_issuers: Vec::new(),
            jwks_uri: String::new(),
            max_token_expiration: None,
            extend_token_expiration: true,
        }
    }
}
