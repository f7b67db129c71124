//! Accounts, users and sign-in attempts in the database.

pub mod events;
pub mod sessions;

use std::collections::HashMap;

use chrono::{NaiveDateTime, TimeDelta};
use diesel::Connection as _;
use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::email::Email;
use super::event::{Action, Actor, NewEvent};
use super::throttle::{self, Counter};
use super::title::Title;
use crate::clock;
use crate::db::{self, Connection, Purpose, is_unique_violation};
use crate::schema::{accounts, login_attempts, users};

use sessions::Renewal;

/// After this long without another failure, failures are forgotten.
const FORGIVEN: TimeDelta = TimeDelta::days(1);
/// How many counters of failures are kept.
const MOST_COUNTERS: i64 = 100_000;

/// Whose data a statement may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AccountId(pub i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountStatus {
    Active,
    Paused,
}

impl AccountStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
        }
    }

    fn from_column(text: &str) -> Self {
        match text {
            "active" => Self::Active,
            _ => Self::Paused,
        }
    }
}

/// Someone who is signed in, and their account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    pub id: i64,
    pub account: AccountId,
    pub email: String,
    pub title: String,
    pub account_status: AccountStatus,
    /// How many live keys the account has.
    pub key_count: i64,
}

impl User {
    pub fn is_account_paused(&self) -> bool {
        self.account_status == AccountStatus::Paused
    }
}

#[derive(Debug)]
pub struct Account {
    pub title: String,
    pub status: AccountStatus,
}

/// An account and its first user, checked and hashed.
#[derive(Debug, Clone)]
pub struct NewAccount {
    pub title: Title,
    pub email: Email,
    pub password_hash: String,
}

/// A user, and whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    pub user_id: i64,
    pub account: AccountId,
}

/// A user, and the PHC string that a password is compared with.
#[derive(Clone)]
pub struct Credentials {
    pub user_id: i64,
    pub password_hash: String,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("this email address is taken")]
    EmailTaken,
    #[error("an account exists already")]
    NotFirst,
    #[error(transparent)]
    Db(#[from] db::Error),
}

impl From<diesel::result::Error> for CreateError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Db(error.into())
    }
}

/// Why a password was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("the session has ended")]
    SignedOut,
    #[error("the password was changed or hashed anew meanwhile")]
    Outdated,
    #[error(transparent)]
    Db(#[from] db::Error),
}

impl From<diesel::result::Error> for PasswordError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Db(error.into())
    }
}

pub fn exists_any(conn: &mut Connection) -> db::Result<bool> {
    Ok(
        diesel::select(diesel::dsl::exists(accounts::table.select(accounts::id)))
            .get_result(conn)?,
    )
}

/// Creates an account only if there is none yet: of parallel first sign-ups exactly one wins.
pub fn create_first(
    conn: &mut Connection,
    new: &NewAccount,
    actor: &Actor,
) -> Result<Credentials, CreateError> {
    db::serialize(conn, Purpose::FirstAccount)?;
    if exists_any(conn)? {
        return Err(CreateError::NotFirst);
    }
    create(conn, new, actor)
}

pub fn create(
    conn: &mut Connection,
    new: &NewAccount,
    actor: &Actor,
) -> Result<Credentials, CreateError> {
    // So that an account from the command line and a first sign-up cannot both be the first.
    db::serialize(conn, Purpose::FirstAccount)?;
    let now = clock::now();
    let account_id: i64 = diesel::insert_into(accounts::table)
        .values((
            accounts::title.eq(new.title.as_ref()),
            accounts::status.eq(AccountStatus::Active.as_str()),
            accounts::created_at.eq(now),
        ))
        .returning(accounts::id)
        .get_result(conn)?;
    let user_id = diesel::insert_into(users::table)
        .values((
            users::account_id.eq(account_id),
            users::email.eq(new.email.as_ref()),
            users::password_hash.eq(&new.password_hash),
            users::role.eq("owner"),
            users::created_at.eq(now),
        ))
        .returning(users::id)
        .get_result(conn)
        .map_err(|error| match is_unique_violation(&error) {
            true => CreateError::EmailTaken,
            false => error.into(),
        })?;
    let event = NewEvent {
        action: Action::AccountCreated,
        subject_id: Some(account_id),
        subject: new.title.as_ref(),
        detail: &format!("first user: {}", new.email),
    };
    events::record(conn, AccountId(account_id), actor, event)?;
    Ok(Credentials {
        user_id,
        password_hash: new.password_hash.clone(),
    })
}

