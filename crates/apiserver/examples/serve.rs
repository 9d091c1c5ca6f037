//! A server for trying things out: `cargo run -p apiserver --example serve -- DIR PORT` keeps its data and PKI in DIR and
//! writes `DIR/admin.kubeconfig`. Not part of the product: the binary has `skiff kube-apiserver`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a development tool")]

use std::sync::Arc;

use apiserver::{Config, Server, pki};

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let dir = std::path::PathBuf::from(args.next().expect("DIR"));
    let port: u16 = args.next().map_or(0, |p| p.parse().expect("PORT"));
    let store = store::Embedded::open(dir.join("store"), store::Options::default()).unwrap();
    let mut config = Config::new(dir.join("pki"));
    config.secure_port = port;
    let handle = Server::start(config, Arc::new(store)).await.unwrap();
    let admin = handle.pki().client("admin", "kubernetes-admin", &["system:masters"]).unwrap();
    let text = pki::kubeconfig("skiff", "admin", &handle.url(), handle.ca(), &admin);
    std::fs::write(dir.join("admin.kubeconfig"), text).unwrap();
    println!("ready at {}", handle.url());
    std::future::pending::<()>().await;
}
