//! The cgroup v2 device controller: a small eBPF program, loaded and attached to a cgroup directory. (cgroup v1 has
//! files for this.)

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One allowed class of devices. `None` matches any number.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// `c`, `b`, or `a` for both.
    pub kind: char,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ATTACH_ALLOW_MULTI: u32 = 2;

fn op(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: dst | (src << 4), offset, immediate }
}

/// r2 = device type, r3 = access, r4 = major, r5 = minor; each rule is a run of tests that jumps past itself.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut code = vec![
        op(0x61, 2, 1, 0, 0),      // r2 = *(u32*)(ctx + 0): access << 16 | type
        op(0xbf, 3, 2, 0, 0),      // r3 = r2
        op(0x57, 2, 0, 0, 0xffff), // r2 &= 0xffff
        op(0x77, 3, 0, 0, 16),     // r3 >>= 16
        op(0x61, 4, 1, 4, 0),      // r4 = major
        op(0x61, 5, 1, 8, 0),      // r5 = minor
    ];
    for rule in rules {
        let access = i32::from(rule.mknod) | (i32::from(rule.read) << 1) | (i32::from(rule.write) << 2);
        let mut tests = Vec::new();
        match rule.kind {
            'b' => tests.push(op(0x55, 2, 0, 0, 1)),
            'c' => tests.push(op(0x55, 2, 0, 0, 2)),
            _ => {}
        }
        if access != 7 {
            tests.extend([op(0xbf, 6, 3, 0, 0), op(0x57, 6, 0, 0, access), op(0x5d, 6, 3, 0, 0)]); // asked & allowed != asked
        }
        if let Some(major) = rule.major {
            tests.push(op(0x55, 4, 0, 0, major.cast_signed()));
        }
        if let Some(minor) = rule.minor {
            tests.push(op(0x55, 5, 0, 0, minor.cast_signed()));
        }
        let length = tests.len();
        for (index, test) in tests.iter_mut().enumerate() {
            if matches!(test.code, 0x55 | 0x5d) {
                test.offset = (length - index - 1 + 2) as i16; // the rest of the tests and the two that allow
            }
        }
        code.append(&mut tests);
        code.extend([op(0xb7, 0, 0, 0, 1), op(0x95, 0, 0, 0, 0)]); // return 1
    }
    code.extend([op(0xb7, 0, 0, 0, 0), op(0x95, 0, 0, 0, 0)]); // return 0
    code
}

fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a prefix of union bpf_attr for `command` whose pointers stay valid across the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Denies the processes of `cgroup` (an open cgroup v2 directory) every device that no rule allows.
pub fn attach(cgroup: BorrowedFd<'_>, rules: &[Rule]) -> io::Result<()> {
    let code = program(rules);
    let license = c"Apache-2.0";
    let load = LoadAttr {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(code.len()).map_err(io::Error::other)?,
        insns: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Default::default()
    };
    let fd = i32::try_from(bpf(PROG_LOAD, &load)?).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor, and nothing else owns it.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = AttachAttr {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_bpf_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ATTACH_ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attach)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_stay_inside_the_program() {
        let rule = |kind, major, minor, write| Rule { kind, major, minor, read: true, write, mknod: true };
        let code = program(&[rule('c', Some(1), Some(3), true), rule('b', None, None, false), rule('a', Some(10), None, true)]);
        for (at, instruction) in code.iter().enumerate().filter(|(_, i)| matches!(i.code, 0x55 | 0x5d)) {
            assert!(at + 1 + (instruction.offset as usize) < code.len());
        }
        assert_eq!(code.last().map(|i| i.code), Some(0x95));
    }
}
