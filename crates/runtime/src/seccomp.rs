//! Seccomp: the RuntimeDefault profile and profiles in the OCI JSON form, compiled to BPF.
//!
//! Fails closed: a profile with anything that cannot be expressed exactly is an error, never a weaker filter.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};
use serde::Deserialize;
use sys::seccomp::Instruction;

mod calls;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("seccomp profile: {0}")]
    Profile(String),
    #[error("seccomp profile: {0}")]
    Json(#[from] serde_json::Error),
    #[error("compile seccomp filter: {0}")]
    Compile(#[from] seccompiler::BackendError),
}

type Result<T> = std::result::Result<T, SeccompError>;
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

const CAP_SYS_ADMIN: u32 = 21;
/// Every CLONE_NEW* flag.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;
const AF_VSOCK: u64 = 40;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

fn number(name: &str) -> Option<i64> {
    let tables = [calls::ALLOWED, calls::ALLOWED_HERE, calls::CONDITIONAL, calls::CONDITIONAL_HERE];
    tables.iter().flat_map(|table| table.iter()).find(|(known, _)| *known == name).map(|(_, number)| *number)
}

fn architecture() -> Result<TargetArch> {
    TargetArch::try_from(std::env::consts::ARCH).map_err(SeccompError::Compile)
}

fn compile(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<Vec<Instruction>> {
    let program: BpfProgram = SeccompFilter::new(rules, otherwise, matched, architecture()?)?.try_into()?;
    Ok(program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect())
}

fn when(argument: u8, length: SeccompCmpArgLen, op: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    Ok(SeccompRule::new(vec![SeccompCondition::new(argument, length, op, value)?])?)
}

/// The filters of the RuntimeDefault profile for a container with these capabilities, to be installed in order.
pub fn runtime_default(capabilities: &[u32]) -> Result<Vec<Vec<Instruction>>> {
    let mut rules: Rules = calls::ALLOWED.iter().chain(calls::ALLOWED_HERE).map(|(_, number)| (*number, Vec::new())).collect();
    let mut allow = |name: &str, conditions: Vec<SeccompRule>| {
        if let Some(number) = number(name) {
            rules.insert(number, conditions);
        }
    };
    for (_, names) in calls::BY_CAPABILITY.iter().filter(|(capability, _)| capabilities.contains(capability)) {
        for name in *names {
            allow(name, Vec::new());
        }
    }
    allow("arch_prctl", Vec::new());
    allow("modify_ldt", Vec::new());
    let personalities = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];
    allow("personality", personalities.map(|p| when(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, p)).into_iter().collect::<Result<_>>()?);
    allow("socket", vec![when(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, AF_VSOCK)?]);
    let admin = capabilities.contains(&CAP_SYS_ADMIN);
    if admin {
        allow("clone", Vec::new());
    } else {
        allow("clone", vec![when(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(CLONE_NAMESPACES), 0)?]);
        allow("clone3", Vec::new()); // answered by the second filter
    }
    let mut filters = vec![compile(rules, SeccompAction::Errno(EPERM), SeccompAction::Allow)?];
    if let (false, Some(clone3)) = (admin, number("clone3")) {
        // clone3 hides its flags behind a pointer; ENOSYS makes the C library fall back to clone.
        filters.push(compile([(clone3, Vec::new())].into(), SeccompAction::Allow, SeccompAction::Errno(ENOSYS))?);
    }
    Ok(filters)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    #[expect(dead_code, reason = "accepted: only the native ABI is ever allowed")]
    architectures: Vec<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "accepted, for the same reason")]
    arch_map: serde_json::Value,
    #[serde(default)]
    syscalls: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Group {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Argument>,
    #[serde(default)]
    #[expect(dead_code, reason = "a remark")]
    comment: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(errno.unwrap_or(EPERM)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        other => return Err(SeccompError::Profile(format!("action {other} is not supported"))),
    })
}

fn condition(argument: &Argument) -> Result<SeccompCondition> {
    let (op, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, argument.value),
        "SCMP_CMP_NE" => (SeccompCmpOp::Ne, argument.value),
        "SCMP_CMP_LT" => (SeccompCmpOp::Lt, argument.value),
        "SCMP_CMP_LE" => (SeccompCmpOp::Le, argument.value),
        "SCMP_CMP_GT" => (SeccompCmpOp::Gt, argument.value),
        "SCMP_CMP_GE" => (SeccompCmpOp::Ge, argument.value),
        "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(argument.value), argument.value_two),
        other => return Err(SeccompError::Profile(format!("comparison {other} is not known"))),
    };
    Ok(SeccompCondition::new(argument.index, SeccompCmpArgLen::Qword, op, value)?)
}

/// The filters of a profile in the OCI JSON form. One default action and one other action can be expressed.
pub fn profile(text: &str) -> Result<Vec<Vec<Instruction>>> {
    let profile: Profile = serde_json::from_str(text)?;
    let otherwise = action(&profile.default_action, profile.default_errno_ret)?;
    let mut rules: Rules = BTreeMap::new();
    let mut matched = None;
    for group in &profile.syscalls {
        let this = action(&group.action, group.errno_ret)?;
        if this == otherwise {
            if group.args.is_empty() {
                continue;
            }
            return Err(SeccompError::Profile("a rule repeats the default action with arguments".into()));
        }
        if matched.get_or_insert_with(|| this.clone()) != &this {
            return Err(SeccompError::Profile("more than two different actions are not supported".into()));
        }
        for name in &group.names {
            let Some(number) = number(name) else {
                if this == SeccompAction::Allow {
                    continue; // not allowing an unknown call is the stricter reading
                }
                return Err(SeccompError::Profile(format!("system call {name} is not known")));
            };
            let conditions = group.args.iter().map(condition).collect::<Result<Vec<_>>>()?;
            match (rules.get_mut(&number), conditions.is_empty()) {
                (_, true) => drop(rules.insert(number, Vec::new())),
                (Some(known), false) if known.is_empty() => {} // already matched without conditions
                (Some(known), false) => known.push(SeccompRule::new(conditions)?),
                (None, false) => drop(rules.insert(number, vec![SeccompRule::new(conditions)?])),
            }
        }
    }
    Ok(vec![compile(rules, otherwise, matched.unwrap_or(SeccompAction::Trap))?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_compiles() {
        assert_eq!(runtime_default(&[]).unwrap().len(), 2);
        assert_eq!(runtime_default(&[CAP_SYS_ADMIN]).unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_expressed_is_refused() {
        let cases = [
            (r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","no_such"],"action":"SCMP_ACT_ALLOW"}]}"#, true),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#, true),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["no_such"],"action":"SCMP_ACT_ERRNO"}]}"#, false),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, false),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#, false),
            ("{", false),
        ];
        for (text, sound) in cases {
            assert_eq!(profile(text).is_ok(), sound, "{text}");
        }
    }
}
