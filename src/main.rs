//! Parses the arguments and hands over to a command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use tosend_dashboard::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
