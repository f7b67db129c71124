//! The users of accounts, and their password hashes.

use std::collections::HashMap;

use chrono::NaiveDateTime;
use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::id::{AccountId, AccountStatus};
use crate::accounts::email::Email;
use crate::db::{self, Connection};
use crate::schema::{accounts, users};

/// A signed-in person, with their account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    pub id: i64,
    pub account: AccountId,
    pub email: String,
    pub title: String,
    pub account_status: AccountStatus,
    /// The number of live keys of the account.
    pub key_count: i64,
}

impl User {
    pub fn is_account_paused(&self) -> bool {
        self.account_status == AccountStatus::Paused
    }
}

/// A user and their account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    pub user_id: i64,
    pub account: AccountId,
}

/// A user, and the PHC string to compare the password with.
#[derive(Clone)]
pub struct Credentials {
    pub user_id: i64,
    pub password_hash: String,
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

pub(super) type UserRow = (i64, i64, String, String, String, i64);

#[diesel::dsl::auto_type]
pub(super) fn user_columns() -> _ {
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

/// The users who have these addresses.
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

/// A person of an account.
#[derive(Debug, Queryable)]
pub struct Member {
    pub id: i64,
    pub email: String,
    pub role: String,
    pub created_at: NaiveDateTime,
}

pub fn list_members(conn: &mut Connection, account: AccountId) -> db::Result<Vec<Member>> {
    Ok(users::table
        .filter(users::account_id.eq(account.0))
        .order(users::id)
        .select((users::id, users::email, users::role, users::created_at))
        .load(conn)?)
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
