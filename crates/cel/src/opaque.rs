//! Values of the libraries: quantities, addresses, URLs, versions, formats, authorization checks.

use std::net::IpAddr;
use std::sync::Arc;

use machinery::go_url::Url;
use machinery::quantity::Quantity;

use crate::library::Version;
use crate::types::Type;
use crate::variables::{Authorizer, AuthzDecision, AuthzRequest};

#[derive(Clone)]
pub enum Opaque<'a> {
    Authorizer {
        authorizer: &'a dyn Authorizer,
        service_account: Option<Arc<(String, String)>>,
    },
    PathCheck {
        authorizer: &'a dyn Authorizer,
        request: Arc<AuthzRequest>,
    },
    GroupCheck {
        authorizer: &'a dyn Authorizer,
        request: Arc<AuthzRequest>,
    },
    ResourceCheck {
        authorizer: &'a dyn Authorizer,
        request: Arc<AuthzRequest>,
    },
    Decision(Arc<AuthzDecision>),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr {
        ip: IpAddr,
        prefix: u8,
    },
    #[doc(hidden)]
    Url(Arc<Url>),
    #[doc(hidden)]
    Semver(Arc<Version>),
    #[doc(hidden)]
    /// By its name in the library.
    Format(&'static str),
}

impl Opaque<'_> {
    /// Equality of two values of libraries.
    pub(crate) fn same(&self, other: &Opaque<'_>) -> bool {
        match (self, other) {
            (Self::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Self::Ip(a), Opaque::Ip(b)) => a == b,
            (Self::Cidr { ip: a, prefix: x }, Opaque::Cidr { ip: b, prefix: y }) => a == b && x == y,
            (Self::Url(a), Opaque::Url(b)) => a == b,
            (Self::Semver(a), Opaque::Semver(b)) => a.order(b).is_eq(),
            (Self::Format(a), Opaque::Format(b)) => a == b,
            (Self::Decision(a), Opaque::Decision(b)) => a == b,
            (Self::PathCheck { request: a, .. }, Opaque::PathCheck { request: b, .. })
            | (Self::GroupCheck { request: a, .. }, Opaque::GroupCheck { request: b, .. })
            | (Self::ResourceCheck { request: a, .. }, Opaque::ResourceCheck { request: b, .. }) => a == b,
            _ => false,
        }
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Authorizer { .. } => names::AUTHORIZER,
            Self::PathCheck { .. } => names::PATH_CHECK,
            Self::GroupCheck { .. } => names::GROUP_CHECK,
            Self::ResourceCheck { .. } => names::RESOURCE_CHECK,
            Self::Decision(_) => names::DECISION,
            Self::Quantity(_) => names::QUANTITY,
            Self::Ip(_) => names::IP,
            Self::Cidr { .. } => names::CIDR,
            Self::Url(_) => names::URL,
            Self::Semver(_) => names::SEMVER,
            Self::Format(_) => names::FORMAT,
        }
    }
}

/// The names of the types.
pub(crate) mod names {
    pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
    pub const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
    pub const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
    pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
    pub const DECISION: &str = "kubernetes.authorization.Decision";
    pub const QUANTITY: &str = "kubernetes.Quantity";
    pub const IP: &str = "net.IP";
    pub const CIDR: &str = "net.CIDR";
    pub const URL: &str = "kubernetes.URL";
    pub const SEMVER: &str = "kubernetes.Semver";
    pub const FORMAT: &str = "kubernetes.NamedFormat";

    /// As signatures call them, and in full.
    pub const ALL: [(&str, &str); 11] = [
        ("Authorizer", AUTHORIZER),
        ("PathCheck", PATH_CHECK),
        ("GroupCheck", GROUP_CHECK),
        ("ResourceCheck", RESOURCE_CHECK),
        ("Decision", DECISION),
        ("Quantity", QUANTITY),
        ("IP", IP),
        ("CIDR", CIDR),
        ("URL", URL),
        ("Semver", SEMVER),
        ("Format", FORMAT),
    ];
}

impl Type {
    /// Of the variable `authorizer`.
    pub const AUTHORIZER: Self = Self::Opaque(names::AUTHORIZER);
    /// Of `authorizer.requestResource`.
    pub const RESOURCE_CHECK: Self = Self::Opaque(names::RESOURCE_CHECK);
    pub const QUANTITY: Self = Self::Opaque(names::QUANTITY);
    pub const SEMVER: Self = Self::Opaque(names::SEMVER);
}
