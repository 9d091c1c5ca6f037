//! What upstream says of its types and fields, in its own words: taken from the sources of `k8s-openapi` when this crate is built,
//! so that none of it lies in the project. Packed in the binary; unpacked by who asks, who keeps it as long as needed: `explain`
//! documents and the headings of tables. No schemas here: those are the facts of `kinds`.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde::Deserialize;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.z"));

/// The texts, unpacked: about 1.5 MB.
#[derive(Debug, Default, Deserialize)]
pub struct Descriptions {
    texts: Vec<String>,
    types: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Descriptions {
    /// Unpacks them.
    #[must_use]
    pub fn unpack() -> Self {
        let mut text = String::new();
        let read = flate2::read::ZlibDecoder::new(PACKED).read_to_string(&mut text);
        read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Of a type by its OpenAPI name: `io.k8s.api.core.v1.Pod`.
    #[must_use]
    pub fn of_type(&self, name: &str) -> Option<&str> {
        self.of_field(name, "")
    }

    /// Of a type's field.
    #[must_use]
    pub fn of_field(&self, name: &str, field: &str) -> Option<&str> {
        let index = self.types.get(name)?.get(field)?;
        self.texts.get(*index).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::Descriptions;

    #[test]
    fn types_and_fields_are_described() {
        let all = Descriptions::unpack();
        let pod = all.of_type("io.k8s.api.core.v1.Pod").unwrap_or_default();
        assert!(pod.starts_with("Pod is a collection of containers"), "{pod}");
        let spec = "io.k8s.api.core.v1.PodSpec";
        // A plain field, a list, a reference to another type.
        for field in ["nodeName", "containers", "affinity", "securityContext"] {
            let text = all.of_field(spec, field).unwrap_or_default();
            assert!(text.len() > 20, "{field}: {text}");
        }
        // Quotes and line ends are what they stand for.
        let family = all.of_field("io.k8s.api.core.v1.ServiceSpec", "ipFamilies").unwrap_or_default();
        assert!(family.contains("\"IPv4\"") && family.contains("\n\n") && !family.contains('\\'), "{family}");
        assert!(all.of_field(spec, "nonesuch").is_none() && all.of_type("nonesuch").is_none());
    }
}
