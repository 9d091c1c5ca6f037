//! Turning a forked child into a container's program: terminal, limits, user, capabilities, seccomp, `execve`.
//!
//! Runs in the child of a shim, after [`super::rootfs`]. Order matters: what needs privilege comes before it is dropped.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Uid};
use rustix::pty::OpenptFlags;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::identity;
use super::protocol::{Identity, ProcessSpec, SeccompSpec};
use super::rootfs::{Result, doing};
use crate::seccomp;

/// Where a program's standard streams come from.
pub enum Stdio {
    /// Stdin (or none: `/dev/null`), stdout, stderr.
    Pipes(Option<OwnedFd>, OwnedFd, OwnedFd),
    /// A new terminal of the container's own devpts.
    Terminal,
}

const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CAPABILITY_LAST: u32 = 40;

/// Sets the score, which is in the host's `/proc`, so before the root is entered. Lowering it takes CAP_SYS_RESOURCE,
/// which skiff may lack: that only makes the container likelier to be killed, so it is reported, not fatal.
pub fn set_oom_score(process: &ProcessSpec) -> Option<String> {
    let score = process.oom_score_adj?;
    std::fs::write("/proc/self/oom_score_adj", score.to_string()).err().map(|e| format!("set oom_score_adj to {score}: {e}"))
}

/// Connects the standard streams. Returns the terminal's master side, for the shim.
pub fn connect(stdio: Stdio) -> Result<Option<OwnedFd>> {
    rustix::process::setsid().map_err(doing("setsid"))?;
    match stdio {
        Stdio::Pipes(stdin, stdout, stderr) => {
            let stdin = match stdin {
                Some(fd) => fd,
                None => rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(doing("open /dev/null"))?,
            };
            standard_streams(stdin.as_fd(), stdout.as_fd(), stderr.as_fd())?;
            Ok(None)
        }
        Stdio::Terminal => {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty()).map_err(doing("open /dev/ptmx"))?;
            let stat = rustix::fs::fstat(&master).map_err(doing("open /dev/ptmx"))?;
            if stat.st_rdev != rustix::fs::makedev(5, 2) {
                return Err("the container's /dev/ptmx is no terminal multiplexer".into());
            }
            rustix::pty::unlockpt(&master).map_err(doing("unlock the terminal"))?;
            let slave =
                rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).map_err(doing("open the terminal"))?;
            rustix::process::ioctl_tiocsctty(&slave).map_err(doing("take the terminal"))?;
            standard_streams(slave.as_fd(), slave.as_fd(), slave.as_fd())?;
            Ok(Some(master))
        }
    }
}

fn standard_streams(stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>) -> Result<()> {
    rustix::stdio::dup2_stdin(stdin)
        .and_then(|()| rustix::stdio::dup2_stdout(stdout))
        .and_then(|()| rustix::stdio::dup2_stderr(stderr))
        .map_err(doing("connect standard streams"))
}

/// Looks the user up in the entered root.
pub fn resolve_user(process: &ProcessSpec) -> Result<identity::User> {
    let passwd = identity::read_file(Path::new("/etc/passwd")).map_err(doing("read /etc/passwd"))?;
    let group = identity::read_file(Path::new("/etc/group")).map_err(doing("read /etc/group"))?;
    identity::resolve(&process.user, &process.supplemental_groups, process.strict_groups, &passwd, &group)
}

fn set_rlimits(process: &ProcessSpec) -> Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    for limit in &process.rlimits {
        let resource = match limit.resource.as_str() {
            "RLIMIT_NOFILE" => Resource::RLIMIT_NOFILE,
            "RLIMIT_NPROC" => Resource::RLIMIT_NPROC,
            "RLIMIT_CORE" => Resource::RLIMIT_CORE,
            "RLIMIT_MEMLOCK" => Resource::RLIMIT_MEMLOCK,
            "RLIMIT_STACK" => Resource::RLIMIT_STACK,
            other => return Err(format!("rlimit {other} is not known")),
        };
        setrlimit(resource, limit.soft, limit.hard).map_err(doing(format_args!("set {}", limit.resource)))?;
    }
    Ok(())
}

fn capability_set(numbers: &[u32]) -> CapabilitySet {
    let bits = numbers.iter().filter(|n| **n < 64).fold(0u64, |bits, n| bits | (1 << n));
    CapabilitySet::from_bits_retain(bits)
}

