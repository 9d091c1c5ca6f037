//! Layers, good and hostile, unpacked into a temporary directory (as root: ownership and whiteouts need it).

use super::*;

/// An entry: type, name, link target or contents.
fn tar(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, extra) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        let contents: &[u8] = if *kind == EntryType::Regular { extra.as_bytes() } else { b"" };
        header.set_size(contents.len() as u64);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name_literal(extra).unwrap();
        }
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        builder.append(&header, contents).unwrap();
    }
    builder.into_inner().unwrap()
}

fn try_unpack(entries: &[(EntryType, &str, &str)], lower: &[PathBuf]) -> (tempfile::TempDir, Result<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let outcome = unpack(&mut tar(entries).as_slice(), dir.path(), lower, &ImageLimits::default());
    (dir, outcome)
}

use EntryType::{Block, Char, Directory, Link, Regular, Symlink};

#[test]
fn hostile_names_and_links_never_leave_the_root() {
    if !trial::is_root() {
        return;
    }
    let canary = tempfile::tempdir().unwrap();
    let out = canary.path().to_str().unwrap();
    let through = |name: &'static str| vec![(Symlink, "esc", out), (Regular, name, "x")];
    for (entries, sound) in [
        (vec![(Regular, "../../up", "x")], false),
        (vec![(Regular, "/abs/file", "x")], true),
        (through("esc/file"), true),
        (vec![(Symlink, "a", "../../../../.."), (Regular, "a/tmp/deep", "x")], true),
        (vec![(Link, "hard", "/etc/passwd")], false),
        (vec![(Symlink, "l", "/etc/passwd"), (Link, "h", "l"), (Regular, "h", "x")], true),
        (vec![(Char, "zero", "")], false),
        (vec![(Block, "lib/disk", "")], false),
        (vec![(Char, "dev/null", "")], true),
        (vec![(Symlink, "x", "x"), (Regular, "x/y", "x")], false),
    ] {
        let (dir, outcome) = try_unpack(&entries, &[]);
        assert_eq!(outcome.is_ok(), sound, "{entries:?}: {outcome:?}");
        assert_eq!(std::fs::read_dir(canary.path()).unwrap().count(), 0, "{entries:?}");
        drop(dir);
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    if !trial::is_root() {
        return;
    }
    let (dir, outcome) = try_unpack(
        &[(Directory, "a", ""), (Regular, "a/b", "x"), (Regular, "a", "file"), (Directory, "a", ""), (Regular, "a/c", "y")],
        &[],
    );
    outcome.unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
}

#[test]
fn links_of_lower_layers_are_followed_and_whiteouts_converted() {
    if !trial::is_root() {
        return;
    }
    use std::os::unix::fs::FileTypeExt;
    let (low, outcome) = try_unpack(&[(Directory, "usr/lib", ""), (Symlink, "lib", "usr/lib"), (Regular, "usr/lib/old", "old")], &[]);
    outcome.unwrap();
    let entries =
        [(Regular, "lib/new", "new"), (Regular, "usr/lib/.wh.old", ""), (Link, "copy", "usr/lib/new"), (Regular, "etc/.wh..wh..opq", "")];
    let (top, outcome) = try_unpack(&entries, &[low.path().to_owned()]);
    outcome.unwrap();
    assert_eq!(std::fs::read(top.path().join("usr/lib/new")).unwrap(), b"new");
    assert!(std::fs::symlink_metadata(top.path().join("usr/lib/old")).unwrap().file_type().is_char_device());
    assert!(!top.path().join("lib").exists());
    assert_eq!(xattr::get(top.path().join("etc"), OPAQUE).unwrap().unwrap(), b"y");
    let gone = try_unpack(&[(Link, "again", "usr/lib/old")], &[low.path().to_owned(), top.path().to_owned()]).1;
    assert!(gone.is_err());
}

#[test]
fn truncated_and_random_input_is_an_error() {
    let good = tar(&[(Regular, "a", "some contents")]);
    let dir = tempfile::tempdir().unwrap();
    for bad in [&good[..300], &good[..520], &[0x55; 2048][..]] {
        assert!(unpack(&mut &bad[..], dir.path(), &[], &ImageLimits::default()).is_err());
    }
}
