//! `tosend-dashboard account …`

use std::io::{IsTerminal, Read, Write};

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};

use super::database::find_account;
use super::outcome::{CommandFailure, CommandResult, failure, print};
use crate::account_end::export::{Export, Format, Table};
use crate::account_end::{self, MOST_COUNTED};
use crate::accounts::email::Email;
use crate::accounts::event::Actor;
use crate::accounts::password::{Password, hash_blocking};
use crate::accounts::store::{self, AccountStatus, NewAccount};
use crate::accounts::title::Title;
use crate::db::{Db, Share};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create an account and its first user
    Create {
        /// Email address to sign in with
        #[arg(long, value_parser = Email::parse)]
        email: Email,
        /// Name of the company or project
        #[arg(long, value_parser = Title::parse)]
        title: Title,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Set a new password and end all sessions
    Password {
        /// Email address to sign in with
        #[arg(long, value_parser = Email::parse)]
        account: Email,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Print everything that is stored about an account, except keys, passwords and contents of emails
    Export {
        /// Email address of a person in the account
        #[arg(long, value_parser = Email::parse)]
        account: Email,
        /// Print this table as CSV instead of everything as JSON: account, people, sessions, domains,
        /// keys, emails or activity
        #[arg(long, value_name = "TABLE", value_parser = Table::parse)]
        csv: Option<Table>,
    },
    /// Delete an account for good: its keys, sessions and unsent emails end at once, and what is left
    /// of it is removed while a server runs
    Delete {
        /// Email address of a person in the account
        #[arg(long, value_parser = Email::parse)]
        account: Email,
        /// Name of the account, to confirm; without it, what would end is printed
        #[arg(long)]
        title: Option<String>,
    },
    /// Refuse the account's keys; its people can still sign in and delete keys
    Pause {
        /// Email address of a person in the account
        #[arg(long, value_parser = Email::parse)]
        account: Email,
    },
    /// Let the account's keys work again
    Resume {
        /// Email address of a person in the account
        #[arg(long, value_parser = Email::parse)]
        account: Email,
    },
}

#[derive(Debug, Args)]
pub struct PasswordSource {
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    password_stdin: bool,
}

impl Command {
    /// The first account may be made before the server starts.
    pub fn makes_the_database(&self) -> bool {
        matches!(self, Self::Create { .. })
    }
}

pub fn run(command: Command, db: &Db) -> CommandResult {
    match command {
        Command::Create {
            email,
            title,
            password,
        } => create(db, email, title, &password),
        Command::Password { account, password } => set_password(db, &account, &password),
        Command::Export { account, csv } => export(db, &account, csv),
        Command::Delete { account, title } => delete(db, &account, title.as_deref()),
        Command::Pause { account } => set_status(db, &account, AccountStatus::Paused),
        Command::Resume { account } => set_status(db, &account, AccountStatus::Active),
    }
}

fn create(db: &Db, email: Email, title: Title, source: &PasswordSource) -> CommandResult {
    let password = choose_password(source, &email, title.as_ref())?;
    let new = NewAccount {
        title,
        password_hash: hash_blocking(&password),
        email,
    };
    db.write_blocking(|conn| store::create(conn, &new, &Actor::operator()))
        .map_err(|e| e.to_string())?;
    print(format_args!(
        "Created the account “{}” of {}.",
        new.title, new.email
    ))
}

fn set_password(db: &Db, email: &Email, source: &PasswordSource) -> CommandResult {
    let password = choose_password(source, email, "")?;
    let hash = hash_blocking(&password);
    let actor = Actor::operator();
    let is_set = db.write_urgently_blocking(Share::All, |conn| {
        store::set_password(conn, email, &hash, &actor).map_err(CommandFailure::from)
    })?;
    if !is_set {
        return Err(format!("there is no account for {email}"));
    }
    print(format_args!(
        "Set the password of {email} and ended all sessions."
    ))
}

fn set_status(db: &Db, email: &Email, status: AccountStatus) -> CommandResult {
    let share = match status {
        AccountStatus::Active => Share::Nothing,
        _ => Share::All,
    };
    db.write_urgently_blocking(share, |conn| {
        let account = find_account(conn, email)?;
        store::set_status(conn, account, status, &Actor::operator()).map_err(CommandFailure::from)
    })?;
    print(format_args!(
        "The account of {email} is {}.",
        status.as_str()
    ))
}

fn export(db: &Db, email: &Email, table: Option<Table>) -> CommandResult {
    let account = db.read_blocking(|conn| find_account(conn, email))?;
    let mut rest = Export::new(account, table.map_or(Format::Json, Format::Csv));
    let mut out = std::io::stdout().lock();
    let mut next = || db.read_blocking(|conn| rest.next(conn).map_err(CommandFailure::from));
    while let Some(part) = next()? {
        out.write_all(&part)
            .map_err(|e| format!("the export cannot be written: {e}"))?;
    }
    out.flush()
        .map_err(|e| format!("the export cannot be written: {e}"))
}

fn delete(db: &Db, email: &Email, title: Option<&str>) -> CommandResult {
    let ended = db.write_urgently_blocking(Share::All, |conn| {
        let account = find_account(conn, email)?;
        let found = store::find(conn, account)?;
        if title != Some(&found.title) {
            let ends = account_end::consequences(conn, account)?;
            return Err(failure(format!(
                "nothing is deleted yet. At once and for good, this would end: all keys and sessions of the account, {} domains, and {}{} emails that wait to be sent. To delete it, repeat the command with --title and the name of the account: {}",
                ends.domains,
                ends.waiting,
                if ends.waiting == MOST_COUNTED { " or more" } else { "" },
                found.title
            )));
        }
        account_end::end(conn, account)?;
        Ok((account, found.title))
    });
    let (account, title) = ended?;
    tracing::info!(
        account = account.0,
        "an account was deleted by the operator"
    );
    print(format_args!(
        "The account “{title}” of {email} is deleted: its keys are refused. What is left of it is removed while a server runs."
    ))
}

fn choose_password(
    source: &PasswordSource,
    email: &Email,
    title: &str,
) -> Result<Password, String> {
    let text = read_password(source)?;
    Password::choose(&text, email.as_ref(), title).map_err(|e| e.to_string())
}

fn read_password(source: &PasswordSource) -> Result<SecretString, String> {
    if source.password_stdin {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|e| format!("the password cannot be read: {e}"))?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned().into());
    }
    if !std::io::stdin().is_terminal() {
        return Err(
            "standard input is not a terminal: pass the password with --password-stdin".into(),
        );
    }
    let ask = |prompt| rpassword::prompt_password(prompt).map_err(|e| failure(e).0);
    let password: SecretString = ask("Password: ")?.into();
    let again: SecretString = ask("Again: ")?.into();
    if password.expose_secret() != again.expose_secret() {
        return Err("the two passwords differ".into());
    }
    Ok(password)
}
