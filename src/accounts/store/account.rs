//! Accounts. Each is created together with its first user.

use chrono::NaiveDateTime;
use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::events;
use super::id::{AccountId, AccountStatus};
use super::users::Credentials;
use crate::accounts::email::Email;
use crate::accounts::event::{Action, Actor, NewEvent};
use crate::accounts::title::Title;
use crate::clock;
use crate::db::{self, Connection, Purpose, is_unique_violation};
use crate::schema::{accounts, users};

#[derive(Debug)]
pub struct Account {
    pub title: String,
    pub status: AccountStatus,
    pub created_at: NaiveDateTime,
}

/// A new account and its first user, validated, with the password hashed.
#[derive(Debug, Clone)]
pub struct NewAccount {
    pub title: Title,
    pub email: Email,
    pub password_hash: String,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateAccountError {
    #[error("this email address is taken")]
    EmailTaken,
    #[error("an account exists already")]
    NotFirst,
    #[error(transparent)]
    Db(#[from] db::Error),
}

impl From<diesel::result::Error> for CreateAccountError {
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

/// Creates an account only if there is none yet: of parallel first sign-ups exactly one succeeds.
pub fn create_first(
    conn: &mut Connection,
    new: &NewAccount,
    actor: &Actor,
) -> Result<Credentials, CreateAccountError> {
    db::serialize(conn, Purpose::FirstAccount)?;
    if exists_any(conn)? {
        return Err(CreateAccountError::NotFirst);
    }
    create(conn, new, actor)
}

pub fn create(
    conn: &mut Connection,
    new: &NewAccount,
    actor: &Actor,
) -> Result<Credentials, CreateAccountError> {
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
            true => CreateAccountError::EmailTaken,
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

/// The account that the operator names by the email address of one of its users.
pub fn find_id_by_email(conn: &mut Connection, email: &Email) -> db::Result<Option<AccountId>> {
    let id = users::table
        .filter(users::email.eq(email.as_ref()))
        .select(users::account_id)
        .first(conn)
        .optional()?;
    Ok(id.map(AccountId))
}

pub fn find(conn: &mut Connection, account: AccountId) -> db::Result<Account> {
    let (title, status, created_at): (String, String, NaiveDateTime) = accounts::table
        .find(account.0)
        .select((accounts::title, accounts::status, accounts::created_at))
        .first(conn)?;
    Ok(Account {
        title,
        status: AccountStatus::from_column(&status),
        created_at,
    })
}

/// Renames an account. Returns whether the name is different.
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

/// Makes other transactions that lock this account wait until this one ends.
pub fn lock(conn: &mut Connection, account: AccountId) -> db::Result<()> {
    diesel::update(accounts::table.find(account.0))
        .set(accounts::key_count.eq(accounts::key_count))
        .execute(conn)?;
    Ok(())
}

/// Pauses or resumes an account.
pub fn set_status(
    conn: &mut Connection,
    account: AccountId,
    status: AccountStatus,
    actor: &Actor,
) -> db::Result<()> {
    let changed: Option<(String, NaiveDateTime)> = diesel::update(accounts::table.find(account.0))
        .filter(accounts::status.ne(status.as_str()))
        .filter(accounts::deleted_at.is_null())
        .set(accounts::status.eq(status.as_str()))
        .returning((accounts::title, accounts::created_at))
        .get_result(conn)
        .optional()?;
    let Some((title, created_at)) = changed else {
        return Ok(());
    };
    let line = AccountLine {
        id: account.0,
        created: clock::micros(&created_at),
        is_paused: status == AccountStatus::Paused,
        is_deleted: false,
    };
    db::journal::note(AccountLine::KIND, &line);
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

/// What the journal of ends says of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLine {
    pub id: i64,
    /// In microseconds since 1970: another account may get the same id in another database.
    pub created: i64,
    pub is_paused: bool,
    /// Which is final.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_deleted: bool,
}

impl AccountLine {
    pub const KIND: &str = "account";
}

/// Pauses an account of which the journal says so. Returns whether it was active.
pub fn pause_again_of_any_account(conn: &mut Connection, line: &AccountLine) -> db::Result<bool> {
    if !line.is_paused {
        return Ok(false);
    }
    let active: Option<i64> = accounts::table
        .find(line.id)
        .filter(accounts::created_at.eq(clock::from_micros(line.created)))
        .filter(accounts::status.eq(AccountStatus::Active.as_str()))
        .select(accounts::id)
        .first(conn)
        .optional()?;
    let Some(id) = active else {
        return Ok(false);
    };
    let status = AccountStatus::Paused;
    set_status(conn, AccountId(id), status, &Actor::server())?;
    Ok(true)
}

/// Counts one more live key, if the account is active and below `limit`. Returns whether it did.
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

/// Subtracts one live key.
pub fn uncount_key(conn: &mut Connection, account: AccountId) -> db::Result<()> {
    diesel::update(accounts::table.find(account.0))
        .set(accounts::key_count.eq(accounts::key_count - 1))
        .execute(conn)?;
    Ok(())
}
