//! Values of the libraries: quantities, addresses, URLs, versions, formats, authorization checks.

use std::net::IpAddr;
use std::sync::Arc;

use machinery::quantity::Quantity;

use crate::types::Type;
use crate::variables::{Authorizer, AuthzDecision, AuthzRequest};

#[derive(Clone)]
pub enum Opaque<'a> {
    Authorizer { authorizer: &'a dyn Authorizer, service_account: Option<Arc<(String, String)>> },
    PathCheck { authorizer: &'a dyn Authorizer, request: Arc<AuthzRequest> },
    GroupCheck { authorizer: &'a dyn Authorizer, request: Arc<AuthzRequest> },
    ResourceCheck { authorizer: &'a dyn Authorizer, request: Arc<AuthzRequest> },
    Decision(Arc<AuthzDecision>),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr { ip: IpAddr, prefix: u8 },
}

impl Opaque<'_> {
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
}

impl Type {
    /// Of the variable `authorizer`.
    pub const AUTHORIZER: Self = Self::Opaque(names::AUTHORIZER);
    /// Of `authorizer.requestResource`.
    pub const RESOURCE_CHECK: Self = Self::Opaque(names::RESOURCE_CHECK);
    pub const QUANTITY: Self = Self::Opaque(names::QUANTITY);
}
