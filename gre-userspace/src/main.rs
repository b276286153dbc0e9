use std::{env, process::ExitCode};

use gre_userspace::cli::Cli;

fn main() -> ExitCode {
    match Cli::from_args(env::args_os()).and_then(Cli::execute) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_told() {
                eprintln!("{failure}");
            }
            failure.exit_code()
        }
    }
}
