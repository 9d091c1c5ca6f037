//! From what the CRI asks and the image says to the container's specification. Reads the host only to complete mounts.

use std::path::{Path, PathBuf};

use cri::v1::{ContainerConfig, LinuxContainerResources, NamespaceMode, PodSandboxConfig, SecurityProfile, SupplementalGroupsPolicy};
use tonic::Status;

use super::capabilities;
use super::state::Sandbox;
use crate::config::Config;
use crate::images::ImageConfig;
use crate::shim::protocol::{BindMount, ContainerSpec, DeviceSpec, MountPropagation, PidMode, ProcessSpec, Resources, SeccompSpec};

type Result<T> = std::result::Result<T, Status>;

fn invalid(text: impl Into<String>) -> Status {
    Status::invalid_argument(text)
}

/// What is needed to make a specification.
pub struct Inputs<'a> {
    pub config: &'a Config,
    pub sandbox: &'a Sandbox,
    pub container: &'a ContainerConfig,
    pub image: &'a ImageConfig,
    pub layers: Vec<PathBuf>,
    pub id: &'a str,
    /// Host PID of the container whose namespace `TARGET` names.
    pub target_pid: Option<i32>,
}

pub fn resources(linux: &LinuxContainerResources) -> Resources {
    Resources {
        cpu_shares: u64::try_from(linux.cpu_shares).unwrap_or(0),
        cpu_quota: linux.cpu_quota,
        cpu_period: u64::try_from(linux.cpu_period).unwrap_or(0),
        memory_limit_bytes: linux.memory_limit_in_bytes,
        memory_swap_limit_bytes: linux.memory_swap_limit_in_bytes,
        cpuset_cpus: linux.cpuset_cpus.clone(),
        cpuset_mems: linux.cpuset_mems.clone(),
        hugepages: linux.hugepage_limits.iter().map(|h| (h.page_size.clone(), h.limit)).collect(),
        pids_limit: 0,
        unified: linux.unified.clone().into_iter().collect(),
    }
}

fn seccomp(config: &Config, profile: Option<&SecurityProfile>) -> Result<SeccompSpec> {
    use cri::v1::security_profile::ProfileType;
    let Some(profile) = profile else { return Ok(SeccompSpec::Unconfined) };
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => Ok(SeccompSpec::RuntimeDefault),
        Ok(ProfileType::Unconfined) => Ok(SeccompSpec::Unconfined),
        Ok(ProfileType::Localhost) => {
            let path = config.seccomp_dir.join(&profile.localhost_ref);
            let text = std::fs::read_to_string(&path).map_err(|e| invalid(format!("seccomp profile {}: {e}", path.display())))?;
            crate::seccomp::profile(&text).map_err(|e| invalid(format!("{}: {e}", path.display())))?;
            Ok(SeccompSpec::Profile(text))
        }
        Err(_) => Err(invalid(format!("unknown seccomp profile type {}", profile.profile_type))),
    }
}

fn environment(inputs: &Inputs<'_>) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |key: &str, value: &str| match env.iter_mut().find(|(k, _)| k == key) {
        Some(entry) => value.clone_into(&mut entry.1),
        None => env.push((key.to_owned(), value.to_owned())),
    };
    set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    set("HOSTNAME", &inputs.sandbox.config.0.hostname);
    if inputs.container.tty {
        set("TERM", "xterm");
    }
    for entry in &inputs.image.env {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(key, value);
    }
    for entry in &inputs.container.envs {
        set(&entry.key, &String::from_utf8_lossy(&entry.value));
    }
    env
}

/// Upstream's rule: the container's command replaces the image's entrypoint and, with it, the image's arguments.
fn command(container: &ContainerConfig, image: &ImageConfig) -> Vec<String> {
    let (mut entrypoint, mut args) = (container.command.clone(), container.args.clone());
    if entrypoint.is_empty() {
        if args.is_empty() {
            args.clone_from(&image.cmd);
        }
        entrypoint.clone_from(&image.entrypoint);
    }
    entrypoint.extend(args);
    entrypoint
}

