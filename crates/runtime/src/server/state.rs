//! What the daemon knows of sandboxes and containers, and the small files it is rebuilt from.
//!
//! Shims are the truth about what runs; these files say what was asked for.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use cri::v1::{ContainerConfig, NamespaceMode, PodSandboxConfig};
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::watch;

use crate::shim::protocol::{ContainerSpec, Exit, Identity};

/// A protobuf message inside JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded<T>(pub T);

impl<T: Message> Serialize for Encoded<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(self.0.encode_to_vec()))
    }
}

impl<'de, T: Message + Default> Deserialize<'de> for Encoded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        T::decode(bytes.as_slice()).map(Encoded).map_err(serde::de::Error::custom)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sandbox {
    pub id: String,
    pub config: Encoded<PodSandboxConfig>,
    pub handler: String,
    pub created_ns: i64,
    pub ready: bool,
    pub shim_pid: i32,
    pub ips: Vec<IpAddr>,
    /// Its group, above those of its containers.
    pub cgroup: String,
}

impl Sandbox {
    pub fn namespaces(&self) -> cri::v1::NamespaceOption {
        self.config.0.linux.as_ref().and_then(|l| l.security_context.as_ref()).and_then(|s| s.namespace_options.clone()).unwrap_or_default()
    }

    pub fn host_network(&self) -> bool {
        self.namespaces().network() == NamespaceMode::Node
    }

    pub fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.shim_pid))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Container {
    pub id: String,
    pub sandbox: String,
    pub config: Encoded<ContainerConfig>,
    pub image_id: String,
    pub image_ref: String,
    /// The image's stop signal, when it has one.
    pub image_stop_signal: String,
    pub spec: ContainerSpec,
    pub created_ns: i64,
    /// 0: not started.
    pub started_ns: i64,
    pub pid: i32,
    pub identity: Identity,
    pub exit: Option<Exit>,
    /// Why it did not start.
    pub start_error: Option<String>,
    /// Tells waiters of the exit.
    #[serde(skip, default = "exit_channel")]
    pub ended: watch::Sender<bool>,
}

pub fn exit_channel() -> watch::Sender<bool> {
    watch::Sender::new(false)
}

#[derive(Debug, Default)]
pub struct State {
    pub sandboxes: BTreeMap<String, Sandbox>,
    pub containers: BTreeMap<String, Container>,
}

/// Replaces `path` whole.
pub fn save<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(value)?)?;
    std::fs::rename(&new, path)
}

/// Reads every `DIR/ID/FILE` below `dir`. What cannot be read is reported and left alone.
pub fn load_all<T: for<'de> Deserialize<'de>>(dir: &Path, file: &str) -> io::Result<Vec<T>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path().join(file);
        match std::fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
            Ok(value) => found.push(value),
            Err(error) => tracing::warn!(path = %path.display(), %error, "state is unreadable"),
        }
    }
    Ok(found)
}
