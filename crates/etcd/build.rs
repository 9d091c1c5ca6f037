//! Compiles the part of etcd's interface that the store uses, without `protoc`. Called by cargo.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/kv.proto", "proto/rpc.proto"], ["proto"])?;
    // Values are shared with the buffers they came in, not copied.
    tonic_prost_build::configure().build_server(false).bytes(".").compile_fds(files)?;
    Ok(())
}
