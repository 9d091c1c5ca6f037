//! hostPath types: what must be there, and what is made when it is not, with upstream's messages.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Checks, and for the `OrCreate` types makes, a path.
pub fn check(path: &Path, kind: &str) -> Result<(), String> {
    let shown = path.display();
    let found = fs::metadata(path);
    let is = |good: bool, what: &str| if good { Ok(()) } else { Err(format!("hostPath type check failed: {shown} is not {what}")) };
    let of = |test: fn(&fs::FileType) -> bool| found.as_ref().is_ok_and(|m| test(&m.file_type()));
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if found.is_err() => make(path, true).map_err(|e| e.to_string()),
        "DirectoryOrCreate" | "Directory" => is(of(fs::FileType::is_dir), "a directory"),
        "FileOrCreate" if found.is_err() => make(path, false).map_err(|e| e.to_string()),
        "FileOrCreate" | "File" => is(of(fs::FileType::is_file), "a file"),
        "Socket" => is(of(fs::FileType::is_socket), "a socket file"),
        "CharDevice" => is(of(fs::FileType::is_char_device), "a character device"),
        "BlockDevice" => is(of(fs::FileType::is_block_device), "a block device"),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

fn make(path: &Path, directory: bool) -> std::io::Result<()> {
    if directory {
        fs::create_dir_all(path)?;
        return fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    }
    fs::write(path, b"")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let dir = tempfile::tempdir().unwrap();
        let at = |n: &str| dir.path().join(n);
        assert!(check(&at("none"), "").is_ok());
        assert!(check(&at("none"), "Directory").unwrap_err().ends_with("is not a directory"));
        check(&at("d/e"), "DirectoryOrCreate").unwrap();
        check(&at("d/f"), "FileOrCreate").unwrap();
        assert!(check(&at("d/f"), "Directory").is_err() && check(&at("d/f"), "File").is_ok());
        assert!(check(Path::new("/dev/null"), "CharDevice").is_ok() && check(Path::new("/dev/null"), "Socket").is_err());
    }
}
