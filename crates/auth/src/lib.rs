//! Who may do what: identities, RBAC and Node authorizer decisions, upstream's bootstrap policy, and the texts of refusals.
//!
//! Pure: the policy and the graph are inputs. `apiserver` keeps them current and asks; nothing here reads the store.

pub mod attributes;
pub mod authorization;
pub mod bootstrap;
pub mod bootstrap_token;
pub mod jwt;
pub mod node;
pub mod oidc;
pub mod rbac;
pub mod user;

pub use attributes::{Attributes, Decision};
pub use user::User;
