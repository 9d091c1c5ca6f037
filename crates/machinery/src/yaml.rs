//! YAML request bodies to trees, and trees to the YAML upstream answers with (`sigs.k8s.io/yaml`).

mod emit;
mod problem;
mod read;
mod scalar;

pub use self::emit::to_string;
pub use self::read::{Parsed, YamlError, parse};

/// What a client is told in strict mode: the YAML errors come as one, before those of decoding.
pub fn strict_text(duplicates: &[String]) -> Option<String> {
    (!duplicates.is_empty()).then(|| format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  ")))
}
