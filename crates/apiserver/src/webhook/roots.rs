//! The certificates the host believes, for servers whose configuration brings none: read once.

use std::sync::OnceLock;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Where Go looks on Linux.
const FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The host's roots.
pub fn of_host() -> Result<Vec<CertificateDer<'static>>, String> {
    static READ: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    let all = READ.get_or_init(|| {
        let first = FILES.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
        CertificateDer::pem_slice_iter(&first).filter_map(Result::ok).collect()
    });
    if all.is_empty() {
        Err("x509: certificate signed by unknown authority: the host has no root certificates".to_owned())
    } else {
        Ok(all.clone())
    }
}
