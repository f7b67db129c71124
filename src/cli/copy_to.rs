//! `tosend-dashboard copy-to`

use std::path::{Path, PathBuf};

use clap::Args;

use super::outcome::{CommandResult, one_line, print};
use crate::config::Config;
use crate::db::{DatabaseUrl, Db, copy};
use crate::listener::ReservedAddress;
use crate::recovery;

#[derive(Debug, Args)]
pub struct CopyToArgs {
    /// The empty database: postgres://USER:PASSWORD@HOST/NAME
    #[arg(required_unless_present = "url_file")]
    url: Option<String>,
    /// File with its URL, because others can see arguments: for a URL with a password
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    url_file: Option<PathBuf>,
    /// Copy beside a running server. What changes from now on is not in the copy, except that what
    /// ends will end there too
    #[arg(long)]
    beside_server: bool,
}

pub fn run(args: &CopyToArgs, config: &Config, db: &Db) -> CommandResult {
    let DatabaseUrl::Sqlite(file) = &config.database else {
        return Err("this copies from SQLite: move PostgreSQL with pg_dump and pg_restore".into());
    };
    let to = target(args)?;
    // Nobody may write to a database that is about to be left behind.
    let reserved = match args.beside_server {
        true => None,
        false => Some(ReservedAddress::reserve(config.listen).map_err(|_| {
            format!(
                "{} is in use: stop the server first (with systemd, its socket too), or copy beside it with --beside-server",
                config.listen
            )
        })?),
    };
    let copied = copy::copy(&config.database, &to, reserved.is_some()).map_err(|e| one_line(&e))?;
    if args.beside_server {
        // So that the copy can be told from the database even if nothing ends from now on.
        recovery::mark(db).map_err(|e| one_line(&e.to_string()))?;
    }
    let later = match args.beside_server {
        true => {
            " What changed since this command began is missing there: stop the server, and start it on PostgreSQL soon."
        }
        false => "",
    };
    let journal = config.journal.as_deref().unwrap_or(Path::new(""));
    print(format_args!(
        "Copied {} tables with {} rows; the counts and sums agree. Start the server with this PostgreSQL in TOSEND_DATABASE_URL_FILE, TOSEND_SECRET_FILE={} and TOSEND_JOURNAL={}, and never again with {file}.{later}",
        copied.tables,
        copied.rows,
        config.secret_file.display(),
        journal.display()
    ))
}

fn target(args: &CopyToArgs) -> Result<DatabaseUrl, String> {
    let url = match (&args.url, &args.url_file) {
        (Some(url), _) => url.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|e| format!("{} cannot be read: {e}", file.display()))?,
        (None, None) => String::new(),
    };
    match DatabaseUrl::parse(url.trim_end_matches(['\r', '\n'])) {
        Ok(to @ DatabaseUrl::Postgres(_)) => Ok(to),
        _ => Err("it is copied to PostgreSQL: the URL begins with postgres://".into()),
    }
}
