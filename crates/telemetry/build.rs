//! Compiles `proto/trace.proto` into messages, client and server without `protoc`. Called by cargo.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/trace.proto");
    let files = protox::compile(["proto/trace.proto"], ["proto"])?;
    tonic_prost_build::configure().build_client(true).build_server(true).compile_fds(files)?;
    Ok(())
}