/// The account that a person on the command line names by one of its users.
pub fn find_id_by_email(conn: &mut Connection, email: &Email) -> db::Result<Option<AccountId>> {
    let id = users::table
        .filter(users::email.eq(email.as_ref()))
        .select(users::account_id)
        .first(conn)
        .optional()?;
    Ok(id.map(AccountId))
}

pub fn find(conn: &mut Connection, account: AccountId) -> db::Result<Account> {
    let (title, status): (String, String) = accounts::table
        .find(account.0)
        .select((accounts::title, accounts::status))
        .first(conn)?;
    Ok(Account {
        title,
        status: AccountStatus::from_column(&status),
    })
}

/// Gives an account another name. Returns whether it is another.
pub fn rename(
    conn: &mut Connection,
    account: AccountId,
    title: &Title,
    actor: &Actor,
) -> db::Result<bool> {
    lock(conn, account)?;
    let old = find(conn, account)?.title;
    if old == title.as_ref() {
        return Ok(false);
    }
    diesel::update(accounts::table.find(account.0))
        .set(accounts::title.eq(title.as_ref()))
        .execute(conn)?;
    let event = NewEvent {
        action: Action::AccountRenamed,
        subject_id: Some(account.0),
        subject: title.as_ref(),
        detail: &format!("name: “{old}” → “{title}”"),
    };
    events::record(conn, account, actor, event)?;
    Ok(true)
}

/// Makes others who do this wait until the transaction ends.
pub fn lock(conn: &mut Connection, account: AccountId) -> db::Result<()> {
    diesel::update(accounts::table.find(account.0))
        .set(accounts::key_count.eq(accounts::key_count))
        .execute(conn)?;
    Ok(())
}

/// Pauses or resumes.
pub fn set_status(
    conn: &mut Connection,
    account: AccountId,
    status: AccountStatus,
    actor: &Actor,
) -> db::Result<()> {
    let title: Option<String> = diesel::update(accounts::table.find(account.0))
        .filter(accounts::status.ne(status.as_str()))
        .set(accounts::status.eq(status.as_str()))
        .returning(accounts::title)
        .get_result(conn)
        .optional()?;
    let Some(title) = title else {
        return Ok(());
    };
    let event = NewEvent {
        action: match status {
            AccountStatus::Paused => Action::AccountPaused,
            AccountStatus::Active => Action::AccountResumed,
        },
        subject_id: Some(account.0),
        subject: &title,
        detail: "",
    };
    Ok(events::record(conn, account, actor, event)?)
}

/// Counts one more live key, if the account is active and below `limit`. Returns whether it was.
pub fn count_key(conn: &mut Connection, account: AccountId, limit: i64) -> db::Result<bool> {
    let updated = diesel::update(
        accounts::table
            .find(account.0)
            .filter(accounts::status.eq(AccountStatus::Active.as_str()))
            .filter(accounts::key_count.lt(limit)),
    )
    .set(accounts::key_count.eq(accounts::key_count + 1))
    .execute(conn)?;
    Ok(updated == 1)
}

/// Counts one live key less.
pub fn uncount_key(conn: &mut Connection, account: AccountId) -> db::Result<()> {
    diesel::update(accounts::table.find(account.0))
        .set(accounts::key_count.eq(accounts::key_count - 1))
        .execute(conn)?;
    Ok(())
}

