//! Three plugins about CertificateSigningRequests: who may approve and who may sign for a signer, and that nobody asks for
//! `system:masters`.

use async_trait::async_trait;
use auth::{Attributes, Decision};
use base64::Engine as _;
use machinery::object::str_at;
use machinery::status::StatusError;
use serde_json::Value;
use x509_parser::prelude::FromDer as _;

use super::{Operation, Plugin, Request};

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "CertificateSigningRequest";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

fn is(request: &Request<'_>, operation: Operation, subresource: &str) -> bool {
    let of = request.resource.group == GROUP && request.resource.kind == KIND;
    of && request.operation == operation && request.subresource == subresource
}

/// May approve for the signer.
pub struct CertificateApproval;

#[async_trait]
impl Plugin for CertificateApproval {
    fn handles(&self, request: &Request<'_>) -> bool {
        is(request, Operation::Update, "approval")
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        // The stored signer counts: the approval cannot change it.
        may(request, "approve", old.unwrap_or(value)).await
    }
}

/// May sign for the signer.
pub struct CertificateSigning;

#[async_trait]
impl Plugin for CertificateSigning {
    fn handles(&self, request: &Request<'_>) -> bool {
        is(request, Operation::Update, "status")
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<(), StatusError> {
        let Some(old) = old else { return Ok(()) };
        let unchanged = ["certificate", "conditions"].into_iter().all(|key| value["status"][key] == old["status"][key]);
        if unchanged { Ok(()) } else { may(request, "sign", old).await }
    }
}

/// Asks for the signer's name, and for all of its domain.
async fn may(request: &Request<'_>, verb: &str, object: &Value) -> Result<(), StatusError> {
    let signer = str_at(object, "spec.signerName");
    let domain = signer.split_once('/').map(|(domain, _)| format!("{domain}/*"));
    for name in [Some(signer.to_owned()), domain].into_iter().flatten() {
        let asked = Attributes {
            user: request.user.clone(),
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            name,
            is_resource: true,
            ..Attributes::default()
        };
        if matches!(request.api.authorizer.decide(&asked).await, Decision::Allow(_)) {
            return Ok(());
        }
    }
    Err(request.forbidden(object, &format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

/// Nobody gets a client certificate that is above RBAC.
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn handles(&self, request: &Request<'_>) -> bool {
        is(request, Operation::Create, "")
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, _old: Option<&Value>) -> Result<(), StatusError> {
        if str_at(value, "spec.signerName") != CLIENT_SIGNER {
            return Ok(());
        }
        let asks = groups(str_at(value, "spec.request")).is_some_and(|groups| groups.iter().any(|group| group == MASTERS));
        if asks {
            let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
            return Err(request.forbidden(value, &why));
        }
        Ok(())
    }
}

/// The organizations of a request's subject; `None` where it cannot be read, which validation says.
fn groups(request: &str) -> Option<Vec<String>> {
    let pem = base64::engine::general_purpose::STANDARD.decode(request).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let (_, csr) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents).ok()?;
    let organizations = csr.certification_request_info.subject.iter_organization();
    Some(organizations.filter_map(|o| o.as_str().ok().map(str::to_owned)).collect())
}
