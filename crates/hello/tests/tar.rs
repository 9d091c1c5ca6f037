//! `tar`, from outside: what it packs it unpacks, and a hostile archive stays inside the folder.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hello-tar-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {e}", self.0.display());
        }
    }
}

fn tar(folder: &Path, arguments: &[&str], input: &[u8]) -> (Vec<u8>, bool) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hello"))
        .arg("tar")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar runs");
    let mut to = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || to.write_all(&input));
    let out = child.wait_with_output().expect("tar ends");
    drop(writer.join().expect("a thread"));
    (out.stdout, out.status.success())
}

#[test]
fn what_is_packed_is_unpacked() {
    let (from, to) = (Folder::new("from"), Folder::new("to"));
    let long = "d".repeat(90);
    fs::create_dir_all(from.0.join("a").join(&long)).expect("folders");
    fs::write(from.0.join("a/x"), b"small").expect("a file");
    fs::write(from.0.join("a").join(&long).join("y"), vec![7; 70_000]).expect("a file");
    let (archive, ok) = tar(&from.0, &["cf", "-", "a"], b"");
    assert!(ok && archive.len() % 512 == 0);
    assert!(tar(&to.0, &["-xmf", "-", "-C", "."], &archive).1);
    assert_eq!(fs::read(to.0.join("a/x")).expect("the file"), b"small");
    assert_eq!(fs::read(to.0.join("a").join(&long).join("y")).expect("the file"), vec![7; 70_000]);
}

#[test]
fn names_do_not_leave_the_folder() {
    let (from, outer) = (Folder::new("hostile"), Folder::new("victim"));
    let to = Folder(outer.0.join("inner"));
    fs::create_dir_all(&to.0).expect("a folder");
    fs::write(from.0.join("x"), b"out").expect("a file");
    let (mut archive, _) = tar(&from.0, &["cf", "-", "x"], b"");
    archive[..4].copy_from_slice(b"../x");
    assert!(!tar(&to.0, &["xf", "-"], &archive).1);
    assert!(!outer.0.join("x").exists());
    // Through a link that is there already.
    fs::create_dir_all(to.0.join("in")).expect("a folder");
    std::os::unix::fs::symlink("/tmp", to.0.join("in/l")).expect("a link");
    archive[..7].copy_from_slice(b"in/l/zz");
    assert!(!tar(&to.0, &["xf", "-"], &archive).1);
    for length in [1, 511, 600] {
        // Cut archives end with an error or with nothing, never with a panic.
        tar(&to.0, &["xf", "-"], &archive[..length]);
    }
}