fn user(context: &cri::v1::LinuxContainerSecurityContext, image: &ImageConfig) -> String {
    let mut user = match (&context.run_as_user, context.run_as_username.as_str()) {
        (Some(uid), _) => uid.value.to_string(),
        (None, "") => image.user.clone(),
        (None, name) => name.to_owned(),
    };
    if let Some(gid) = &context.run_as_group {
        user = format!("{}:{}", user.split(':').next().unwrap_or_default(), gid.value);
    }
    user
}

fn process(inputs: &Inputs<'_>) -> Result<ProcessSpec> {
    use cri::v1::security_profile::ProfileType;
    let container = inputs.container;
    let linux = container.linux.clone().unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let args = command(container, inputs.image);
    if args.is_empty() {
        return Err(invalid("no command specified"));
    }
    let wanted = context.capabilities.clone().unwrap_or_default();
    let capabilities = if context.privileged {
        capabilities::all()
    } else {
        capabilities::effective(&wanted.add_capabilities, &wanted.drop_capabilities).map_err(invalid)?
    };
    let ambient = if wanted.add_ambient_capabilities.is_empty() {
        Vec::new()
    } else {
        capabilities::effective(&wanted.add_ambient_capabilities, &["ALL".to_owned()]).map_err(invalid)?
    };
    let group = |gid: &i64| u32::try_from(*gid).map_err(|_| invalid(format!("group {gid} is out of range")));
    let apparmor = context.apparmor.as_ref().filter(|p| p.profile_type == ProfileType::Localhost as i32 && !context.privileged);
    Ok(ProcessSpec {
        args,
        env: environment(inputs),
        cwd: if container.working_dir.is_empty() { inputs.image.working_dir.clone() } else { container.working_dir.clone() },
        user: user(&context, inputs.image),
        supplemental_groups: context.supplemental_groups.iter().map(group).collect::<Result<_>>()?,
        strict_groups: context.supplemental_groups_policy() == SupplementalGroupsPolicy::Strict,
        capabilities,
        ambient,
        no_new_privileges: context.no_new_privs,
        seccomp: if context.privileged { SeccompSpec::Unconfined } else { seccomp(inputs.config, context.seccomp.as_ref())? },
        rlimits: Vec::new(),
        oom_score_adj: linux.resources.as_ref().and_then(|r| i32::try_from(r.oom_score_adj).ok()),
        tty: container.tty,
        apparmor: apparmor.map(|p| p.localhost_ref.clone()),
    })
}

fn mounts(inputs: &Inputs<'_>) -> Result<Vec<BindMount>> {
    let mut mounts = Vec::new();
    for mount in &inputs.container.mounts {
        if mount.image.as_ref().is_some_and(|image| !image.image.is_empty()) {
            return Err(Status::unimplemented("image volumes are not supported yet"));
        }
        if !mount.container_path.starts_with('/') {
            return Err(invalid(format!("mount target {:?} is not absolute", mount.container_path)));
        }
        let source = PathBuf::from(&mount.host_path);
        if !source.exists() {
            std::fs::create_dir_all(&source).map_err(|e| invalid(format!("make mount source {}: {e}", source.display())))?;
        }
        let propagation = match mount.propagation() {
            cri::v1::MountPropagation::PropagationPrivate => MountPropagation::Private,
            cri::v1::MountPropagation::PropagationHostToContainer => MountPropagation::HostToContainer,
            cri::v1::MountPropagation::PropagationBidirectional => MountPropagation::Bidirectional,
        };
        let (readonly, recursive_readonly) = (mount.readonly, mount.recursive_read_only);
        mounts.push(BindMount { source, target: mount.container_path.clone(), readonly, recursive_readonly, propagation });
    }
    let dir = inputs.config.sandboxes_dir().join(&inputs.sandbox.id);
    let readonly = inputs.container.linux.as_ref().and_then(|l| l.security_context.as_ref()).is_some_and(|s| s.readonly_rootfs);
    for (file, target) in [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")] {
        if !mounts.iter().any(|m| m.target == target) {
            let propagation = MountPropagation::Private;
            mounts.push(BindMount { source: dir.join(file), target: target.into(), readonly, recursive_readonly: false, propagation });
        }
    }
    Ok(mounts)
}

