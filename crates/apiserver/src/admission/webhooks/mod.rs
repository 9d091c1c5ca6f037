//! Admission webhooks: the mutating ones one after the other, the validating ones side by side (upstream's
//! `MutatingAdmissionWebhook` and `ValidatingAdmissionWebhook`).

mod call;
mod configurations;
mod mutating;
#[cfg(test)]
mod tests;
mod validating;

use super::configuration::Given;
use crate::webhook::credentials::{self, Credentials};

/// The step of admission that calls webhooks, and who it says it is.
struct Caller {
    mutating: bool,
    credentials: Credentials,
}

impl Caller {
    fn new(given: Option<&Given>, mutating: bool) -> Result<Self, String> {
        Ok(Self { mutating, credentials: credentials::configured(given.map(|g| &g.tree))? })
    }
}

pub use configurations::Hooks;
pub use mutating::MutatingAdmissionWebhook;
pub use validating::ValidatingAdmissionWebhook;