pub fn find_user(conn: &mut Connection, user_id: i64) -> db::Result<Option<User>> {
    let row: Option<UserRow> = users::table
        .inner_join(accounts::table)
        .filter(users::id.eq(user_id))
        .select(user_columns())
        .first(conn)
        .optional()?;
    Ok(row.map(User::from))
}

type UserRow = (i64, i64, String, String, String, i64);

#[diesel::dsl::auto_type]
fn user_columns() -> _ {
    (
        users::id,
        users::account_id,
        users::email,
        accounts::title,
        accounts::status,
        accounts::key_count,
    )
}

impl From<UserRow> for User {
    fn from((id, account_id, email, title, status, key_count): UserRow) -> Self {
        Self {
            id,
            account: AccountId(account_id),
            email,
            title,
            account_status: AccountStatus::from_column(&status),
            key_count,
        }
    }
}

pub fn find_credentials(conn: &mut Connection, email: &Email) -> db::Result<Option<Credentials>> {
    let found: Option<(i64, String)> = users::table
        .filter(users::email.eq(email.as_ref()))
        .select((users::id, users::password_hash))
        .first(conn)
        .optional()?;
    Ok(found.map(|(user_id, password_hash)| Credentials {
        user_id,
        password_hash,
    }))
}

pub fn find_credentials_of_user(
    conn: &mut Connection,
    user_id: i64,
) -> db::Result<Option<Credentials>> {
    let found: Option<String> = users::table
        .find(user_id)
        .select(users::password_hash)
        .first(conn)
        .optional()?;
    Ok(found.map(|password_hash| Credentials {
        user_id,
        password_hash,
    }))
}

/// Who has which of these addresses.
pub fn find_people(
    conn: &mut Connection,
    emails: &[String],
) -> db::Result<HashMap<String, Person>> {
    let mut people = HashMap::new();
    for emails in emails.chunks(1_000) {
        let rows: Vec<(String, i64, i64)> = users::table
            .filter(users::email.eq_any(emails))
            .select((users::email, users::id, users::account_id))
            .load(conn)?;
        people.extend(rows.into_iter().map(|(email, user_id, account_id)| {
            let account = AccountId(account_id);
            (email, Person { user_id, account })
        }));
    }
    Ok(people)
}

/// Sets a new password, ends all sessions and forgives failures. Returns whether there is such a
/// user.
pub fn set_password(
    conn: &mut Connection,
    email: &Email,
    password_hash: &str,
    actor: &Actor,
) -> db::Result<bool> {
    let found: Option<(i64, i64)> = diesel::update(users::table)
        .filter(users::email.eq(email.as_ref()))
        .set(users::password_hash.eq(password_hash))
        .returning((users::id, users::account_id))
        .get_result(conn)
        .optional()?;
    let Some((user_id, account_id)) = found else {
        return Ok(false);
    };
    let event = NewEvent {
        action: Action::PasswordChanged,
        subject_id: Some(user_id),
        subject: email.as_ref(),
        detail: "all sessions of this person ended",
    };
    events::record(conn, AccountId(account_id), actor, event)?;
    sessions::delete_all(conn, user_id)?;
    forget_attempts(conn, &Counter::of_email(email))?;
    Ok(true)
}

/// Sets a new password in place of the proven one. The session it is done in, which is held, goes on
/// under another id; all others of the person end.
///
/// # Errors
/// Nothing was changed.
pub fn change_password(
    conn: &mut Connection,
    user: &User,
    proven: &Credentials,
    new_hash: &str,
    renewal: Renewal,
    actor: &Actor,
) -> Result<(), PasswordError> {
    // First, since whoever else changes it, or starts a session, waits here.
    let is_replaced = rehash_password(conn, proven, new_hash)?;
    if !sessions::renew(conn, proven.user_id, renewal)? {
        return Err(PasswordError::SignedOut);
    }
    if !is_replaced {
        return Err(PasswordError::Outdated);
    }
    let ended = sessions::delete_others(conn, proven.user_id, renewal.to)?;
    let event = NewEvent {
        action: Action::PasswordChanged,
        subject_id: Some(user.id),
        subject: &user.email,
        detail: &format!("{} of this person ended", sessions::others(ended)),
    };
    Ok(events::record(conn, user.account, actor, event)?)
}

