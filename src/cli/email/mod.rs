//! `tosend-dashboard email …`

mod json;
mod look;
mod select;
mod work;

use clap::Subcommand;

use super::outcome::CommandResult;
use crate::db::Db;
use crate::mail::queue::Task;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List emails, newest first: number, status, time, account, key, sender, recipients, reply
    List(look::ListArgs),
    /// Show everything about an email except its content
    Show(look::ShowArgs),
    /// Send failed and deferred emails again now, to those recipients alone who did not get them
    Retry(work::WorkArgs),
    /// Make no more attempts for emails that are held or deferred; those being sent are left alone
    Cancel(work::WorkArgs),
    /// Delete emails that were delivered or failed; the totals stay
    Purge(work::WorkArgs),
}

impl Command {
    /// What is wrong with several arguments together.
    pub fn check(&self) -> CommandResult {
        match self {
            Self::Retry(args) | Self::Cancel(args) | Self::Purge(args) => args.check(),
            Self::List(_) | Self::Show(_) => Ok(()),
        }
    }
}

pub fn run(command: &Command, db: &Db) -> CommandResult {
    match command {
        Command::List(args) => look::list(db, args),
        Command::Show(args) => look::show(db, args),
        Command::Retry(args) => work::run(db, Task::Retry, args),
        Command::Cancel(args) => work::run(db, Task::Cancel, args),
        Command::Purge(args) => work::run(db, Task::Purge, args),
    }
}
