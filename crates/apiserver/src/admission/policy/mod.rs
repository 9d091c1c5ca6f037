//! Admission policies in CEL: `ValidatingAdmissionPolicy` refuses, warns and annotates, `MutatingAdmissionPolicy` changes
//! (upstream's `admission/plugin/policy`). Policies and bindings are compiled once per change and followed in the store.

mod definition;
mod inputs;
mod mutating;
mod params;
mod patch;
mod policies;
#[cfg(test)]
mod tests;
mod validating;

pub use mutating::MutatingAdmissionPolicy;
pub use policies::Policies;
pub use validating::ValidatingAdmissionPolicy;
