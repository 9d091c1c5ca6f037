//! Tokens of other issuers (upstream's structured authentication): what the configuration says of an issuer, and from the claims
//! of a token whose signature was found good, the user. Keys and their fetching are the API server's.

mod claims;
mod config;
mod expression;
#[cfg(test)]
mod tests;

pub use config::{Anonymous, Configuration, Flags, Issuer};
