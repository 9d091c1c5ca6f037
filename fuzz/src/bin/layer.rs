//! Layers of images: raw, or (first byte odd) tar archives with sound checksums. Nothing beside the layer's directory may change.
#![no_main]
#[path = "../archive.rs"]
mod archive;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static WORK: LazyLock<PathBuf> = LazyLock::new(|| {
    let work = Path::new("/dev/shm").join(format!("skiff-fuzz-layer-{}", std::process::id()));
    for dir in ["lower/etc", "lower/usr/lib", "outside"] {
        std::fs::create_dir_all(work.join(dir)).expect("a directory");
    }
    for (link, target) in [("lib", "usr/lib"), ("out", "../outside"), ("abs", "/outside"), ("loop", "loop")] {
        std::os::unix::fs::symlink(target, work.join("lower").join(link)).expect("a link");
    }
    std::fs::write(work.join("lower/etc/passwd"), "root").expect("a file");
    std::fs::write(work.join("outside/canary"), "sings").expect("a file");
    work
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let tar = if first & 1 == 1 { archive::tar(rest) } else { rest.to_vec() };
    let top = WORK.join("top");
    std::fs::create_dir(&top).expect("the layer's directory");
    runtime::fuzzing::unpack(&tar, &top, &WORK.join("lower"));
    std::fs::remove_dir_all(&top).expect("the layer's directory");
    assert_eq!(std::fs::read(WORK.join("outside/canary")).ok().as_deref(), Some(&b"sings"[..]));
    let count = |dir: &str| std::fs::read_dir(WORK.join(dir)).expect("a directory").count();
    assert_eq!((count(""), count("outside"), count("lower")), (2, 1, 6));
});
