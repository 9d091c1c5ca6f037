//! The Pod Security Standards: which policy a namespace's labels ask for, and what in a pod violates it (KEP-2579). Pure: the
//! `PodSecurity` admission plugin asks, and decides what is refused, warned of or noted.

mod baseline;
mod checks;
mod restricted;

use std::fmt;

use machinery::field::{Error, ErrorList, Path};
use serde_json::{Value, json};

use checks::Violation;

const PREFIX: &str = "pod-security.kubernetes.io/";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Privileged, Self::Baseline, Self::Restricted].into_iter().find(|level| level.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// The minor version of Kubernetes whose standards are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Minor(u32),
    #[default]
    Latest,
}

impl Version {
    /// `latest`, or `v1.N`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        if plain { minor.parse().ok().map(Self::Minor) } else { None }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

/// A level as of a version; prints as `baseline:v1.36`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level.as_str(), self.version)
    }
}

/// What a namespace asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
}

impl Policy {
    /// The policy of a namespace's labels. A label that says nothing valid is an error, and its mode fails safe: enforcing
    /// is `restricted`, warning and auditing are off.
    pub fn of(namespace: &Value) -> (Self, ErrorList) {
        Self::over(namespace, Self::default())
    }

    /// The same, where what no label says is as in `defaults`.
    pub fn over(namespace: &Value, defaults: Self) -> (Self, ErrorList) {
        let mut errors = ErrorList::new();
        let labels = &namespace["metadata"]["labels"];
        let mut standard = |mode: &str, failed: Level| {
            let mut level = |key: String| {
                let text = labels[&key].as_str()?;
                let parsed = Level::parse(text);
                if parsed.is_none() {
                    errors.push(invalid(&key, text, "must be one of privileged, baseline, restricted"));
                }
                Some(parsed.unwrap_or(failed))
            };
            let level = level(format!("{PREFIX}{mode}"));
            let key = format!("{PREFIX}{mode}-version");
            let version = labels[&key].as_str().map(|text| {
                Version::parse(text).unwrap_or_else(|| {
                    errors.push(invalid(&key, text, "must be \"latest\" or \"v1.x\""));
                    Version::Latest
                })
            });
            (level, version)
        };
        let (enforce, enforce_version) = standard("enforce", Level::Restricted);
        let (audit, audit_version) = standard("audit", Level::Privileged);
        let (mut warn, mut warn_version) = standard("warn", Level::Privileged);
        // Who enforces and says nothing of warnings wants to hear of workloads whose pods will be refused.
        if warn.is_none() && enforce.is_some() {
            warn = enforce;
            warn_version = warn_version.or(enforce_version);
        }
        let make = |level: Option<Level>, version: Option<Version>, default: Standard| Standard {
            level: level.unwrap_or(default.level),
            version: version.unwrap_or(default.version),
        };
        let policy = Self {
            enforce: make(enforce, enforce_version, defaults.enforce),
            audit: make(audit, audit_version, defaults.audit),
            warn: make(warn, warn_version, defaults.warn),
        };
        (policy, errors)
    }
}

fn invalid(key: &str, value: &str, why: &str) -> Error {
    Error::invalid(&Path::new("metadata").child("labels").key(key), &json!(value), why)
}

/// What violates a standard. Empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The reasons alone: `host namespaces, hostPort`.
    pub fn reasons(&self) -> String {
        self.0.iter().map(|v| v.reason).collect::<Vec<_>>().join(", ")
    }

    /// With what is wrong where: `host namespaces (hostNetwork=true)`.
    pub fn details(&self) -> String {
        self.0.iter().map(|v| format!("{} ({})", v.reason, v.detail)).collect::<Vec<_>>().join(", ")
    }
}

/// What in a pod, or in a pod template, violates a standard. Only `metadata.annotations` and `spec` are read.
pub fn evaluate(standard: Standard, pod: &Value) -> Violations {
    if standard.level == Level::Privileged {
        return Violations::default();
    }
    let pod = checks::Pod::new(pod);
    let restricted = standard.level == Level::Restricted;
    let mut found = baseline::violations(&pod, standard.version, restricted);
    if restricted {
        found.extend(restricted::violations(&pod, standard.version));
    }
    Violations(found)
}

#[cfg(test)]
mod tests;
