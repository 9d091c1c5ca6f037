//! Upstream's flags of `kube-apiserver` about who asks, and who may what.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use super::duration;

#[derive(Args)]
#[group(id = "authentication")]
pub struct Flags {
    /// Certificates that client certificates are signed by [default: the CA of --cert-dir]
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// Certificates that front proxies' certificates are signed by [default: the front-proxy CA of --cert-dir]
    #[arg(long)]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of front proxies; empty: any
    #[arg(long, value_delimiter = ',', default_value = "front-proxy-client")]
    requestheader_allowed_names: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-User")]
    requestheader_username_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Uid")]
    requestheader_uid_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Group")]
    requestheader_group_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Extra-")]
    requestheader_extra_headers_prefix: Vec<String>,
    /// Lines of token,user,uid,"group1,group2"
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, action = clap::ArgAction::Set)]
    enable_bootstrap_token_auth: bool,
    /// The key that tokens are signed with [default: sa.key of --cert-dir]
    #[arg(long)]
    service_account_signing_key_file: Option<PathBuf>,
    /// A key that tokens may be signed with; may be given several times
    #[arg(long)]
    service_account_key_file: Vec<PathBuf>,
    #[arg(long, default_value = "")]
    service_account_jwks_uri: String,
    /// As 24h; 0: no limit
    #[arg(long, default_value = "0s")]
    service_account_max_token_expiration: String,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    service_account_extend_token_expiration: bool,
    /// An AuthenticationConfiguration; read again when it changes
    #[arg(long)]
    authentication_config: Option<PathBuf>,
    /// A kubeconfig of the server that is asked whose a token is
    #[arg(long)]
    authentication_token_webhook_config_file: Option<PathBuf>,
    #[arg(long, default_value = "2m")]
    authentication_token_webhook_cache_ttl: String,
    #[command(flatten)]
    oidc: Oidc,
}

/// One issuer of OpenID Connect tokens.
#[derive(Args)]
struct Oidc {
    #[arg(long)]
    oidc_issuer_url: Option<String>,
    #[arg(long, default_value = "")]
    oidc_client_id: String,
    #[arg(long)]
    oidc_ca_file: Option<PathBuf>,
    #[arg(long, default_value = "sub")]
    oidc_username_claim: String,
    /// -: none [default: the issuer, unless the claim is email]
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    oidc_username_prefix: String,
    #[arg(long, default_value = "")]
    oidc_groups_claim: String,
    #[arg(long, default_value = "")]
    oidc_groups_prefix: String,
    /// claim=value; may be given several times
    #[arg(long)]
    oidc_required_claim: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "RS256")]
    oidc_signing_algs: Vec<String>,
}

impl Oidc {
    fn flags(&self) -> Result<Option<auth::oidc::Flags>> {
        let Some(url) = &self.oidc_issuer_url else { return Ok(None) };
        let ca = match &self.oidc_ca_file {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
            None => String::new(),
        };
        let pair = |text: &String| {
            let (claim, value) = text.split_once('=').with_context(|| format!("--oidc-required-claim {text}: must be claim=value"))?;
            Ok((claim.to_owned(), value.to_owned()))
        };
        Ok(Some(auth::oidc::Flags {
            issuer_url: url.clone(),
            client_id: self.oidc_client_id.clone(),
            ca,
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            required_claims: self.oidc_required_claim.iter().map(pair).collect::<Result<_>>()?,
            signing_algorithms: self.oidc_signing_algs.clone(),
        }))
    }
}

/// Who may what.
#[derive(Args)]
pub struct Authorization {
    /// Of Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny
    #[arg(long, value_delimiter = ',', default_value = "Node,RBAC")]
    authorization_mode: Vec<String>,
    /// An AuthorizationConfiguration, instead of modes
    #[arg(long)]
    authorization_config: Option<PathBuf>,
    /// A kubeconfig of the server that the mode Webhook asks
    #[arg(long)]
    authorization_webhook_config_file: Option<PathBuf>,
    #[arg(long, default_value = "v1beta1")]
    authorization_webhook_version: String,
    #[arg(long, default_value = "5m")]
    authorization_webhook_cache_authorized_ttl: String,
    #[arg(long, default_value = "30s")]
    authorization_webhook_cache_unauthorized_ttl: String,
}

impl Authorization {
    pub fn apply(&self, config: &mut apiserver::Config) -> Result<()> {
        let options = &mut config.authorization;
        options.modes.clone_from(&self.authorization_mode);
        options.config.clone_from(&self.authorization_config);
        options.webhook_config_file.clone_from(&self.authorization_webhook_config_file);
        options.webhook_version.clone_from(&self.authorization_webhook_version);
        options.webhook_cache_authorized =
            duration("authorization-webhook-cache-authorized-ttl", &self.authorization_webhook_cache_authorized_ttl)?;
        options.webhook_cache_unauthorized =
            duration("authorization-webhook-cache-unauthorized-ttl", &self.authorization_webhook_cache_unauthorized_ttl)?;
        Ok(())
    }
}

impl Flags {
    /// Puts what was given into the configuration.
    pub fn apply(&self, config: &mut apiserver::Config) -> Result<()> {
        let options = &mut config.authentication;
        options.client_ca_file.clone_from(&self.client_ca_file);
        let header = &mut options.request_header;
        header.client_ca_file.clone_from(&self.requestheader_client_ca_file);
        for (given, to) in [
            (&self.requestheader_allowed_names, &mut header.allowed_names),
            (&self.requestheader_username_headers, &mut header.username_headers),
            (&self.requestheader_uid_headers, &mut header.uid_headers),
            (&self.requestheader_group_headers, &mut header.group_headers),
            (&self.requestheader_extra_headers_prefix, &mut header.extra_headers_prefix),
        ] {
            *to = given.iter().filter(|v| !v.is_empty()).cloned().collect();
        }
        options.token_auth_file.clone_from(&self.token_auth_file);
        options.bootstrap_tokens = self.enable_bootstrap_token_auth;
        let account = &mut options.service_account;
        account.signing_key_file.clone_from(&self.service_account_signing_key_file);
        account.key_files.clone_from(&self.service_account_key_file);
        account.jwks_uri.clone_from(&self.service_account_jwks_uri);
        account.extend_token_expiration = self.service_account_extend_token_expiration;
        let max = duration("service-account-max-token-expiration", &self.service_account_max_token_expiration)?;
        account.max_token_expiration = Some(max).filter(|m| !m.is_zero());
        options.authentication_config.clone_from(&self.authentication_config);
        options.webhook_config_file.clone_from(&self.authentication_token_webhook_config_file);
        options.webhook_cache_ttl = duration("authentication-token-webhook-cache-ttl", &self.authentication_token_webhook_cache_ttl)?;
        options.oidc = self.oidc.flags()?;
        Ok(())
    }
}
