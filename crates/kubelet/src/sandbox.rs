//! The CRI configuration of a pod's sandbox (upstream's `generatePodSandboxConfig`).

use cri::v1;
use k8s_openapi::api::core::v1::Pod;
use podsync::cgroup;

use crate::config::Config;
use crate::{dns, hosts, labels, security};

pub fn linux_resources(r: &cgroup::Resources) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_period: r.cpu_period_us,
        cpu_quota: r.cpu_quota_us,
        cpu_shares: r.cpu_shares,
        memory_limit_in_bytes: r.memory_limit_bytes,
        oom_score_adj: r.oom_score_adj,
        ..Default::default()
    }
}

fn ports(pod: &Pod) -> Vec<v1::PortMapping> {
    let spec = pod.spec.as_ref();
    if spec.and_then(|s| s.host_network) == Some(true) {
        return Vec::new();
    }
    let all = spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    all.flat_map(|c| c.ports.iter().flatten())
        .filter(|p| p.host_port.is_some_and(|h| h > 0))
        .map(|p| v1::PortMapping {
            protocol: match p.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp,
                Some("SCTP") => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            } as i32,
            container_port: p.container_port,
            host_port: p.host_port.unwrap_or_default(),
            host_ip: p.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

/// The configuration, and what to warn users about.
pub fn config(config: &Config, pod: &Pod, host_dns: &v1::DnsConfig, attempt: u32) -> (v1::PodSandboxConfig, Vec<(&'static str, String)>) {
    let (namespace, name, uid) = labels::identity(pod);
    let (dns, warnings) = dns::config(pod, host_dns, &config.cluster_dns, &config.cluster_domain);
    let host_network = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    let (short, domain) = hosts::names(pod, &config.node_name, &config.cluster_domain);
    let fqdn = pod.spec.as_ref().and_then(|s| s.set_hostname_as_fqdn) == Some(true) && !domain.is_empty();
    let hostname = if fqdn { format!("{short}.{domain}") } else { short };
    let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let sysctls = context.and_then(|c| c.sysctls.as_ref()).into_iter().flatten().map(|s| (s.name.clone(), s.value.clone())).collect();
    let made = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata { name: name.into(), uid: uid.into(), namespace: namespace.into(), attempt }),
        hostname: if host_network { String::new() } else { hostname },
        log_directory: config.pod_log_dir(namespace, name, uid).display().to_string(),
        dns_config: Some(dns),
        port_mappings: ports(pod),
        labels: labels::sandbox(pod).into_iter().collect(),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: cgroup::parent(pod, &config.cgroup_root),
            security_context: Some(security::sandbox(pod)),
            sysctls,
            overhead: None,
            resources: Some(linux_resources(&cgroup::pod(pod))),
        }),
        windows: None,
    };
    (made, warnings)
}
