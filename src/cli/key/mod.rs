//! `tosend-dashboard key …`

pub mod arguments;
mod change;
mod create;
mod json;
mod look;
mod rotate;
mod rule_flags;

use clap::Subcommand;

use self::arguments::{KeyArgs, live};
use super::database::find_account;
use super::outcome::{CommandFailure, CommandResult, print};
use crate::accounts::event::Actor;
use crate::accounts::store::AccountId;
use crate::config::Config;
use crate::db::{self, Connection, Db, Share};
use crate::keys::store::{self, Found, Key};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a key and print it, and nothing else, on stdout
    Create(create::CreateArgs),
    /// List the live keys: number, truncated key, status, creation time, domains, name
    List(look::ListArgs),
    /// Show everything about a key, and its latest events
    Show(look::ShowArgs),
    /// Read text from standard input and print a line for each key in it: which key it is, or what is
    /// wrong with it
    Find(look::FindArgs),
    /// Change the given properties of a key, and nothing else
    Edit(change::EditArgs),
    /// Delete a key: it never works again
    Delete(KeyArgs),
    /// Refuse a key until it is resumed
    Pause(KeyArgs),
    /// Let a paused key work again
    Resume(KeyArgs),
    /// Replace a key: create another one like it and print that, and nothing else, on stdout
    Rotate(rotate::RotateArgs),
    /// End a replaced key now
    Stop(KeyArgs),
    /// Let a replaced key keep working until it is stopped
    Keep(KeyArgs),
}

impl Command {
    /// What is wrong with several arguments together.
    pub fn check(&self) -> CommandResult {
        match self {
            Self::Create(args) => args.rule.change().map(drop),
            Self::Edit(args) => args.rule.change().map(drop),
            _ => Ok(()),
        }
    }
}

pub fn run(command: Command, config: &Config, db: &Db) -> CommandResult {
    match command {
        Command::Create(args) => create::create(config, db, &args),
        Command::List(args) => look::list(db, &args),
        Command::Show(args) => look::show(db, &args),
        Command::Find(args) => look::find(db, &args),
        Command::Edit(args) => change::edit(db, &args),
        Command::Delete(args) => delete(db, &args),
        Command::Pause(args) => {
            let key = change_key(db, &args, (Share::All, store::pause))?;
            print(format_args!("The key {} is paused.", key.id))
        }
        Command::Resume(args) => {
            let key = change_key(db, &args, (Share::Nothing, store::resume))?;
            print(format_args!("The key {} is active.", key.id))
        }
        Command::Rotate(args) => rotate::rotate(config, db, &args),
        Command::Stop(args) => rotate::stop(db, &args),
        Command::Keep(args) => {
            let key = change_key(db, &args, (Share::Nothing, store::cancel_stop))?;
            print(format_args!(
                "The key {} keeps working until it is stopped.",
                key.id
            ))
        }
    }
}

fn delete(db: &Db, args: &KeyArgs) -> CommandResult {
    let key = change_key(db, args, (Share::All, store::delete))?;
    print(format_args!("Deleted {} “{}”.", key.truncated, key.name))
}

/// A change that takes only the key.
type Change = fn(&mut Connection, AccountId, i64, &Actor) -> db::Result<Found>;

fn change_key(
    db: &Db,
    args: &KeyArgs,
    (share, change): (Share, Change),
) -> Result<Key, CommandFailure> {
    let found = db.write_urgently_blocking(share, |conn| {
        let account = find_account(conn, &args.account)?;
        change(conn, account, args.id, &Actor::operator()).map_err(CommandFailure::from)
    })?;
    live(args.id, found)
}
