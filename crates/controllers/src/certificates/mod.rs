//! CertificateSigningRequests: approving those of kubelets, signing for the four `kubernetes.io` signers, and cleaning up.

pub mod approve;
pub mod clean;
mod request;
pub mod sign;
#[cfg(test)]
mod tests;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::meta;
use crate::view::{Key, View};

/// The ServiceAccount of all three.
const IDENTITY: &str = "certificate-controller";

fn itself(_: &View<'_>, request: &CertificateSigningRequest) -> Vec<Key> {
    vec![meta::key(request)]
}

fn condition<'a>(request: &'a CertificateSigningRequest, kind: &str) -> Option<&'a CertificateSigningRequestCondition> {
    let all = request.status.as_ref().and_then(|s| s.conditions.as_ref());
    all.into_iter().flatten().find(|c| c.type_ == kind)
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    condition(request, kind).is_some()
}

/// The issued certificate; empty: none yet.
fn issued(request: &CertificateSigningRequest) -> &[u8] {
    request.status.as_ref().and_then(|s| s.certificate.as_ref()).map_or(&[], |c| c.0.as_slice())
}

fn new_condition(kind: &str, reason: &str, message: String, now: Time) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(now),
        last_transition_time: None,
    }
}
