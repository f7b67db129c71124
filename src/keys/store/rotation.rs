//! Replaces a key by a new one, while the old key keeps working for a while.

use chrono::{NaiveDateTime, TimeDelta};
use diesel::prelude::*;

use super::creation::{CreateError, NewKey, count_key, insert};
use super::journal::note;
use super::lock::{change_live, end, lock_and_end_if_due};
use super::row::{describe, record, row};
use super::{EndedHow, Found, Key, find};
use crate::accounts::event::{Action, Actor};
use crate::accounts::store::AccountId;
use crate::clock;
use crate::db::{self, Connection};
use crate::keys::expiry::Expiry;
use crate::keys::name::{Description, KeyName};
use crate::keys::secret::PlainKey;
use crate::schema::api_keys;

/// How to replace a key.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// How long the old key keeps working, but never beyond its own expiry; `None`: until it is
    /// stopped.
    pub overlap: Option<TimeDelta>,
    /// How long the old key must be unused to stop by itself, if it should.
    pub stops_when_quiet: Option<TimeDelta>,
    /// The expiry of the new key; `None`: the same as the old key's.
    pub expiry: Option<Expiry>,
}

#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("the account has no such key")]
    NoSuchKey,
    #[error("the key has ended")]
    Ended(Box<Key>),
    #[error("the key has been rotated already")]
    AlreadyRotated(Box<Key>),
    #[error(transparent)]
    Create(#[from] CreateError),
}

impl From<db::Error> for RotateError {
    fn from(error: db::Error) -> Self {
        Self::Create(error.into())
    }
}

impl From<diesel::result::Error> for RotateError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Create(error.into())
    }
}

/// Creates a successor with another secret and otherwise the same properties; the old key keeps
/// working for a while. Returns the new key.
pub fn rotate(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    rotation: &Rotation,
    secret: &PlainKey,
    limit: i64,
    actor: &Actor,
) -> Result<Key, RotateError> {
    let old = match lock_and_end_if_due(conn, account, id)? {
        Found::Live(key) => key,
        Found::Ended(key) => return Err(RotateError::Ended(Box::new(key))),
        Found::Nothing => return Err(RotateError::NoSuchKey),
    };
    if has_live_successor(conn, account, &old)? {
        return Err(RotateError::AlreadyRotated(Box::new(old)));
    }
    // An account at its limit must still be able to replace a leaked key.
    count_key(conn, account, limit.saturating_mul(2))?;
    let new = NewKey {
        name: KeyName::known(&old.name),
        description: Description::known(&old.description),
        scope: old.scope.as_new(),
        expiry: rotation.expiry.unwrap_or(Expiry::known(old.expires_at)),
        rule: old.rule.clone(),
    };
    let new = insert(conn, account, &new, secret, Some(id), actor)?;
    let stops_at = rotation.overlap.map(|overlap| new.created_at + overlap);
    let detail = format!(
        "replaced by {}; {}",
        new.truncated,
        stop_in_words(stops_at, rotation.stops_when_quiet)
    );
    record(conn, account, actor, Action::KeyRotated, &old, &detail)?;
    let detail = format!("replaces {}; {}", old.truncated, describe(&new));
    record(conn, account, actor, Action::KeyCreated, &new, &detail)?;
    diesel::update(row(account, id))
        .set((
            api_keys::stops_at.eq(stops_at),
            api_keys::stops_when_quiet.eq(rotation.stops_when_quiet.map(|t| t.num_seconds())),
        ))
        .execute(conn)?;
    note(conn, account, id)?;
    if rotation
        .overlap
        .is_some_and(|overlap| overlap <= TimeDelta::zero())
    {
        end(
            conn,
            account,
            &old,
            EndedHow::Stopped,
            new.created_at,
            actor,
        )?;
    }
    match find(conn, account, new.id)? {
        Found::Live(new) | Found::Ended(new) => Ok(new),
        Found::Nothing => Err(RotateError::NoSuchKey),
    }
}

/// Whether a live key replaces this one. If the successor is due to end, that is recorded.
fn has_live_successor(conn: &mut Connection, account: AccountId, key: &Key) -> db::Result<bool> {
    match &key.successor {
        Some(successor) => Ok(matches!(
            lock_and_end_if_due(conn, account, successor.id)?,
            Found::Live(_)
        )),
        None => Ok(false),
    }
}

/// Ends a replaced key; any other is left unchanged. Returns the key as it was.
pub fn stop(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    actor: &Actor,
) -> db::Result<Found> {
    let found = lock_and_end_if_due(conn, account, id)?;
    if let Found::Live(key) = &found
        && has_live_successor(conn, account, key)?
    {
        let now = db::stamp(conn)?;
        end(conn, account, key, EndedHow::Stopped, now, actor)?;
    }
    Ok(found)
}

/// Cancels the automatic stop of a replaced key. Returns its state after the change.
pub fn cancel_stop(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    actor: &Actor,
) -> db::Result<Found> {
    change_live(conn, account, id, |conn, key| {
        if key.stops_at.is_none() && key.stops_when_quiet.is_none() {
            return Ok(());
        }
        diesel::update(row(account, id))
            .set((
                api_keys::stops_at.eq(None::<NaiveDateTime>),
                api_keys::stops_when_quiet.eq(None::<i64>),
            ))
            .execute(conn)?;
        note(conn, account, id)?;
        let detail = stop_in_words(None, None);
        Ok(record(
            conn,
            account,
            actor,
            Action::KeyEdited,
            key,
            &detail,
        )?)
    })
}

fn stop_in_words(stops_at: Option<NaiveDateTime>, when_quiet: Option<TimeDelta>) -> String {
    let at = stops_at.map(|at| format!("it stops at {}", clock::rfc3339(&at)));
    let quiet = when_quiet.map(|quiet| {
        let hours = clock::hours(&quiet);
        format!("it stops when it was not used for {hours}")
    });
    match (at, quiet) {
        (None, None) => "it keeps working until it is stopped".to_owned(),
        (at, quiet) => at.into_iter().chain(quiet).collect::<Vec<_>>().join("; "),
    }
}
