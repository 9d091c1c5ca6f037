//! Image names: `skiff/hello` means `docker.io/skiff/hello:latest`. Pure.

use oci_client::Reference;

use super::ImageError;

/// Parses a name and completes it with the default registry, `library/` and tag.
pub fn normalize(name: &str) -> Result<Reference, ImageError> {
    let error = |reason: String| ImageError::Reference { name: name.chars().take(300).collect(), reason };
    if name.len() > 1024 {
        return Err(error("too long".into()));
    }
    let reference = name.parse::<Reference>().map_err(|e| error(e.to_string()))?;
    // A completed name that is none itself (`Y/b` becomes `docker.io/Y/b`) would never be found again.
    match reference.whole().parse::<Reference>() {
        Ok(again) if again == reference => Ok(reference),
        _ => Err(error("repository name must be lowercase".into())),
    }
}

/// `registry/repository`, without tag or digest.
pub fn repository(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_names() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (given, whole) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("skiff/hello", "docker.io/skiff/hello:latest".to_owned()),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1".to_owned()),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest".to_owned()),
            (&format!("a/b@{digest}"), format!("docker.io/a/b@{digest}")),
        ] {
            assert_eq!(normalize(given).unwrap().whole(), whole, "{given}");
        }
    }

    #[test]
    fn refuses_bad_names() {
        for bad in ["", "a/UPPER", "a b", "a:b:c:d", "a@sha256:short", &"x".repeat(2000), "../../etc", "a//b", "Y/b:c"] {
            assert!(normalize(bad).is_err(), "{bad}");
        }
    }
}
