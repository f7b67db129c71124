//! The command line. Results go to stdout, logs and prompts to stderr.

mod account;
mod apply;
mod backup;
mod check;
mod clock;
mod completions;
mod copy_to;
mod database;
mod domain;
mod email;
mod healthcheck;
mod key;
mod outcome;
mod restore;
mod secret;
mod serve;
mod server_secret;
mod variables;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use self::database::{migrate, open, open_or_make};
use self::outcome::{CommandResult, print};
use crate::config::{Config, Settings};
use crate::db::Db;
use crate::logging::Log;
use crate::recovery;

/// The API Keys dashboard of ToSend, an email API. Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "tosend-dashboard", version)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
    /// The settings as they were given.
    #[arg(skip)]
    given: Vec<check::Given>,
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
    /// Look at emails, and retry, cancel or delete them
    #[command(subcommand)]
    Email(email::Command),
    /// Give an account the domains and keys that a file declares; nothing is deleted
    Apply(apply::ApplyArgs),
    /// Show whether the clock is in doubt, or confirm that it is right
    #[command(subcommand)]
    Clock(clock::Command),
    /// Copy the SQLite database to a new file, also while a server uses it
    Backup(backup::BackupArgs),
    /// Go on with a backup: what ended since, by the journal of ends, ends again
    Restore(restore::RestoreArgs),
    /// Copy everything from SQLite to an empty PostgreSQL, and compare counts and sums
    CopyTo(copy_to::CopyToArgs),
    /// Check every setting, the database, its journal, the secret, DNS and the relay, and change nothing
    Check(check::CheckArgs),
    /// Ask the running server whether it is ready: exit code 0 if it is, 1 if not
    Healthcheck,
    /// Print the script with which a shell completes commands and flags
    Completions { shell: Shell },
    /// Bring the database's tables up to date, then exit
    Migrate,
    /// Replace the server's secret by a new one, without losing what the old one signed or encrypted
    #[command(subcommand)]
    Secret(secret::Command),
    /// Use the secret in this machine's file (created if missing) for this database from now on: signs
    /// everyone out
    AdoptSecret,
}

/// The settings that a command uses, by the words of the command.
fn used_by(words: &str) -> Vec<&'static str> {
    let others: &[&str] = match words {
        "completions" => return Vec::new(),
        "healthcheck" => return vec!["listen", "log", "log_format"],
        "key create" | "key rotate" => &["key_limit"],
        "domain add" => &["secret_file", "domain_limit"],
        "domain replace-key" | "adopt-secret" | "secret rotate" | "secret forget-old" => {
            &["secret_file"]
        }
        "backup" => &["secret_file"],
        "copy-to" => &["listen", "secret_file"],
        "restore" => &["listen"],
        "apply" => &["secret_file", "key_limit", "domain_limit"],
        _ => &[],
    };
    [&Settings::USED_BY_ALL, others].concat()
}

impl Cli {
    /// Parses the arguments of this process; exits if they ask for help or are invalid.
    pub fn from_arguments() -> Self {
        let matches = command().get_matches();
        let mut cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        cli.given = given(&matches);
        if let Err(why) = cli.check_arguments() {
            command().error(ErrorKind::ValueValidation, why).exit();
        }
        cli
    }

    /// What is wrong with several arguments together; each one has parsed itself.
    fn check_arguments(&self) -> CommandResult {
        match &self.command {
            Some(Command::Key(command)) => command.check(),
            Some(Command::Email(command)) => command.check(),
            _ => Ok(()),
        }
    }
}

/// The commands, each with help on only the settings it uses. Each accepts the others too, so that
/// one set of flags works for all commands.
fn command() -> clap::Command {
    let command = Cli::command();
    let settings: Vec<Arg> = command
        .get_arguments()
        .filter(|argument| argument.is_global_set())
        .cloned()
        .collect();
    command.mut_subcommands(|command| match command.get_name() {
        // This is what happens without a command, so all settings apply; and what is checked.
        "serve" | "check" => command,
        name => {
            let name = name.to_owned();
            with_settings(command, &name, &settings)
        }
    })
}

