//! HTTP without Kubernetes' meaning: bodies, query strings, content negotiation, answers.

pub mod body;
pub mod browser;
pub mod negotiate;
pub mod query;
pub mod respond;

pub use body::{Body, BoxError, RequestBody};
pub use negotiate::{Encoding, Negotiated, View};
pub use query::Query;
