//! The runtime alone, without the rest of skiff: for its tests, and for `crictl` while working on it.
//!
//! `skiff-runtime zygote` is what the runtime starts; `skiff-runtime DATA_DIR RUN_DIR` serves CRI without a pod network.

use std::process::ExitCode;
use std::sync::Arc;

use runtime::{Config, LoopbackOnly, Runtime, zygote};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [command] if command == "zygote" => zygote::main(),
        [data, run] => serve(Config::new(data, run, "alone")),
        _ => {
            eprintln!("usage: skiff-runtime DATA_DIR RUN_DIR");
            ExitCode::from(2)
        }
    }
}

#[tokio::main]
async fn serve(config: Config) -> ExitCode {
    let cancel = tokio_util::sync::CancellationToken::new();
    let handle = match Runtime::start(config, Arc::new(LoopbackOnly), cancel).await {
        Ok(handle) => handle,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("serving CRI on {}", handle.socket().display());
    if let Err(error) = tokio::signal::ctrl_c().await {
        eprintln!("wait for Ctrl-C: {error}");
    }
    handle.stop().await;
    ExitCode::SUCCESS
}
