//! The only crate that may use `unsafe`: system calls that `nix` and `rustix` lack or mark unsafe, each behind a
//! safe function that checks what makes it sound. No policy lives here. Called by `runtime` (zygote and shims),
//! `kubelet`, `network` and `skiff`.

#![expect(unsafe_code, reason = "this is the crate for it")]

pub mod device_filter;
pub mod link;
pub mod memory;
pub mod mount;
pub mod process;
pub mod seccomp;
