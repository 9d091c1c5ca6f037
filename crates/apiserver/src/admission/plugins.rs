//! The table of plugins, in upstream's order, and which of them are on: by default, by flag, with what the configuration gives
//! them.

use super::configuration::{AdmissionConfiguration, Given};
use super::*;
use crate::config::Config;
use crate::error::Error;

struct Row {
    name: &'static str,
    on_by_default: bool,
    made: Made,
}

type Make = fn(Option<&Given>) -> Result<Box<dyn Plugin>, String>;

/// How a plugin comes about.
enum Made {
    Fixed(&'static dyn Plugin),
    /// From its part of the configuration.
    Of(Make),
    /// A plugin that does nothing until a feature gate is on that is off by default, and whose kinds are not served without it.
    Idle(&'static str),
}

const fn on(name: &'static str, plugin: &'static dyn Plugin) -> Row {
    Row { name, on_by_default: true, made: Made::Fixed(plugin) }
}

const fn off(name: &'static str, plugin: &'static dyn Plugin) -> Row {
    Row { name, on_by_default: false, made: Made::Fixed(plugin) }
}

const fn configured(name: &'static str, on_by_default: bool, of: Make) -> Row {
    Row { name, on_by_default, made: Made::Of(of) }
}

const fn idle(name: &'static str, gate: &'static str) -> Row {
    Row { name, on_by_default: true, made: Made::Idle(gate) }
}

fn boxed<P: Plugin + 'static>(made: Result<P, String>) -> Result<Box<dyn Plugin>, String> {
    made.map(|plugin| Box::new(plugin) as Box<dyn Plugin>)
}

/// All plugins, in the order they run.
static TABLE: &[Row] = &[
    off("AlwaysAdmit", &always::AlwaysAdmit),
    off("NamespaceAutoProvision", &namespaces::NamespaceAutoProvision),
    on("NamespaceLifecycle", &namespace_lifecycle::NamespaceLifecycle),
    off("NamespaceExists", &namespaces::NamespaceExists),
    off("LimitPodHardAntiAffinityTopology", &limit_pod_hard_anti_affinity_topology::LimitPodHardAntiAffinityTopology),
    on("LimitRanger", &limit_ranger::LimitRanger),
    on("ServiceAccount", &service_account::ServiceAccount),
    on("NodeRestriction", &node_restriction::NodeRestriction),
    on("TaintNodesByCondition", &taint_nodes_by_condition::TaintNodesByCondition),
    off("AlwaysPullImages", &always_pull_images::AlwaysPullImages),
    configured("ImagePolicyWebhook", false, |given| boxed(image_policy_webhook::ImagePolicyWebhook::new(given))),
    configured("PodSecurity", true, |given| boxed(pod_security::PodSecurity::new(given))),
    configured("PodNodeSelector", false, |given| boxed(pod_node_selector::PodNodeSelector::new(given))),
    on("Priority", &priority::Priority),
    on("DefaultTolerationSeconds", &default_toleration_seconds::DefaultTolerationSeconds),
    configured("PodTolerationRestriction", false, |given| boxed(pod_toleration_restriction::PodTolerationRestriction::new(given))),
    configured("EventRateLimit", false, |given| boxed(event_rate_limit::EventRateLimit::new(given))),
    off("ExtendedResourceToleration", &extended_resource_toleration::ExtendedResourceToleration),
    on("DefaultStorageClass", &default_class::STORAGE),
    on("StorageObjectInUseProtection", &storage_object_in_use_protection::StorageObjectInUseProtection),
    idle("PodGroupProtection", "GenericWorkload"),
    off("OwnerReferencesPermissionEnforcement", &owner_references_permission_enforcement::OwnerReferencesPermissionEnforcement),
    on("PersistentVolumeClaimResize", &persistent_volume_claim_resize::PersistentVolumeClaimResize),
    on("RuntimeClass", &runtime_class::RuntimeClass),
    on("CertificateApproval", &certificates::CertificateApproval),
    on("CertificateSigning", &certificates::CertificateSigning),
    idle("ClusterTrustBundleAttest", "ClusterTrustBundle"),
    on("CertificateSubjectRestriction", &certificates::CertificateSubjectRestriction),
    on("DefaultIngressClass", &default_class::INGRESS),
    off("DenyServiceExternalIPs", &deny_service_external_ips::DenyServiceExternalIPs),
    on("PodTopologyLabels", &pod_topology_labels::PodTopologyLabels),
    idle("PodGroupWorkloadExists", "GenericWorkload"),
    on("NodeDeclaredFeatureValidator", &pod_resize::NodeDeclaredFeatureValidator),
    idle("JobValidation", "GenericWorkload"),
    on("PodResizeValidator", &pod_resize::PodResizeValidator),
    on("MutatingAdmissionPolicy", &policy::MutatingAdmissionPolicy),
    configured("MutatingAdmissionWebhook", true, |given| boxed(webhooks::MutatingAdmissionWebhook::new(given))),
    on("ValidatingAdmissionPolicy", &policy::ValidatingAdmissionPolicy),
    configured("ValidatingAdmissionWebhook", true, |given| boxed(webhooks::ValidatingAdmissionWebhook::new(given))),
    on("ResourceQuota", &resource_quota::ResourceQuota),
    off("AlwaysDeny", &always::AlwaysDeny),
];

enum Held {
    Fixed(&'static dyn Plugin),
    Own(Box<dyn Plugin>),
}

/// The plugins that are on.
pub struct Plugins(Vec<(&'static str, Held)>);

/// Every plugin with what a configuration gives it, whether it is on or not.
#[cfg(fuzzing)]
pub fn try_all(tree: &Value) -> Result<(), String> {
    let given = AdmissionConfiguration::of(tree, std::path::Path::new("/nowhere"))?;
    let made = TABLE.iter().filter_map(|row| match row.made {
        Made::Of(make) => Some(make(given.of_plugin(row.name)).map(drop)),
        _ => None,
    });
    made.collect()
}

impl Plugins {
    /// Those of the table that are on by default or by flag, and not off by flag.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let (enabled, disabled) = (&config.enable_admission_plugins, &config.disable_admission_plugins);
        for (flag, names) in [("enable-admission-plugins", enabled), ("disable-admission-plugins", disabled)] {
            if let Some(name) = names.iter().find(|n| TABLE.iter().all(|row| row.name != **n)) {
                return Err(Error::Config(format!("{flag} plugin {name:?} is unknown")));
            }
        }
        if let Some(both) = disabled.iter().find(|n| enabled.contains(n)) {
            let why = format!("[{both}] in enable-admission-plugins and disable-admission-plugins overlapped");
            return Err(Error::Config(why));
        }
        let given = match &config.admission_control_config_file {
            Some(file) => AdmissionConfiguration::read(file).map_err(Error::Config)?,
            None => AdmissionConfiguration::default(),
        };
        let mut plugins = Vec::new();
        for row in TABLE {
            let named = |names: &[String]| names.iter().any(|n| n == row.name);
            if !(row.on_by_default || named(enabled)) || named(disabled) {
                continue;
            }
            let held = match row.made {
                Made::Fixed(plugin) => Held::Fixed(plugin),
                Made::Of(make) => {
                    let made = make(given.of_plugin(row.name));
                    Held::Own(made.map_err(|why| Error::Config(format!("couldn't init admission plugin {:?}: {why}", row.name)))?)
                }
                Made::Idle(gate) => {
                    tracing::debug!(plugin = row.name, gate, "an admission plugin has nothing to do");
                    continue;
                }
            };
            plugins.push((row.name, held));
        }
        Ok(Self(plugins))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &dyn Plugin)> {
        self.0.iter().map(|(name, held)| match held {
            Held::Fixed(plugin) => (*name, *plugin),
            Held::Own(plugin) => (*name, &**plugin),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_run_in_upstreams_order() {
        // As `kube-apiserver` v1.36 says it of itself, those that are off by default in brackets.
        let order = "(AlwaysAdmit) (NamespaceAutoProvision) NamespaceLifecycle (NamespaceExists) (LimitPodHardAntiAffinityTopology) \
                     LimitRanger ServiceAccount NodeRestriction TaintNodesByCondition (AlwaysPullImages) (ImagePolicyWebhook) PodSecurity \
                     (PodNodeSelector) Priority DefaultTolerationSeconds (PodTolerationRestriction) (EventRateLimit) \
                     (ExtendedResourceToleration) DefaultStorageClass StorageObjectInUseProtection PodGroupProtection \
                     (OwnerReferencesPermissionEnforcement) PersistentVolumeClaimResize RuntimeClass CertificateApproval \
                     CertificateSigning ClusterTrustBundleAttest CertificateSubjectRestriction DefaultIngressClass \
                     (DenyServiceExternalIPs) PodTopologyLabels PodGroupWorkloadExists NodeDeclaredFeatureValidator JobValidation \
                     PodResizeValidator MutatingAdmissionPolicy MutatingAdmissionWebhook ValidatingAdmissionPolicy \
                     ValidatingAdmissionWebhook ResourceQuota (AlwaysDeny)";
        let ours = TABLE.iter().map(|row| if row.on_by_default { row.name.to_owned() } else { format!("({})", row.name) });
        assert_eq!(ours.collect::<Vec<_>>(), order.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn plugins_are_idle_only_behind_gates_that_are_off() {
        let gates = include_str!("../features.tsv");
        for row in TABLE {
            if let Made::Idle(gate) = row.made {
                let known = gates.lines().find(|line| line.split_whitespace().next() == Some(gate));
                assert!(known.is_some_and(|line| line.ends_with("off")), "{}: {gate} is {known:?}", row.name);
            }
        }
    }

    #[test]
    fn flags_choose_plugins_and_name_only_those_there_are() {
        let with = |enabled: &[&str], disabled: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
            let config =
                Config { enable_admission_plugins: list(enabled), disable_admission_plugins: list(disabled), ..Config::new("/nowhere") };
            Plugins::new(&config).map(|p| p.iter().map(|(name, _)| name).collect::<Vec<_>>()).map_err(|e| e.to_string())
        };
        assert!(with(&[], &["LimitRanger", "AlwaysAdmit"]).is_ok_and(|on| !on.contains(&"LimitRanger") && on.contains(&"Priority")));
        assert!(with(&[], &[]).is_ok_and(|on| !on.contains(&"AlwaysPullImages")));
        assert!(with(&["AlwaysPullImages"], &[]).is_ok_and(|on| on.contains(&"AlwaysPullImages")));
        let text = |r: Result<Vec<&str>, String>| r.err().unwrap_or_default();
        assert!(text(with(&["Nonsense"], &[])).contains("enable-admission-plugins plugin \"Nonsense\" is unknown"));
        assert!(text(with(&[], &["Nonsense"])).contains("disable-admission-plugins plugin \"Nonsense\" is unknown"));
        assert!(text(with(&["Priority"], &["Priority"])).contains("overlapped"));
        // These two say nothing sensible without a configuration.
        for name in ["EventRateLimit", "ImagePolicyWebhook"] {
            assert!(text(with(&[name], &[])).contains(&format!("couldn't init admission plugin {name:?}")));
        }
    }
}
