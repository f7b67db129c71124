//! A command's output: its result on stdout, or why it failed.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use crate::db;

/// Why a command failed, in one sentence.
pub type CommandResult = Result<(), String>;

/// How a shell reports a program that a closed pipe has ended: 128 and SIGPIPE.
const CLOSED_PIPE: i32 = 141;

/// Prints a line of the result. If the reader has gone, such as `head`, which has seen enough, the program
/// ends without a word.
pub fn print(line: impl Display) -> CommandResult {
    write(line).or_else(|error| match error.kind() {
        ErrorKind::BrokenPipe => std::process::exit(CLOSED_PIPE),
        _ => Err(unwritable(&error)),
    })
}

/// Prints what cannot be had again, such as a new key: a reader that has gone is an error.
pub fn hand_over(line: impl Display) -> CommandResult {
    write(line).map_err(|error| unwritable(&error))
}

/// (`println!` panics if stdout is closed.)
fn write(line: impl Display) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush())
}

fn unwritable(error: &std::io::Error) -> String {
    format!("the result cannot be written: {error}")
}

pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The message of a command that failed.
#[derive(Debug)]
pub struct CommandFailure(pub String);

pub fn failure(why: impl Display) -> CommandFailure {
    CommandFailure(why.to_string())
}

impl From<db::Error> for CommandFailure {
    fn from(error: db::Error) -> Self {
        Self(one_line(&error.to_string()))
    }
}

impl From<String> for CommandFailure {
    fn from(why: String) -> Self {
        Self(why)
    }
}

impl From<CommandFailure> for String {
    fn from(failure: CommandFailure) -> Self {
        failure.0
    }
}
