//! The store over an etcd v3 cluster: many API servers may share one. [`Etcd`] is a `store::Store`; `skiff`'s roles open it.
//! It keeps nothing: what is in etcd is all there is, under the keys that kube-apiserver uses. It knows no kinds.

mod compactor;
mod endpoints;
mod engine;
mod errors;
#[cfg(fuzzing)]
pub mod fuzzing;
mod keys;
mod kv;
mod leases;
pub mod migrate;
mod options;
mod tls;
mod watch;
mod watching;

pub use engine::Etcd;
pub use options::Options;

mod mvccpb {
    tonic::include_proto!("mvccpb");
}

mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
