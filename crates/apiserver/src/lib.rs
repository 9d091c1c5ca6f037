//! kube-apiserver: TLS, authentication, authorization, admission, and one generic implementation of each verb over the
//! table of kinds. The binary calls `Server::start`; components in the same process call `Handle::service_as`.

mod admission;
mod aggregation;
mod attributes;
pub mod audit;
mod authn;
mod authz;
mod bootstrap;
pub mod cache;
mod chain;
mod codec;
pub mod config;
#[cfg(test)]
mod conformance;
mod connect;
mod conversion;
mod custom;
mod decoded;
mod discovery;
pub mod error;
mod expiring;
pub mod features;
mod flow;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
pub mod http;
mod identifiers;
mod in_process;
mod listen;
mod metrics;
mod mirror;
mod net;
mod openapi;
mod pages;
mod peer;
pub mod pki;
mod protobuf;
mod reached;
mod registry;
mod reload;
mod request;
mod root;
mod server;
mod service;
#[cfg(test)]
mod serving_tests;
mod state;
mod sub;
#[cfg(test)]
mod testing;
mod tls;
mod trace;
pub mod upstream;
mod verbs;
mod webhook;

pub use config::Config;
pub use error::Error;
pub use http::Body;
pub use identifiers::simulate;
pub use in_process::InProcess;
pub use server::{Handle, Server};
