//! TLS, and who calls: the subject of a verified client certificate, or a bearer token that the API server knows.

use std::sync::Arc;

use k8s_openapi::api::authentication::v1::TokenReview;
use kube::Api;
use kube::api::PostParams;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Error;

/// User and groups.
pub type Caller = (String, Vec<String>);

fn bad(what: &str) -> impl Fn(&dyn std::fmt::Display) -> Error {
    move |e| Error::Server(format!("{what}: {e}"))
}

/// How TLS is served with a certificate and key; client certificates of the CAs are asked for, where there are any.
pub fn tls(certificate_pem: &str, key_pem: &str, client_ca_pem: &str) -> Result<rustls::ServerConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let read = |pem: &str, what: &str| -> Result<Vec<CertificateDer<'static>>, Error> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| bad(what)(&e))
    };
    let mut roots = rustls::RootCertStore::empty();
    for ca in read(client_ca_pem, "client CA")? {
        roots.add(ca).map_err(|e| bad("client CA")(&e))?;
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| bad("serving key")(&e))?;
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| bad("TLS")(&e))?;
    let builder = if roots.is_empty() {
        builder.with_no_client_auth()
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
        builder.with_client_cert_verifier(verifier.build().map_err(|e| bad("client CA")(&e))?)
    };
    let mut out =
        builder.with_single_cert(read(certificate_pem, "serving certificate")?, key).map_err(|e| bad("serving certificate")(&e))?;
    // Upgrades need HTTP/1.1.
    out.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(out)
}

/// Common name and organisations of a certificate that TLS has verified.
pub fn of_certificate(der: &[u8]) -> Option<Caller> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    Some((user, groups))
}

/// Asks the API server whose token it is.
pub async fn of_token(client: &kube::Client, token: &str) -> Option<Caller> {
    let review: TokenReview = serde_json::from_value(json!({"metadata": {}, "spec": {"token": token}})).ok()?;
    let answer = Api::<TokenReview>::all(client.clone()).create(&PostParams::default(), &review).await;
    let status = match answer {
        Ok(review) => review.status?,
        Err(error) => {
            tracing::warn!(%error, "a token could not be reviewed");
            return None;
        }
    };
    let user = status.user.filter(|_| status.authenticated == Some(true))?;
    Some((user.username.unwrap_or_default(), user.groups.unwrap_or_default()))
}
