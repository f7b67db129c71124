//! The command line. Results go to stdout, logs and prompts to stderr.

mod account;
mod apply;
mod domain;
mod key;
mod serve;

use std::fmt::Display;
use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::accounts::email::Email;
use crate::accounts::store::{self as accounts_store, AccountId};
use crate::config::{Config, Settings};
use crate::db::{self, Connection, DatabaseUrl, Db, migrations, nodes};
use crate::domains::dkim::SealedKey;
use crate::domains::name::DomainName;
use crate::logging::Log;
use crate::secret::ServerSecret;

/// The API Keys dashboard of ToSend, an email API. Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "tosend-dashboard", version)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the dashboard and the API (the default)
    Serve,
    /// Accounts and their people
    #[command(subcommand)]
    Account(account::Command),
    /// Sending domains
    #[command(subcommand)]
    Domain(domain::Command),
    /// API keys
    #[command(subcommand)]
    Key(key::Command),
    /// Make an account have the domains and keys that a file declares; delete nothing
    Apply(apply::ApplyArgs),
    /// Bring the database's tables up to date, and do nothing else
    Migrate,
    /// Make this machine's secret the one that all nodes of a PostgreSQL share: signs everyone out
    AdoptSecret,
}

/// Why a command did not do what was asked, in one sentence.
type Outcome = Result<(), String>;

/// Runs a command. Exit code 2 for problems of the configuration, 1 for what failed.
pub fn run(cli: Cli) -> ExitCode {
    let log = Log::to_stderr();
    let code = match Config::parse(&cli.settings) {
        Ok(config) => {
            log.take_all(&config.log);
            match execute(cli.command.unwrap_or(Command::Serve), config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(why) => {
                    log.line(format_args!("error: {why}"));
                    ExitCode::FAILURE
                }
            }
        }
        Err(problems) => {
            for problem in problems {
                log.line(format_args!("error: {problem}"));
            }
            ExitCode::from(2)
        }
    };
    log.flush();
    code
}

fn execute(command: Command, config: Config) -> Outcome {
    let db = open(&config)?;
    match command {
        Command::Serve => serve::run(config, db),
        Command::Account(command) => account::run(command, &db),
        Command::Domain(command) => domain::run(command, &config, &db),
        Command::Key(command) => key::run(command, &config, &db),
        Command::Apply(args) => apply::run(&args, &config, &db),
        Command::Migrate => print("The database is up to date."),
        Command::AdoptSecret => adopt_secret(&config, &db),
    }
}

fn adopt_secret(config: &Config, db: &Db) -> Outcome {
    if !db.is_postgres() {
        return Err("only the nodes of a PostgreSQL share a secret".to_owned());
    }
    let secret = read_secret(config)?;
    db.write_blocking(|conn| nodes::adopt_secret(conn, &secret.hash()))
        .map_err(|e| one_line(&e.to_string()))?;
    print(format_args!(
        "The nodes of this database share the secret {} now: copy it to each of them, and restart them.",
        config.secret_file.display()
    ))
}

fn read_secret(config: &Config) -> Result<ServerSecret, String> {
    make_folder(config.secret_file.parent().unwrap_or(Path::new("")))?;
    ServerSecret::read_or_make(&config.secret_file)
}

/// A key for a new domain. `None` where the server makes it later: only the nodes' secret can seal it
/// so that they can use it.
fn make_domain_key(
    config: &Config,
    db: &Db,
    name: &DomainName,
) -> Result<Option<SealedKey>, String> {
    if db.is_postgres() && !config.secret_file.exists() {
        return Ok(None);
    }
    let secret = read_secret(config)?;
    if db.is_postgres() {
        let is_shared = db
            .read_blocking(|conn| nodes::is_shared(conn, &secret.hash()))
            .map_err(|e| one_line(&e.to_string()))?;
        if !is_shared {
            return Ok(None);
        }
    }
    let key = SealedKey::make(&secret, name).map_err(|e| e.to_string())?;
    Ok(Some(key))
}

/// Why a domain cannot be attested.
fn verified_elsewhere(name: &DomainName) -> Failure {
    Failure(format!(
        "{name} is verified in another account of this server: only one can send from it"
    ))
}

/// The database, made if it is a file that is missing, with all migrations.
fn open(config: &Config) -> Result<Db, String> {
    if let DatabaseUrl::Sqlite(file) = &config.database {
        make_folder(file.folder())?;
    }
    let db = Db::open(&config.database).map_err(|why| {
        let why = one_line(&why);
        format!("the database {} cannot be opened: {why}", config.database)
    })?;
    let ran = migrations::run(&db).map_err(|e| one_line(&e.to_string()))?;
    if ran > 0 {
        tracing::info!(
            migrations = ran,
            "the database's tables were brought up to date"
        );
    }
    Ok(db)
}

/// Makes a folder for its owner alone. One that exists is not changed; an empty name is the
/// current one's.
fn make_folder(folder: &Path) -> Outcome {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| format!("the folder {} cannot be made: {e}", folder.display()))
}

/// A line of the result. (`println!` panics where nobody reads.)
fn print(line: impl Display) -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|e| format!("the result cannot be written: {e}"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The account that one of its people's email address names.
fn find_account(conn: &mut Connection, email: &str) -> Result<AccountId, Failure> {
    let email = Email::parse(email).map_err(failure)?;
    accounts_store::find_id_by_email(conn, &email)?
        .ok_or_else(|| Failure(format!("there is no account of {email}")))
}

/// What a command tells when it failed.
#[derive(Debug)]
struct Failure(String);

fn failure(why: impl Display) -> Failure {
    Failure(why.to_string())
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        Self(one_line(&error.to_string()))
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}
