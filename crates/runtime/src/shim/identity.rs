//! Looking up users and groups in a container's own `/etc/passwd` and `/etc/group`, which are not trusted.
//!
//! Pure but for [`read_file`]. Called by a container's process once it stands in its root.

use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::protocol::Identity;

/// More of a user database than this is not read.
const DATABASE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The contents of a regular file, empty if there is none. A FIFO in its place does not block.
pub fn read_file(path: &Path) -> io::Result<String> {
    let file = match std::fs::OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(DATABASE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A user as resolved: whom to be, and where home is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub identity: Identity,
    pub home: String,
}

/// Resolves `user[:group]` against the texts of the two databases. A user given by number need not exist.
pub fn resolve(user: &str, extra: &[u32], strict: bool, passwd: &str, group: &str) -> Result<User, String> {
    let (user, group_name) = user.split_once(':').unwrap_or((user, ""));
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 6 && (fields[0] == user || (number.is_some() && fields[2].parse::<u32>().ok() == number)));
    let (uid, mut gid, name, home) = match (&entry, number) {
        (Some(fields), number) => {
            let uid = number.or_else(|| fields[2].parse().ok());
            let (Some(uid), Ok(gid)) = (uid, fields[3].parse()) else { return Err(format!("user {user}: damaged passwd entry")) };
            (uid, gid, fields[0], fields[5].to_owned())
        }
        (None, Some(uid)) => (uid, 0, "", "/".to_owned()),
        (None, None) => return Err(format!("unable to find user {user}: no matching entries in passwd file")),
    };
    if !group_name.is_empty() {
        gid = match group_name.parse() {
            Ok(gid) => gid,
            Err(_) => groups(group)
                .find(|(name, ..)| *name == group_name)
                .map(|(_, gid, _)| gid)
                .ok_or_else(|| format!("unable to find group {group_name}: no matching entries in group file"))?,
        };
    }
    let mut all = vec![gid];
    if !strict && !name.is_empty() {
        all.extend(groups(group).filter(|(_, _, members)| members.split(',').any(|m| m == name)).map(|(_, gid, _)| gid));
    }
    all.extend(extra);
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|gid| seen.insert(*gid));
    let home = if home.is_empty() { "/".to_owned() } else { home };
    Ok(User { identity: Identity { uid, gid, groups: all }, home })
}

/// Name, number and members of each sound line.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
        Some((name, gid, fields.next().unwrap_or("").trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:100:101:Web:/srv:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:101:\nlogs:x:200:web,other\nextra:x:300:other\n";

    #[test]
    fn resolves_users() {
        let check = |user: &str, uid, gid, groups: &[u32], home: &str| {
            let expected = User { identity: Identity { uid, gid, groups: groups.to_vec() }, home: home.to_owned() };
            assert_eq!(resolve(user, &[900], false, PASSWD, GROUP), Ok(expected), "{user}");
        };
        check("", 0, 0, &[0, 900], "/root");
        check("web", 100, 101, &[101, 200, 900], "/srv");
        check("100", 100, 101, &[101, 200, 900], "/srv");
        check("web:extra", 100, 300, &[300, 200, 900], "/srv");
        check("4000:5", 4000, 5, &[5, 900], "/");
        check("4000", 4000, 0, &[0, 900], "/");
    }

    #[test]
    fn unknown_names_are_errors() {
        assert!(resolve("nobody", &[], false, PASSWD, GROUP).is_err());
        assert!(resolve("web:none", &[], false, PASSWD, GROUP).is_err());
        assert!(resolve("-1", &[], false, PASSWD, GROUP).is_err());
    }

    #[test]
    fn strict_groups_ignore_the_image() {
        assert_eq!(resolve("web", &[7], true, PASSWD, GROUP).map(|u| u.identity.groups), Ok(vec![101, 7]));
    }
}
