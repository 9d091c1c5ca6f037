//! Which slices to write so that they hold what is desired, with as few writes as may be: endpoints stay in the slice
//! they are in, gaps are filled before a slice is made, at most a hundred endpoints in each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::inherited_labels;
use crate::action::{Action, merge_diff, to_value};
use crate::meta;
use crate::view::{Context, View};

pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
pub const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Endpoints that a slice holds at most, as upstream's default.
const PER_SLICE_MAX: usize = 100;

/// Endpoints with the same ports, by the address they are known by.
struct Group {
    ports: Vec<EndpointPort>,
    endpoints: BTreeMap<String, Endpoint>,
}

/// What there should be, by address type and ports.
#[derive(Default)]
pub struct Desired {
    groups: BTreeMap<(String, String), Group>,
    families: BTreeSet<String>,
    pub trigger: Timestamp,
}

impl Desired {
    /// Even without endpoints, an address type has a slice.
    pub fn ensure(&mut self, family: &str) {
        self.families.insert(family.to_owned());
    }

    pub fn add(&mut self, family: &str, ports: Vec<EndpointPort>, endpoint: Endpoint) {
        let id = (family.to_owned(), to_value(&ports).to_string());
        let group = self.groups.entry(id).or_insert_with(|| Group { ports, endpoints: BTreeMap::new() });
        group.endpoints.insert(identity(&endpoint), endpoint);
    }
}

/// Endpoints are the same when their address and target are.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
    format!("{} {uid}", endpoint.addresses.join(" "))
}

/// A slice as it will be.
struct Draft {
    slice: Option<Arc<EndpointSlice>>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

pub fn actions(view: &View<'_>, service: &Service, mut desired: Desired, context: &Context<'_>) -> Vec<Action> {
    let index = format!("{}/{}", meta::namespace(service), meta::name(service));
    let existing = view.endpoint_slices.by_index(SERVICE_LABEL, &index);
    let ours =
        existing.into_iter().filter(|slice| meta::label(&**slice, MANAGED_BY_LABEL) == Some(MANAGED_BY) && !meta::is_deleting(&**slice));
    let mut by_group: BTreeMap<(String, String), Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in ours {
        let ports = to_value(&slice.ports.clone().unwrap_or_default()).to_string();
        by_group.entry((slice.address_type.clone(), ports)).or_default().push(slice);
    }
    let with_endpoints: BTreeSet<String> = desired.groups.keys().map(|(family, _)| family.clone()).collect();
    for family in desired.families.difference(&with_endpoints) {
        let group = Group { ports: Vec::new(), endpoints: BTreeMap::new() };
        desired.groups.insert((family.clone(), "[]".to_owned()), group);
    }
    let mut writes = Vec::new();
    let mut deletes = Vec::new();
    for (id, group) in desired.groups {
        let slices = by_group.remove(&id).unwrap_or_default();
        let ports = group.ports.clone();
        for draft in drafts(slices, group) {
            match (&draft.slice, draft.endpoints.is_empty()) {
                (Some(slice), true) if draft.changed => deletes.push(Action::delete(&**slice)),
                (Some(slice), _) => writes.extend(update(service, slice, &draft, desired.trigger)),
                (None, _) => writes.push(create(service, &id.0, &ports, draft.endpoints, desired.trigger, context)),
            }
        }
    }
    deletes.extend(by_group.into_values().flatten().map(|slice| Action::delete(&*slice)));
    // New places first: nobody must be without endpoints in between.
    [writes, deletes].into_iter().filter(|batch| !batch.is_empty()).map(Action::Together).collect()
}

fn drafts(slices: Vec<Arc<EndpointSlice>>, mut group: Group) -> Vec<Draft> {
    let placeholder = group.endpoints.is_empty();
    let mut drafts: Vec<Draft> = Vec::new();
    for slice in slices {
        let before = slice.endpoints.clone().unwrap_or_default();
        let kept: Vec<Endpoint> = before.iter().filter_map(|old| group.endpoints.remove(&identity(old))).collect();
        let changed = kept != before;
        drafts.push(Draft { slice: Some(slice), endpoints: kept, changed });
    }
    let mut rest = group.endpoints.into_values().peekable();
    // Slices that are written anyway first, then the fullest with room.
    let mut order: Vec<usize> = (0..drafts.len()).collect();
    order.sort_by_key(|at| (!drafts[*at].changed, std::cmp::Reverse(drafts[*at].endpoints.len())));
    for at in order {
        let draft = &mut drafts[at];
        while rest.peek().is_some() && draft.endpoints.len() < PER_SLICE_MAX {
            draft.endpoints.extend(rest.next());
            draft.changed = true;
        }
    }
    while rest.peek().is_some() {
        let endpoints = rest.by_ref().take(PER_SLICE_MAX).collect();
        drafts.push(Draft { slice: None, endpoints, changed: true });
    }
    if placeholder {
        keep_one_empty(&mut drafts);
    }
    drafts
}

/// A Service without endpoints keeps one empty slice.
fn keep_one_empty(drafts: &mut Vec<Draft>) {
    for (at, draft) in drafts.iter_mut().enumerate() {
        draft.changed = at > 0;
    }
    if drafts.is_empty() {
        drafts.push(Draft { slice: None, endpoints: Vec::new(), changed: true });
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = inherited_labels(service);
    labels.insert(SERVICE_LABEL.to_owned(), meta::name(service).to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels
}

fn update(service: &Service, slice: &EndpointSlice, draft: &Draft, trigger: Timestamp) -> Option<Action> {
    let before = slice.endpoints.clone().unwrap_or_default();
    let mut patch = json!({});
    if before != draft.endpoints {
        patch["endpoints"] = to_value(&draft.endpoints);
        patch["metadata"]["annotations"] = json!({TRIGGER_ANNOTATION: trigger.to_string()});
    }
    let old_labels = slice.metadata.labels.clone().unwrap_or_default();
    if let Some(diff) = merge_diff(&to_value(&old_labels), &to_value(&labels(service))) {
        patch["metadata"]["labels"] = diff;
    }
    patch.as_object().is_some_and(|patch| !patch.is_empty()).then(|| Action::update(slice, patch))
}

fn create(
    service: &Service,
    family: &str,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
    trigger: Timestamp,
    context: &Context<'_>,
) -> Action {
    let prefix = format!("{}-", meta::name(service));
    let placeholder = endpoints.is_empty();
    let slice = EndpointSlice {
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        ports: (!ports.is_empty() || !placeholder).then(|| ports.to_vec()),
        metadata: ObjectMeta {
            name: Some(format!("{prefix}{}", context.name_suffix())),
            generate_name: Some(prefix),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            annotations: Some(BTreeMap::from([(TRIGGER_ANNOTATION.to_owned(), trigger.to_string())])),
            owner_references: Some(vec![meta::controller_ref(service)]),
            ..ObjectMeta::default()
        },
    };
    let mut action = Action::create(&slice);
    if let (Action::Create { object, .. }, true) = (&mut action, placeholder) {
        object["endpoints"] = Value::Array(Vec::new());
        object["ports"] = Value::Null;
    }
    action
}
