//! Client certificates of kubelets are approved where a SubjectAccessReview agrees. Upstream's `csrapproving`.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Value, json};

use super::{IDENTITY, condition, has, issued, itself, new_condition, request};
use crate::action::{Action, Outcome, Target, to_value};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "certificatesigningrequest-approving-controller",
    identity: IDENTITY,
    component: "certificate-controller",
    watches: &[Watch::CertificateSigningRequests(itself)],
    reconcile,
};

/// The subresource whose creation must be allowed, and what the condition says then.
const SELF: (&str, &str) = ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
const ANY: (&str, &str) = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(csr) = view.certificate_signing_requests.get("", &key.name) else { return Outcome::nothing() };
    let decided = condition(&csr, "Approved").is_some() || has(&csr, "Denied") || !issued(&csr).is_empty();
    let spec = &csr.spec;
    if decided || spec.signer_name != request::KUBELET_CLIENT {
        return Outcome::nothing();
    }
    let Some(asked) = request::parse(&spec.request.0) else { return Outcome::nothing() };
    if asked.kubelet_client(&request::usages(&csr)).is_err() {
        return Outcome::nothing();
    }
    let own = spec.username.as_deref() == Some(asked.common_name.as_str());
    let approve = |way: (&str, &str), otherwise: Vec<Action>| Action::IfAllowed {
        review: review(&csr, way.0),
        then: vec![approval(&csr, way.1, context)],
        otherwise,
    };
    let any = approve(ANY, Vec::new());
    vec![if own { approve(SELF, vec![any]) } else { any }].into()
}

fn review(csr: &CertificateSigningRequest, subresource: &str) -> Value {
    let spec = &csr.spec;
    json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
        "spec": {
            "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
            "resourceAttributes": {
                "group": "certificates.k8s.io", "resource": "certificatesigningrequests", "verb": "create",
                "subresource": subresource, "version": "*",
            },
        },
    })
}

fn approval(csr: &CertificateSigningRequest, message: &str, context: &Context<'_>) -> Action {
    let mut new = csr.clone();
    let approved = new_condition("Approved", "AutoApproved", message.to_owned(), meta::time(context.now));
    new.status.get_or_insert_default().conditions.get_or_insert_default().push(approved);
    Action::Replace { target: Target::of(csr), subresource: Some("approval"), object: to_value(&new) }
}
