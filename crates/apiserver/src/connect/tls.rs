//! The client's side of TLS towards kubelets and proxied servers.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, Result};
use crate::peer::Peer;
use crate::pki::Pki;
use crate::tls::provider;

/// How TLS is spoken to whom.
pub struct Clients {
    /// With the server's own client certificate; the kubelet's certificate is the cluster CA's.
    pub kubelet: Arc<ClientConfig>,
    /// As `kubelet`, believing any certificate: `insecureSkipTLSVerifyBackend`.
    pub kubelet_unverified: Arc<ClientConfig>,
    /// Proxied pods and services: no client certificate, and their own are not judged, as upstream does not.
    pub workload: Arc<ClientConfig>,
}

fn failed(error: rustls::Error) -> Error {
    Error::Tls(error.to_string())
}

impl Clients {
    pub fn new(pki: &Pki) -> Result<Self> {
        let identity = pki.client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &["system:masters"])?;
        let mut roots = RootCertStore::empty();
        roots.add(pki.ca.der()?).map_err(failed)?;
        let builder = || ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(failed);
        let any = || builder().map(|b| b.dangerous().with_custom_certificate_verifier(Arc::new(Peer::any())));
        let own = || identity.to_rustls();
        let (chain, key) = own()?;
        let kubelet = builder()?.with_root_certificates(roots).with_client_auth_cert(chain, key).map_err(failed)?;
        let (chain, key) = own()?;
        let kubelet_unverified = any()?.with_client_auth_cert(chain, key).map_err(failed)?;
        let workload = any()?.with_no_client_auth();
        Ok(Self { kubelet: http1(kubelet), kubelet_unverified: http1(kubelet_unverified), workload: http1(workload) })
    }
}

/// Upgrades need HTTP/1.1.
fn http1(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
