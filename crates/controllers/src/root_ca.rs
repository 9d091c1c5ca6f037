//! Every namespace has a ConfigMap with the certificates that its pods may trust the API server by. Upstream's
//! `rootcacertpublisher`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::action::{Action, Outcome, Target, to_value};
use crate::service_account::is_active;
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "root-ca-certificate-publisher-controller",
    identity: "root-ca-cert-publisher",
    component: "root-ca-cert-publisher",
    watches: &[
        Watch::Namespaces(|_, namespace| vec![meta::key(namespace)]),
        Watch::ConfigMaps(|_, map| vec![Key::cluster(meta::namespace(map))]),
    ],
    reconcile,
};

const NAME: &str = "kube-root-ca.crt";
const DATA_KEY: &str = "ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
    internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let active = view.namespaces.get("", &key.name).is_some_and(|namespace| is_active(&namespace));
    if !active || context.config.root_ca.is_empty() {
        return Outcome::nothing();
    }
    let data = BTreeMap::from([(DATA_KEY.to_owned(), context.config.root_ca.clone())]);
    let Some(map) = view.config_maps.get(&key.name, NAME) else {
        let metadata = ObjectMeta {
            namespace: Some(key.name.clone()),
            name: Some(NAME.to_owned()),
            annotations: Some(BTreeMap::from([(DESCRIPTION_KEY.to_owned(), DESCRIPTION.to_owned())])),
            ..ObjectMeta::default()
        };
        return vec![Action::create(&ConfigMap { metadata, data: Some(data), ..ConfigMap::default() })].into();
    };
    if map.data.as_ref() == Some(&data) && meta::annotation(&*map, DESCRIPTION_KEY) == Some(DESCRIPTION) {
        return Outcome::nothing();
    }
    let mut new = ConfigMap::clone(&map);
    new.metadata.annotations.get_or_insert_default().insert(DESCRIPTION_KEY.to_owned(), DESCRIPTION.to_owned());
    new.data = Some(data);
    // The role has no `get`, so the whole object comes from the cache.
    vec![Action::Replace { target: Target::of(&*map), subresource: None, object: to_value(&new) }].into()
}
