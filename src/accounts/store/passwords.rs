//! Sets new passwords, and ends the sessions started with the old ones.

use diesel::prelude::*;

use super::attempts::forget_attempts;
use super::id::AccountId;
use super::sessions::Renewal;
use super::users::{Credentials, User, rehash_password};
use super::{events, sessions};
use crate::accounts::email::Email;
use crate::accounts::event::{Action, Actor, NewEvent};
use crate::accounts::throttle::ThrottleCounter;
use crate::db::{self, Connection};
use crate::schema::users;

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

/// Sets a new password, ends all sessions and forgets failures. Returns whether the user exists.
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
    forget_attempts(conn, &ThrottleCounter::of_email(email))?;
    Ok(true)
}

/// Replaces the proven password by a new one. The current session, which is locked, continues under
/// another id; all others of the person end.
///
/// # Errors
/// If nothing was changed.
pub fn change_password(
    conn: &mut Connection,
    user: &User,
    proven: &Credentials,
    new_hash: &str,
    renewal: Renewal,
    actor: &Actor,
) -> Result<(), PasswordError> {
    // Must come first, so that other transactions that change the password or start a session wait
    // here.
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
