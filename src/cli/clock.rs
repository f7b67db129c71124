//! `tosend-dashboard clock …`

use clap::Subcommand;

use super::outcome::{CommandResult, one_line, print};
use crate::clock;
use crate::db::{self, Db, clock_watch};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show whether the clock agrees with the last time that the database recorded
    Show,
    /// Confirm that the clock is right: from now on, data is deleted, and keys, emails and domains end,
    /// by age again
    Accept,
}

pub fn run(command: &Command, db: &Db) -> CommandResult {
    let told = match command {
        Command::Show => db.read_blocking(show),
        Command::Accept => db.write_blocking(accept),
    };
    print(told.map_err(|e| one_line(&e.to_string()))?)
}

fn show(conn: &mut db::Connection) -> db::Result<String> {
    Ok(match clock_watch::find_doubt(conn)? {
        Some(doubt) => format!("{doubt}."),
        None => format!("The clock is trusted: {}.", time(conn)?),
    })
}

fn accept(conn: &mut db::Connection) -> db::Result<String> {
    let now = clock_watch::accept(conn)?;
    Ok(format!(
        "The clock is trusted now: {}.",
        clock::for_people(&now)
    ))
}

fn time(conn: &mut db::Connection) -> db::Result<String> {
    Ok(clock::for_people(&db::now(conn)?))
}
