//! Image archives: what `docker save` writes and OCI layouts, their indexes, manifests and configurations; raw, or (first byte
//! odd) with sound checksums and digests. What was loaded is found again and removed.
#![no_main]
#[path = "../archive.rs"]
mod archive;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use runtime::images::Images;

static WORK: LazyLock<PathBuf> = LazyLock::new(|| {
    let work = Path::new("/dev/shm").join(format!("skiff-fuzz-image-{}", std::process::id()));
    std::fs::create_dir_all(&work).expect("a directory");
    work
});

static IMAGES: LazyLock<Images> = LazyLock::new(|| {
    let mut config = runtime::Config::new(WORK.join("data"), WORK.join("run"), "fuzz");
    config.image_limits.layer_bytes_max = 1 << 20;
    Images::open(&config).expect("an image store")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let file = WORK.join("archive.tar");
    std::fs::write(&file, if first & 1 == 1 { archive::tar(rest) } else { rest.to_vec() }).expect("a file");
    if let Ok(loaded) = runtime::images::load(&IMAGES, &file) {
        assert!(!loaded.is_empty() || IMAGES.list().is_empty());
    }
    for image in IMAGES.list() {
        for name in &image.tags {
            assert!(IMAGES.find(name).is_some(), "{name}");
        }
        IMAGES.remove(&image.id, &HashSet::new()).expect("an image that is listed can be removed");
    }
    assert!(IMAGES.list().is_empty());
});
