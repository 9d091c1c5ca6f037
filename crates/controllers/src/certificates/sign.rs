//! Approved requests for the `kubernetes.io` signers get their certificate, or fail for good. Upstream's `csrsigning`.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestStatus};

use super::request::{self, CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN};
use super::{IDENTITY, has, issued, itself, new_condition};
use crate::action::{Action, Outcome, Target, to_value};
use crate::keys::Order;
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "certificatesigningrequest-signing-controller",
    identity: IDENTITY,
    component: "certificate-controller",
    watches: &[Watch::CertificateSigningRequests(itself)],
    reconcile,
};

const SIGNERS: [&str; 4] = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN];
/// Clocks of those who check may be behind.
const BACKDATE_SECONDS: i64 = 300;
/// A certificate this short is not shortened by its backdating.
const SHORT_SECONDS: i64 = 8 * 3600;
const MIN_SECONDS: i64 = 600;

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(csr) = view.certificate_signing_requests.get("", &key.name) else { return Outcome::nothing() };
    let Some(keys) = &context.config.keys.0 else { return Outcome::nothing() };
    let wanted = has(&csr, "Approved") && !has(&csr, "Denied") && !has(&csr, "Failed") && issued(&csr).is_empty();
    let spec = &csr.spec;
    if !wanted || !SIGNERS.contains(&spec.signer_name.as_str()) {
        return Outcome::nothing();
    }
    let mut status = csr.status.clone().unwrap_or_default();
    let fits = match request::parse(&spec.request.0) {
        Some(asked) => asked.fits(&spec.signer_name, &request::usages(&csr)),
        None => Err(format!("unable to parse csr {:?}", key.name)),
    };
    let signed = fits.and_then(|()| keys.certificate(&order(&csr, context)));
    match signed {
        Ok(certificate) => status.certificate = Some(ByteString(certificate.into_bytes())),
        Err(why) => {
            let failed = new_condition("Failed", "SignerValidationFailure", why, meta::time(context.now));
            status.conditions.get_or_insert_default().push(failed);
        }
    }
    vec![with_status(&csr, status)].into()
}

fn with_status(csr: &CertificateSigningRequest, status: CertificateSigningRequestStatus) -> Action {
    let new = CertificateSigningRequest { status: Some(status), ..csr.clone() };
    Action::Replace { target: Target::of(csr), subresource: Some("status"), object: to_value(&new) }
}

fn order(csr: &CertificateSigningRequest, context: &Context<'_>) -> Order {
    let most = context.config.certificate_seconds;
    let seconds = match csr.spec.expiration_seconds.map(i64::from) {
        None => most,
        Some(asked) if asked > most => most,
        Some(asked) => asked.max(MIN_SECONDS),
    };
    let now = context.now.as_second();
    let cut = if seconds < SHORT_SECONDS { 0 } else { BACKDATE_SECONDS };
    Order {
        request: csr.spec.request.0.clone(),
        usages: csr.spec.usages.clone().unwrap_or_default(),
        not_before: now - BACKDATE_SECONDS,
        not_after: now + seconds - cut,
    }
}
