//! The program of the test image `extension`: a server such as people run beside a cluster. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match e2e::extension::server::main(std::env::args().nth(1).as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("extension: {error:#}");
            ExitCode::FAILURE
        }
    }
}
