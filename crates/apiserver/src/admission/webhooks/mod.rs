//! Admission webhooks: the mutating ones one after the other, the validating ones side by side (upstream's
//! `MutatingAdmissionWebhook` and `ValidatingAdmissionWebhook`).

mod call;
mod configurations;
mod mutating;
#[cfg(test)]
mod tests;
mod validating;

pub use configurations::Hooks;
pub use mutating::MutatingAdmissionWebhook;
pub use validating::ValidatingAdmissionWebhook;