fn with_settings(command: clap::Command, words: &str, settings: &[Arg]) -> clap::Command {
    let used = used_by(words);
    let is_used = |setting: &Arg| used.contains(&setting.get_id().as_str());
    let settings_here = settings.iter().map(|setting| {
        let is_hidden = !is_used(setting);
        setting.clone().hide(is_hidden)
    });
    command.args(settings_here).mut_subcommands(|command| {
        let words = format!("{words} {}", command.get_name());
        with_settings(command, &words, settings)
    })
}

/// The settings of these matches; of those that may hold a password, only whether they are set.
fn given(matches: &ArgMatches) -> Vec<check::Given> {
    let command = Settings::augment_args(clap::Command::new("settings"));
    let given = command.get_arguments().filter_map(|setting| {
        let name = setting.get_env()?.to_str()?.to_owned();
        let value = matches.get_one::<String>(setting.get_id().as_str());
        let value = match value.filter(|value| !value.is_empty()) {
            None => "not set".to_owned(),
            Some(_) if setting.is_hide_env_values_set() => "set".to_owned(),
            Some(value) => value.clone(),
        };
        Some(check::Given { name, value })
    });
    given.collect()
}

/// Runs a command. Exit code 2 for configuration errors, 1 for other failures.
pub fn run(cli: Cli) -> ExitCode {
    let log = Log::to_stderr();
    let done = |outcome: CommandResult| match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            log.line(format_args!("error: {why}"));
            ExitCode::FAILURE
        }
    };
    let unknown = variables::problems(std::env::vars_os());
    let config = match Config::parse(&cli.settings) {
        Ok(config) if unknown.is_empty() => Ok(config),
        Ok(_) => Err(unknown),
        Err(problems) => Err([problems, unknown].concat()),
    };
    let code = match (cli.command.unwrap_or(Command::Serve), config) {
        // Works whatever the settings are.
        (Command::Completions { shell }, _) => done(completions::run(shell, command())),
        (command, Ok(config)) => {
            log.take_all(&config.log, config.log_format);
            let settings = match &command {
                Command::Check(_) => check::settings(&cli.given, &[]),
                _ => Ok(()),
            };
            done(settings.and_then(|()| execute(command, config)))
        }
        (command, Err(problems)) => {
            if let Command::Check(_) = command {
                // The problems are reported in any case.
                let _ = check::settings(&cli.given, &problems);
            }
            for problem in problems {
                log.line(format_args!("error: {problem}"));
            }
            ExitCode::from(2)
        }
    };
    log.end();
    code
}

fn execute(command: Command, config: Config) -> CommandResult {
    let up_to_date = |db: Result<Db, String>| {
        let db = db?;
        migrate(&db)?;
        Ok::<_, String>(db)
    };
    let existing = || up_to_date(open(&config));
    let with_journal = |db| recovery::attach_for_command(db, &config);
    match command {
        // It has more to check before the tables may be changed.
        Command::Serve => serve::run(config),
        Command::Account(command) => {
            let db = match command.makes_the_database() {
                true => up_to_date(open_or_make(&config))?,
                false => existing()?,
            };
            account::run(command, &with_journal(db)?)
        }
        Command::Domain(command) => domain::run(command, &config, &with_journal(existing()?)?),
        Command::Key(command) => key::run(command, &config, &with_journal(existing()?)?),
        Command::Email(command) => email::run(&command, &existing()?),
        Command::Apply(args) => apply::run(&args, &config, &with_journal(existing()?)?),
        Command::Check(args) => check::run(&args, &config),
        Command::Healthcheck => healthcheck::run(&config),
        Command::Completions { shell } => completions::run(shell, self::command()),
        Command::Clock(command) => clock::run(&command, &existing()?),
        Command::Backup(args) => backup::run(&args, &config, &with_journal(existing()?)?),
        Command::CopyTo(args) => copy_to::run(&args, &config, &with_journal(existing()?)?),
        Command::Restore(args) => restore::run(&args, &config),
        Command::Migrate => {
            up_to_date(open_or_make(&config))?;
            print("The database is up to date.")
        }
        Command::Secret(command) => secret::run(&command, &config, &existing()?),
        Command::AdoptSecret => server_secret::adopt(&config, &existing()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The subcommands of a command, with the settings that the help of each lists.
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
                "serve" | "check" => assert_eq!(
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
                    let mut used = used_by(words);
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
