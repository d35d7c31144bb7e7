//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    mlconv::cli::main()
}
