//! `tosend-dashboard account …`

use std::io::{IsTerminal, Read};

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};

use super::database::find_account;
use super::outcome::{Failure, Outcome, failure, print};
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

pub fn run(command: Command, db: &Db) -> Outcome {
    match command {
        Command::Create {
            email,
            title,
            password,
        } => create(db, email, title, &password),
        Command::Password { account, password } => set_password(db, &account, &password),
        Command::Pause { account } => set_status(db, &account, AccountStatus::Paused),
        Command::Resume { account } => set_status(db, &account, AccountStatus::Active),
    }
}

fn create(db: &Db, email: Email, title: Title, source: &PasswordSource) -> Outcome {
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

fn set_password(db: &Db, email: &Email, source: &PasswordSource) -> Outcome {
    let password = choose_password(source, email, "")?;
    let hash = hash_blocking(&password);
    let actor = Actor::operator();
    let is_set = db.write_urgently_blocking(Share::All, |conn| {
        store::set_password(conn, email, &hash, &actor).map_err(Failure::from)
    })?;
    if !is_set {
        return Err(format!("there is no account for {email}"));
    }
    print(format_args!(
        "Set the password of {email} and ended all sessions."
    ))
}

fn set_status(db: &Db, email: &Email, status: AccountStatus) -> Outcome {
    let share = match status {
        AccountStatus::Active => Share::Nothing,
        _ => Share::All,
    };
    db.write_urgently_blocking(share, |conn| {
        let account = find_account(conn, email)?;
        store::set_status(conn, account, status, &Actor::operator()).map_err(Failure::from)
    })?;
    print(format_args!(
        "The account of {email} is {}.",
        status.as_str()
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
