//! Compiles the sample image's program (`crates/hello`) as one static file, to be packed into the binary.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../hello/src");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("hello");
    println!("cargo::rerun-if-changed={}", root.display());
    let rustc = std::env::var_os("RUSTC").expect("cargo sets it");
    // crt-static works with glibc for a program on std alone: no musl target need be installed.
    let status = Command::new(rustc)
        .args(["--edition", "2024", "--crate-name", "hello", "-C", "opt-level=z", "-C", "target-feature=+crt-static"])
        .args(["-C", "panic=abort", "-C", "lto=fat", "-C", "codegen-units=1", "-C", "strip=symbols", "-o"])
        .arg(&out)
        .arg(root.join("main.rs"))
        .status()
        .expect("rustc runs");
    assert!(status.success(), "the sample image's program does not compile");
}
