//! Upstream's flags of `kube-apiserver` about who asks.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

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
        let max = super::kube_apiserver::duration(&self.service_account_max_token_expiration)?;
        account.max_token_expiration = Some(max).filter(|m| !m.is_zero());
        Ok(())
    }
}