fn drop_privileges(process: &ProcessSpec, identity: &Identity) -> Result<()> {
    for number in (0..=CAPABILITY_LAST).filter(|n| !process.capabilities.contains(n)) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {} // the kernel does not have this one
            Err(error) => return Err(format!("drop capability {number}: {error}")),
        }
    }
    rustix::thread::set_keep_capabilities(true).map_err(doing("keep capabilities"))?;
    let groups: Vec<Gid> = identity.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&groups).map_err(doing("set groups"))?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(doing("set group"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(doing("set user"))?;
    // What the shim itself lacks cannot be given.
    let own = rustix::thread::capabilities(None).map_err(doing("read capabilities"))?.permitted;
    let set = capability_set(&process.capabilities).intersection(own);
    let ambient = capability_set(&process.ambient).intersection(own);
    let sets = CapabilitySets { effective: set, permitted: set, inheritable: ambient };
    rustix::thread::set_capabilities(None, sets).map_err(doing("set capabilities"))?;
    rustix::thread::set_keep_capabilities(false).map_err(doing("keep capabilities"))?;
    for number in process.ambient.iter().filter(|n| ambient.contains(capability_set(&[**n]))) {
        rustix::thread::configure_capability_in_ambient_set(capability_set(&[*number]), true).map_err(doing("set ambient capability"))?;
    }
    Ok(())
}

fn filters(process: &ProcessSpec) -> Result<Vec<Vec<sys::seccomp::Instruction>>> {
    match &process.seccomp {
        SeccompSpec::Unconfined => Ok(Vec::new()),
        SeccompSpec::RuntimeDefault => seccomp::runtime_default(&process.capabilities).map_err(|e| e.to_string()),
        SeccompSpec::Profile(text) => seccomp::profile(text).map_err(|e| e.to_string()),
    }
}

fn install(filters: &[Vec<sys::seccomp::Instruction>]) -> Result<()> {
    filters.iter().try_for_each(|filter| sys::seccomp::install(filter)).map_err(doing("install the seccomp filter"))
}

/// Where `program` is, by PATH; the error text is upstream's.
fn find_program(program: &str, path: &str, cwd: &str) -> Result<CString> {
    let c_string = |text: String| CString::new(text).map_err(|_| format!("exec: {program:?}: contains a NUL byte"));
    if program.contains('/') {
        std::fs::metadata(program).map_err(|e| format!("exec: {program:?}: stat {program}: {}", go_text(&e)))?;
        return c_string(program.to_owned());
    }
    let candidates = path.split(':').map(|dir| if dir.is_empty() { Path::new(cwd).join(program) } else { Path::new(dir).join(program) });
    for candidate in candidates {
        let is_program = std::fs::metadata(&candidate)
            .is_ok_and(|m| m.is_file() && std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o111 != 0);
        if is_program {
            return c_string(candidate.to_string_lossy().into_owned());
        }
    }
    Err(format!("exec: {program:?}: executable file not found in $PATH"))
}

/// An error in Go's words, which clients of upstream runtimes know.
fn go_text(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::NotADirectory => "not a directory".into(),
        _ => error.to_string(),
    }
}

/// Becomes the program. Only returns on failure.
pub fn execute(process: &ProcessSpec, user: &identity::User, before_exec: impl FnOnce() -> Result<()>) -> Result<std::convert::Infallible> {
    let filters = filters(process)?;
    set_rlimits(process)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if let Some(profile) = &process.apparmor {
        std::fs::write("/proc/self/attr/apparmor/exec", format!("exec {profile}"))
            .map_err(doing(format_args!("set AppArmor profile {profile}")))?;
    }
    if process.tty {
        let owner = Some(rustix::fs::Uid::from_raw(user.identity.uid));
        rustix::fs::fchown(rustix::stdio::stdin(), owner, None).map_err(doing("give the terminal to the user"))?;
    }
    let cwd = if process.cwd.is_empty() { "/" } else { &process.cwd };
    if let Err(error) = std::fs::create_dir_all(cwd) {
        tracing::trace!(cwd, %error, "make the working directory");
    }
    if !process.no_new_privileges {
        install(&filters)?;
    }
    drop_privileges(process, &user.identity)?;
    rustix::process::chdir(cwd).map_err(doing(format_args!("chdir to cwd ({cwd:?}) set in config.json failed")))?;
    let mut env: Vec<(String, String)> = process.env.clone();
    let value = |env: &[(String, String)], key: &str| env.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let path = value(&env, "PATH").unwrap_or_else(|| PATH_DEFAULT.to_owned());
    if value(&env, "HOME").is_none_or(|home| home.is_empty()) {
        env.push(("HOME".into(), user.home.clone()));
    }
    let program = find_program(process.args.first().ok_or("no command specified")?, &path, cwd)?;
    let c_string = |text: String| CString::new(text).map_err(|_| "an argument or variable contains a NUL byte".to_owned());
    let args = process.args.iter().map(|a| c_string(a.clone())).collect::<Result<Vec<_>>>()?;
    let env = env.into_iter().map(|(k, v)| c_string(format!("{k}={v}"))).collect::<Result<Vec<_>>>()?;
    before_exec()?;
    sys::process::reset_signals().map_err(doing("reset signals"))?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(doing("set no_new_privs"))?;
        install(&filters)?;
    }
    nix::unistd::execve(&program, &args, &env).map_err(|error| format!("exec {}: {}", program.to_string_lossy(), go_text(&error.into())))
}
