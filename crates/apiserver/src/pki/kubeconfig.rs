//! A kubeconfig with everything inline, as the binary hands it to people and components.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Identity;

/// YAML text with one cluster, user and context, all called `name` (the user `name-<user>`).
pub fn kubeconfig(name: &str, user: &str, server: &str, ca_pem: &str, identity: &Identity) -> String {
    let (ca, cert, key) = (STANDARD.encode(ca_pem), STANDARD.encode(&identity.cert_pem), STANDARD.encode(&identity.key_pem));
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n\
         contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}-{user}\ncurrent-context: {name}\n\
         users:\n- name: {name}-{user}\n  user:\n    client-certificate-data: {cert}\n    client-key-data: {key}\n"
    )
}