/// Replaces a hash made with weaker parameters, unless the password was changed meanwhile.
/// Returns whether it was replaced.
pub fn rehash_password(
    conn: &mut Connection,
    old: &Credentials,
    new_hash: &str,
) -> db::Result<bool> {
    let updated = diesel::update(users::table.find(old.user_id))
        .filter(users::password_hash.eq(&old.password_hash))
        .set(users::password_hash.eq(new_hash))
        .execute(conn)?;
    Ok(updated == 1)
}

/// Counts a look at a password before it is made, so that parallel guesses count too. Returns the
/// seconds to wait if there were too many.
pub fn begin_attempt(conn: &mut Connection, counter: &Counter) -> db::Result<Option<i64>> {
    let now = clock::now();
    if let Some(now) = db::trusted_now(conn)? {
        diesel::delete(login_attempts::table.filter(login_attempts::next_at.lt(now - FORGIVEN)))
            .execute(conn)?;
    }
    let counter = counter.as_ref();
    let inserted = conn.transaction(|conn| {
        diesel::insert_into(login_attempts::table)
            .values((
                login_attempts::counter_hash.eq(counter),
                login_attempts::failures.eq(1),
                login_attempts::next_at.eq(now),
            ))
            .execute(conn)
    });
    match inserted {
        Ok(_) => return Ok(None),
        Err(error) if is_unique_violation(&error) => {}
        Err(error) => return Err(error.into()),
    }
    // A longer delay than the longest was set by a clock that was wrong.
    let is_open = login_attempts::next_at
        .le(now)
        .or(login_attempts::next_at.gt(now + throttle::LONGEST_DELAY));
    let failures: Option<i64> = diesel::update(login_attempts::table)
        .filter(login_attempts::counter_hash.eq(counter))
        .filter(is_open)
        .set(login_attempts::failures.eq(login_attempts::failures + 1))
        .returning(login_attempts::failures)
        .get_result(conn)
        .optional()?;
    let attempt = login_attempts::table.filter(login_attempts::counter_hash.eq(counter));
    match failures {
        Some(failures) => {
            diesel::update(attempt)
                .set(login_attempts::next_at.eq(now + throttle::delay_after(failures)))
                .execute(conn)?;
            Ok(None)
        }
        None => {
            let next_at: Option<NaiveDateTime> = attempt
                .select(login_attempts::next_at)
                .first(conn)
                .optional()?;
            Ok(next_at.map(|at| (at - now).num_seconds().max(0) + 1))
        }
    }
}

/// Forgets failures: the password was right, or was set anew.
pub fn forget_attempts(conn: &mut Connection, counter: &Counter) -> db::Result<()> {
    diesel::delete(login_attempts::table.filter(login_attempts::counter_hash.eq(counter.as_ref())))
        .execute(conn)?;
    Ok(())
}

/// Removes counters beyond `MOST_COUNTERS`. Those with the fewest failures go first: whoever makes
/// very many cannot get rid of one that is shut.
pub fn bound_attempts(conn: &mut Connection) -> db::Result<()> {
    loop {
        let count: i64 = login_attempts::table.count().get_result(conn)?;
        let most = (count - MOST_COUNTERS).min(1_000);
        if most <= 0 {
            return Ok(());
        }
        let fewest: Vec<Vec<u8>> = login_attempts::table
            .order((login_attempts::failures, login_attempts::next_at))
            .limit(most)
            .select(login_attempts::counter_hash)
            .load(conn)?;
        diesel::delete(login_attempts::table.filter(login_attempts::counter_hash.eq_any(fewest)))
            .execute(conn)?;
    }
}
