//! Installing a seccomp filter without also setting `no_new_privs` (which `seccompiler` always does).

use std::io;

/// One classic BPF instruction: code, jump if true, jump if false, operand.
pub type Instruction = (u16, u8, u8, u32);

/// Installs `filter` for the calling thread. Without `no_new_privs` this takes CAP_SYS_ADMIN.
pub fn install(filter: &[Instruction]) -> io::Result<()> {
    let mut code: Vec<libc::sock_filter> = filter.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let length = u16::try_from(code.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: code.as_mut_ptr() };
    // SAFETY: `program` and the instructions it points to outlive the call; the kernel checks the program itself.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
