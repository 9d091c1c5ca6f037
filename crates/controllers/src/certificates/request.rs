//! A PKCS#10 request read, and what upstream's signers and approvers demand of one.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// Who asks for what, out of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub common_name: String,
    organizations: Vec<String>,
    dns: usize,
    ips: usize,
    emails: usize,
    uris: usize,
}

/// `None` for what is no request.
pub fn parse(pem: &[u8]) -> Option<Asked> {
    let der = CertificateSigningRequestDer::from_pem_slice(pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&der).ok()?;
    let subject = &request.certification_request_info.subject;
    let mut asked = Asked {
        common_name: subject.iter_common_name().last().and_then(|n| n.as_str().ok()).unwrap_or("").to_owned(),
        organizations: subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect(),
        ..Asked::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(_) => asked.dns += 1,
                GeneralName::IPAddress(_) => asked.ips += 1,
                GeneralName::RFC822Name(_) => asked.emails += 1,
                GeneralName::URI(_) => asked.uris += 1,
                _ => {}
            }
        }
    }
    Some(asked)
}

pub fn usages(request: &CertificateSigningRequest) -> BTreeSet<&str> {
    request.spec.usages.iter().flatten().map(String::as_str).collect()
}

/// Whether usages are the three, or the two that a key needs that is not RSA.
fn usages_match(usages: &BTreeSet<&str>, own: &str) -> Result<(), String> {
    let with_rsa = BTreeSet::from(["digital signature", "key encipherment", own]);
    let without = BTreeSet::from(["digital signature", own]);
    if *usages == with_rsa || *usages == without {
        return Ok(());
    }
    let list: Vec<&str> = with_rsa.into_iter().collect();
    Err(format!("usages did not match [{}]", list.join(" ")))
}

fn refuse(bad: bool, why: &str) -> Result<(), String> {
    if bad { Err(why.to_owned()) } else { Ok(()) }
}

impl Asked {
    fn of_nodes(&self) -> Result<(), String> {
        refuse(self.organizations != ["system:nodes"], "subject organization is not system:nodes")
    }

    fn named_as_node(&self) -> Result<(), String> {
        refuse(!self.common_name.starts_with("system:node:"), "subject common name does not begin with system:node: ")
    }

    /// Upstream's `ValidateKubeletClientCSR`.
    pub fn kubelet_client(&self, usages: &BTreeSet<&str>) -> Result<(), String> {
        self.of_nodes()?;
        refuse(self.dns > 0, "DNS subjectAltNames are not allowed")?;
        refuse(self.emails > 0, "Email subjectAltNames are not allowed")?;
        refuse(self.ips > 0, "IP subjectAltNames are not allowed")?;
        refuse(self.uris > 0, "URI subjectAltNames are not allowed")?;
        self.named_as_node()?;
        usages_match(usages, "client auth")
    }

    /// Upstream's `ValidateKubeletServingCSR`.
    pub fn kubelet_serving(&self, usages: &BTreeSet<&str>) -> Result<(), String> {
        self.of_nodes()?;
        refuse(self.dns == 0 && self.ips == 0, "DNS or IP subjectAltName is required")?;
        refuse(self.emails > 0, "Email subjectAltNames are not allowed")?;
        refuse(self.uris > 0, "URI subjectAltNames are not allowed")?;
        usages_match(usages, "server auth")?;
        self.named_as_node()
    }

    /// What a signer demands; `Err` fails the request for good.
    pub fn fits(&self, signer: &str, usages: &BTreeSet<&str>) -> Result<(), String> {
        match signer {
            KUBELET_CLIENT => self.kubelet_client(usages),
            KUBELET_SERVING => self.kubelet_serving(usages),
            CLIENT => client(usages),
            _ => Ok(()),
        }
    }
}

fn client(usages: &BTreeSet<&str>) -> Result<(), String> {
    let known = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|u| !known.contains(*u)) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    refuse(!usages.contains("client auth"), "missing required usage for client certificate: client auth")
}
