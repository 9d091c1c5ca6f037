//! Requests that nobody needs any more are deleted. Upstream's `csrcleaner`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{IDENTITY, condition, issued, itself};
use crate::action::{Action, Outcome};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "certificatesigningrequest-cleaner-controller",
    identity: IDENTITY,
    component: "certificate-controller",
    watches: &[Watch::CertificateSigningRequests(itself)],
    reconcile,
};

/// After a decision, and without one.
const DECIDED_SECONDS: i64 = 3600;
const PENDING_SECONDS: i64 = 24 * 3600;

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(csr) = view.certificate_signing_requests.get("", &key.name) else { return Outcome::nothing() };
    let end = ends(&csr);
    if end <= context.now {
        return vec![Action::delete(&*csr)].into();
    }
    let mut outcome = Outcome::nothing();
    outcome.requeue_in(meta::unsigned(end.duration_since(context.now)));
    outcome
}

/// When nobody needs it any more.
fn ends(csr: &CertificateSigningRequest) -> Timestamp {
    let decided = ["Approved", "Denied", "Failed"].into_iter().filter_map(|kind| condition(csr, kind)).map(|c| {
        let at = c.last_update_time.as_ref().or(c.last_transition_time.as_ref());
        after(at.map_or_else(|| meta::created(csr), |t| t.0), DECIDED_SECONDS)
    });
    let pending = after(meta::created(csr), PENDING_SECONDS);
    let end = decided.min().unwrap_or(pending);
    expires(issued(csr)).map_or(end, |expires| end.min(expires))
}

fn after(then: Timestamp, seconds: i64) -> Timestamp {
    then.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

fn expires(pem: &[u8]) -> Option<Timestamp> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}
