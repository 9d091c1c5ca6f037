//! JSON patch, JSON merge patch and strategic merge patch, with upstream's quirks, errors and statuses. Server-side apply is
//! `apply`. The result is a raw tree: the caller decodes it, defaults it, and sends it down the path of every write.

mod json;
mod merge;
mod shown;
mod strategic;

use crate::status::StatusError;

pub use self::json::{JsonPatch, OPERATIONS_MAX};
pub use self::merge::merge;
pub use self::shown::shown;
pub use self::strategic::strategic;

/// Why a patch was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The body is no patch of its kind.
    #[error("error decoding patch: {0}")]
    Decode(String),
    /// The body is no strategic merge patch.
    #[error("{0}")]
    Malformed(String),
    /// A directive of a strategic merge patch makes no sense; upstream answers 500.
    #[error("{0}")]
    Directive(String),
    /// Too many operations.
    #[error("Request entity too large: The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooManyOperations(usize),
    /// An operation cannot be carried out; clients are not told which.
    #[error("the server rejected our request due to an error in our request")]
    Rejected,
}

impl PatchError {
    pub fn to_status(&self) -> StatusError {
        let text = self.to_string();
        match self {
            Self::Decode(_) | Self::Malformed(_) => StatusError::bad_request(text),
            Self::Directive(_) => StatusError::new(500, "", text),
            Self::TooManyOperations(_) => StatusError::request_entity_too_large(text),
            Self::Rejected => StatusError::new(422, "Invalid", text),
        }
    }
}