/// Writes the files that every container of a sandbox sees unless it brings its own.
pub fn write_sandbox_files(dir: &Path, sandbox: &PodSandboxConfig) -> std::io::Result<()> {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let resolv = match &sandbox.dns_config {
        Some(dns) => {
            let mut text: String = dns.servers.iter().map(|s| format!("nameserver {s}\n")).collect();
            for (key, values) in [("search", &dns.searches), ("options", &dns.options)] {
                if !values.is_empty() {
                    text.push_str(&format!("{key} {}\n", values.join(" ")));
                }
            }
            text
        }
        None => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    };
    std::fs::write(dir.join("hosts"), hosts)?;
    std::fs::write(dir.join("resolv.conf"), resolv)?;
    std::fs::write(dir.join("hostname"), format!("{}\n", sandbox.hostname))
}

/// The specification of a container.
pub fn container(inputs: &Inputs<'_>) -> Result<ContainerSpec> {
    let linux = inputs.container.linux.clone().unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let namespaces = context.namespace_options.clone().unwrap_or_default();
    let pid_mode = match namespaces.pid() {
        NamespaceMode::Container => PidMode::Container,
        NamespaceMode::Node => PidMode::Host,
        NamespaceMode::Pod if inputs.sandbox.namespaces().pid() == NamespaceMode::Pod => PidMode::Pod,
        NamespaceMode::Pod => PidMode::Container,
        NamespaceMode::Target => PidMode::Target(inputs.target_pid.ok_or_else(|| invalid("the target container does not run"))?),
    };
    let log = (!inputs.container.log_path.is_empty() && !inputs.sandbox.config.0.log_directory.is_empty())
        .then(|| Path::new(&inputs.sandbox.config.0.log_directory).join(&inputs.container.log_path));
    let host_ipc = inputs.sandbox.namespaces().ipc() == NamespaceMode::Node;
    let shm = if host_ipc { PathBuf::from("/dev/shm") } else { inputs.config.run_dir.join("shm").join(&inputs.sandbox.id) };
    let mut devices = Vec::new();
    for device in &inputs.container.devices {
        let (host_path, container_path) = (PathBuf::from(&device.host_path), device.container_path.clone());
        devices.push(DeviceSpec { host_path, container_path, permissions: device.permissions.clone() });
    }
    Ok(ContainerSpec {
        id: inputs.id.to_owned(),
        dir: inputs.config.containers_dir().join(inputs.id),
        layers: inputs.layers.clone(),
        readonly_rootfs: context.readonly_rootfs,
        mounts: mounts(inputs)?,
        masked_paths: if context.privileged { Vec::new() } else { context.masked_paths.clone() },
        readonly_paths: if context.privileged { Vec::new() } else { context.readonly_paths.clone() },
        devices,
        privileged: context.privileged,
        process: process(inputs)?,
        pid_mode,
        cgroup: format!("{}/{}", inputs.sandbox.cgroup, inputs.id),
        resources: linux.resources.as_ref().map(resources).unwrap_or_default(),
        shm: Some(shm),
        stdin: inputs.container.stdin,
        stdin_once: inputs.container.stdin_once,
        log,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_rules() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let check = |given: &str, args: &str, expected: &str| {
            let container = ContainerConfig { command: list(given), args: list(args), ..Default::default() };
            let image = ImageConfig { entrypoint: list("entry"), cmd: list("cmd"), ..Default::default() };
            assert_eq!(command(&container, &image), list(expected), "{given:?} {args:?}");
        };
        check("", "", "entry cmd");
        check("", "a b", "entry a b");
        check("c", "", "c");
        check("c", "a", "c a");
    }
}
