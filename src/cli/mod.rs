//! The command line. Results go to stdout, logs and prompts to stderr.

mod account;
mod apply;
mod clock;
mod domain;
mod key;
mod serve;
mod server_secret;

use std::fmt::Display;
use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::accounts::email::Email;
use crate::accounts::store::{self as accounts_store, AccountId};
use crate::config::{Config, Settings};
use crate::db::{self, Connection, DatabaseUrl, Db, migrations};
use crate::domains::dkim::SealedKey;
use crate::domains::name::DomainName;
use crate::logging::Log;

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
    /// Manage accounts and their people
    #[command(subcommand)]
    Account(account::Command),
    /// Manage sending domains
    #[command(subcommand)]
    Domain(domain::Command),
    /// Manage API keys
    #[command(subcommand)]
    Key(key::Command),
    /// Give an account the domains and keys that a file declares; nothing is deleted
    Apply(apply::ApplyArgs),
    /// Show whether the clock is in doubt, or confirm that it is right
    #[command(subcommand)]
    Clock(clock::Command),
    /// Bring the database's tables up to date, then exit
    Migrate,
    /// Use the secret in this machine's file (created if missing) for this database from now on: signs
    /// everyone out
    AdoptSecret,
}

/// What of the settings a command uses besides those that all use, by its words.
fn used_by(words: &str) -> &'static [&'static str] {
    match words {
        "key create" | "key rotate" => &["key_limit"],
        "domain add" => &["secret_file", "domain_limit"],
        "domain replace-key" | "adopt-secret" => &["secret_file"],
        "apply" => &["secret_file", "key_limit", "domain_limit"],
        _ => &[],
    }
}

impl Cli {
    /// Parses what this process was started with; ends it if that asks for help or is wrong.
    pub fn from_arguments() -> Self {
        let matches = command().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The commands, each with help on those of the settings that it uses. The others are accepted
/// all the same, so that one set of flags serves all commands.
fn command() -> clap::Command {
    let command = Cli::command();
    let settings: Vec<Arg> = command
        .get_arguments()
        .filter(|argument| argument.is_global_set())
        .cloned()
        .collect();
    command.mut_subcommands(|command| match command.get_name() {
        // Which is what happens without a command: everything concerns it.
        "serve" => command,
        name => {
            let name = name.to_owned();
            with_settings(command, &name, &settings)
        }
    })
}

fn with_settings(command: clap::Command, words: &str, settings: &[Arg]) -> clap::Command {
    let is_used = |setting: &Arg| {
        let name = setting.get_id().as_str();
        Settings::USED_BY_ALL.contains(&name) || used_by(words).contains(&name)
    };
    let settings_here = settings.iter().map(|setting| {
        let is_hidden = !is_used(setting);
        setting.clone().hide(is_hidden)
    });
    command.args(settings_here).mut_subcommands(|command| {
        let words = format!("{words} {}", command.get_name());
        with_settings(command, &words, settings)
    })
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
    let up_to_date = || {
        let db = open(&config)?;
        migrate(&db)?;
        Ok::<_, String>(db)
    };
    match command {
        // It has more to check before the tables may be changed.
        Command::Serve => serve::run(config),
        Command::Account(command) => account::run(command, &up_to_date()?),
        Command::Domain(command) => domain::run(command, &config, &up_to_date()?),
        Command::Key(command) => key::run(command, &config, &up_to_date()?),
        Command::Apply(args) => apply::run(&args, &config, &up_to_date()?),
        Command::Clock(command) => clock::run(&command, &up_to_date()?),
        Command::Migrate => up_to_date().and_then(|_| print("The database is up to date.")),
        Command::AdoptSecret => server_secret::adopt(&config, &up_to_date()?),
    }
}

/// A key for a new domain. `None` where the server makes it later: only the nodes' secret can seal it
/// so that they can use it.
fn make_domain_key(
    config: &Config,
    db: &Db,
    name: &DomainName,
) -> Result<Option<SealedKey>, String> {
    server_secret::find_for_sealing(config, db)?
        .map(|secret| SealedKey::make(&secret, name).map_err(|e| e.to_string()))
        .transpose()
}

/// Why a domain cannot be added.
fn domain_limit_reached(count: i64) -> Failure {
    Failure(format!(
        "the account has {count} domains, which is its limit (TOSEND_DOMAIN_LIMIT): delete one that is no longer used, or raise the limit"
    ))
}

/// Why a domain cannot be attested.
fn verified_elsewhere(name: &DomainName) -> Failure {
    Failure(format!(
        "{name} is verified in another account of this server: only one can send from it"
    ))
}

/// The database, made if it is a file that is missing. Its tables may be out of date.
fn open(config: &Config) -> Result<Db, String> {
    if let DatabaseUrl::Sqlite(file) = &config.database {
        make_folder(file.folder())?;
    }
    Db::open(&config.database).map_err(|why| {
        let why = one_line(&why);
        format!("the database {} cannot be opened: {why}", config.database)
    })
}

/// Brings the tables up to date.
fn migrate(db: &Db) -> Outcome {
    let ran = migrations::run(db).map_err(|e| one_line(&e.to_string()))?;
    if ran > 0 {
        tracing::info!(
            migrations = ran,
            "the database's tables were brought up to date"
        );
    }
    Ok(())
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
        .map_err(|e| format!("the folder {} cannot be created: {e}", folder.display()))
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
        .ok_or_else(|| Failure(format!("there is no account for {email}")))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands below a command, with the settings that the help of each lists.
    fn listed(command: &clap::Command, words: &str, all: &mut Vec<(String, Vec<String>)>) {
        for below in command.get_subcommands() {
            let words = format!("{words} {}", below.get_name());
            let words = words.trim();
            let of_settings = below.get_arguments().filter(|a| a.is_global_set());
            let shown = of_settings.filter(|argument| !argument.is_hide_set());
            let names = shown.map(|argument| argument.get_id().to_string());
            all.push((words.to_owned(), names.collect()));
            listed(below, words, all);
        }
    }

    #[test]
    fn the_help_of_a_command_lists_the_settings_that_it_uses() {
        let mut command = command();
        command.build();
        let mut all = Vec::new();
        listed(&command, "", &mut all);
        assert!(all.iter().any(|(words, _)| words == "key create"));
        for (words, settings) in all {
            match &*words {
                "serve" => assert_eq!(
                    settings.len(),
                    command
                        .get_arguments()
                        .filter(|a| a.is_global_set())
                        .count()
                ),
                words if words.split(' ').any(|word| word == "help") => {}
                words => {
                    let mut settings = settings;
                    settings.sort();
                    let mut used = [&Settings::USED_BY_ALL[..], used_by(words)].concat();
                    used.sort();
                    assert_eq!(settings, used, "{words}");
                }
            }
        }
    }

    #[test]
    fn settings_are_taken_before_and_behind_every_command() {
        for arguments in [
            &["tosend-dashboard", "--listen", "127.0.0.1:1", "migrate"][..],
            &["tosend-dashboard", "migrate", "--listen", "127.0.0.1:1"],
            &[
                "tosend-dashboard",
                "key",
                "--listen",
                "127.0.0.1:1",
                "list",
                "--account",
                "a@b.c",
            ],
            &["tosend-dashboard", "serve", "--listen", "127.0.0.1:1"],
            &["tosend-dashboard", "--listen", "127.0.0.1:1"],
        ] {
            let matches = command().try_get_matches_from(arguments).unwrap();
            let cli = Cli::from_arg_matches(&matches).unwrap();
            assert_eq!(cli.settings.listen, "127.0.0.1:1", "{arguments:?}");
        }
    }
}
