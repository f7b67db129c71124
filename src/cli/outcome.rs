//! A command's output: its result on stdout, or why it failed.

use std::fmt::Display;
use std::io::Write;

use crate::db;

/// Why a command failed, in one sentence.
pub type Outcome = Result<(), String>;

/// Prints a line of the result. (`println!` panics if stdout is closed.)
pub fn print(line: impl Display) -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|e| format!("the result cannot be written: {e}"))
}

pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The message of a command that failed.
#[derive(Debug)]
pub struct Failure(pub String);

pub fn failure(why: impl Display) -> Failure {
    Failure(why.to_string())
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        Self(one_line(&error.to_string()))
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self(why)
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}
