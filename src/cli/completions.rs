//! `tosend-dashboard completions SHELL`

use clap::Command;
use clap_complete::{Shell, generate};

use super::outcome::{CommandResult, print};

/// Prints the script with which a shell completes this command line.
pub fn run(shell: Shell, mut command: Command) -> CommandResult {
    let name = command.get_name().to_owned();
    // In memory first: `generate` panics if it cannot write.
    let mut script = Vec::new();
    generate(shell, &mut command, name, &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}
