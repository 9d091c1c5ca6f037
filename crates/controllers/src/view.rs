//! What a controller may look at: cached objects, the time, a seed, and why its last attempt failed.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use machinery::names::SUFFIX_ALPHABET;
use mix::Random;
use serde_json::Value;

use crate::k8s;

/// Names what a controller works on. The namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub fn cluster(name: &str) -> Self {
        Self::new("", name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// The cached objects of one kind. Answers are shared, not copied, and in order of namespace and name.
pub trait Lister<K>: Sync {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>>;
    fn list(&self) -> Vec<Arc<K>>;
    fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>>;
    /// Those whose controller has this UID.
    fn controlled_by(&self, uid: &str) -> Vec<Arc<K>>;
    /// Those of a namespace without a controller.
    fn orphans(&self, namespace: &str) -> Vec<Arc<K>>;
    /// Those under a value of an index: [`index::NODE_NAME`] of pods, [`index::SERVICE_NAME`] of endpoint slices.
    fn by_index(&self, index: &str, value: &str) -> Vec<Arc<K>>;
    /// The revision up to which all changes are seen.
    fn revision(&self) -> u64 {
        u64::MAX
    }
}

/// Indexes that a [`Lister`] must have.
pub mod index {
    /// Pods by the node they are bound to; unbound ones under "".
    pub const NODE_NAME: &str = "spec.nodeName";
    /// Endpoint slices by `namespace/service`.
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
}

macro_rules! view {
    ($($field:ident $variant:ident $kind:ident $scope:tt,)*) => {
        /// All cached objects that controllers read.
        #[derive(Clone, Copy)]
        pub struct View<'a> {
            $(pub $field: &'a dyn Lister<k8s::$kind>,)*
        }

        /// Which keys a change of an object leads to; called with its old and with its new state.
        #[derive(Clone, Copy)]
        pub enum Watch {
            $($variant(fn(&View<'_>, &k8s::$kind) -> Vec<Key>),)*
        }
    };
}
crate::for_each_kind!(view);

/// What the operator has chosen.
#[derive(Clone, Debug)]
pub struct Config {
    /// Signs certificates and tokens.
    pub keys: crate::keys::Keys,
    /// How long an issued certificate lives at most.
    pub certificate_seconds: i64,
    /// PEM of the certificates that sign the API server's, for pods to trust.
    pub root_ca: String,
    /// Where the nodes' pod networks are cut from; none: nodes get no pod network.
    pub cluster_cidrs: Vec<String>,
    /// Prefix length of a node's IPv4 and IPv6 network.
    pub node_cidr_mask_v4: u8,
    pub node_cidr_mask_v6: u8,
    /// Give Services of type LoadBalancer the nodes' addresses.
    pub embedded_load_balancer: bool,
    /// When this process began to look: nobody was heard before.
    pub started_at: Timestamp,
    /// How long a node may be silent, and a new one before it was ever heard.
    pub node_monitor_grace_seconds: i64,
    pub node_startup_grace_seconds: i64,
    /// Terminated pods that are kept.
    pub terminated_pods_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keys: crate::keys::Keys::default(),
            certificate_seconds: 365 * 86400,
            root_ca: String::new(),
            cluster_cidrs: vec!["10.244.0.0/16".to_owned()],
            node_cidr_mask_v4: 24,
            node_cidr_mask_v6: 64,
            embedded_load_balancer: true,
            started_at: Timestamp::UNIX_EPOCH,
            node_monitor_grace_seconds: 50,
            node_startup_grace_seconds: 60,
            terminated_pods_max: 12_500,
        }
    }
}

/// An action that the API server refused in the last attempt on the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// "create", "delete" or "patch".
    pub verb: &'static str,
    /// Kind of the object that was to be written.
    pub kind: String,
    pub message: String,
}

/// How many objects of any kind a namespace has.
pub trait Counts: Sync {
    /// By plural, and group after a dot where there is one; `None` when that kind is not known (yet).
    fn count(&self, namespace: &str, resource: &str) -> Option<usize>;
}

/// The inputs that are not objects.
pub struct Context<'a> {
    pub now: Timestamp,
    pub config: &'a Config,
    pub failure: Option<&'a Failure>,
    /// What the last pass over this key left in [`Outcome::memory`](crate::Outcome).
    pub memory: Option<&'a Value>,
    pub counts: Option<&'a dyn Counts>,
    /// A clock that nobody sets: how long something took is told by it.
    pub uptime: Duration,
    seed: Cell<u64>,
}

impl<'a> Context<'a> {
    pub fn new(now: Timestamp, seed: u64, config: &'a Config, failure: Option<&'a Failure>) -> Self {
        let uptime = Duration::try_from(now.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
        Self { now, config, failure, memory: None, counts: None, uptime, seed: Cell::new(seed) }
    }

    /// Without it, the time of day stands for the uptime.
    pub fn up_for(mut self, uptime: Duration) -> Self {
        self.uptime = uptime;
        self
    }

    pub fn counting(mut self, counts: &'a dyn Counts) -> Self {
        self.counts = Some(counts);
        self
    }

    pub fn remembering(mut self, memory: Option<&'a Value>) -> Self {
        self.memory = memory;
        self
    }

    /// Five letters, as `generateName` appends.
    pub fn name_suffix(&self) -> String {
        let mut number = self.random();
        let mut suffix = String::with_capacity(5);
        for _ in 0..5 {
            let letter = usize::try_from(number % 27).unwrap_or(0);
            suffix.push(char::from(SUFFIX_ALPHABET[letter]));
            number /= 27;
        }
        suffix
    }

    fn random(&self) -> u64 {
        let mut random = Random(self.seed.get());
        let number = random.next_u64();
        self.seed.set(random.0);
        number
    }
}
