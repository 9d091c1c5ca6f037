//! Every namespace has a ServiceAccount `default`. Upstream's `ServiceAccountsController`.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::action::{Action, Outcome};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "serviceaccount-controller",
    identity: "service-account-controller",
    component: "service-account-controller",
    watches: &[
        Watch::Namespaces(|_, namespace| vec![meta::key(namespace)]),
        Watch::ServiceAccounts(|_, account| vec![Key::cluster(meta::namespace(account))]),
    ],
    reconcile,
};

const DEFAULT: &str = "default";

/// Exists and is not going away.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    !meta::is_deleting(namespace) && phase != Some("Terminating")
}

pub fn reconcile(view: &View<'_>, key: &Key, _context: &Context<'_>) -> Outcome {
    let active = view.namespaces.get("", &key.name).is_some_and(|namespace| is_active(&namespace));
    if !active || view.service_accounts.get(&key.name, DEFAULT).is_some() {
        return Outcome::nothing();
    }
    let metadata = ObjectMeta { namespace: Some(key.name.clone()), name: Some(DEFAULT.to_owned()), ..ObjectMeta::default() };
    vec![Action::create(&ServiceAccount { metadata, ..ServiceAccount::default() })].into()
}
