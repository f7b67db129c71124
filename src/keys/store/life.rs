//! The life of a key: changed, paused, resumed, and what its beginning and its end share. Each
//! change is recorded in the transaction that makes it, and takes effect with its commit.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::creation::{CreateError, restrict};
use super::end::end;
use super::{ACTIVE, Found, Key, PAUSED, find, find_all};
use crate::accounts::event::{Action, Actor, NewEvent};
use crate::accounts::store::{AccountId, events};
use crate::clock;
use crate::db::{self, Connection};
use crate::keys::expiry::Expiry;
use crate::keys::name::{Description, KeyName};
use crate::keys::rule::Rule;
use crate::keys::scope::NewScope;
use crate::schema::{api_key_domains, api_keys};

/// What a key is to be from now on.
#[derive(Debug, Clone)]
pub struct Edit {
    pub name: KeyName,
    pub description: Description,
    pub scope: NewScope,
    /// `None`: as it is.
    pub expiry: Option<Expiry>,
    pub rule: Rule,
}

#[derive(Debug, thiserror::Error)]
pub enum EditError {
    #[error("the account has no such key")]
    NoSuchKey,
    #[error("the key has ended")]
    Ended(Box<Key>),
    #[error("the account has no such domain")]
    UnknownDomain,
    /// Someone else changed the key since it was read.
    #[error("the key was changed meanwhile")]
    Changed,
    #[error(transparent)]
    Db(#[from] db::Error),
}

impl From<diesel::result::Error> for EditError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Db(error.into())
    }
}

/// Changes what a key is, not its secret, if it is still the `version` that was read. Returns it as
/// it is now.
pub fn edit(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    version: Option<&str>,
    edit: &Edit,
    actor: &Actor,
) -> Result<Key, EditError> {
    let before = match lock(conn, account, id)? {
        Found::Live(key) => key,
        Found::Ended(key) => return Err(EditError::Ended(Box::new(key))),
        Found::Nothing => return Err(EditError::NoSuchKey),
    };
    if version.is_some_and(|version| version != before.version()) {
        return Err(EditError::Changed);
    }
    diesel::update(row(account, id))
        .set((
            api_keys::name.eq(edit.name.as_ref()),
            api_keys::description.eq(edit.description.as_ref()),
            api_keys::all_domains.eq(edit.scope == NewScope::AllDomains),
            api_keys::senders.eq(edit.rule.senders.as_column()),
            api_keys::recipients.eq(edit.rule.recipients.as_column()),
            api_keys::expires_at.eq(match edit.expiry {
                Some(expiry) => expiry.instant(),
                None => before.expires_at,
            }),
        ))
        .execute(conn)?;
    unrestrict(conn, id)?;
    if let NewScope::Domains(ids) = &edit.scope {
        restrict(conn, account, id, ids).map_err(|error| match error {
            CreateError::Db(error) => EditError::Db(error),
            _ => EditError::UnknownDomain,
        })?;
    }
    // An expiry that was a moment ahead may be over.
    let (Found::Live(after) | Found::Ended(after)) = find(conn, account, id)? else {
        return Err(EditError::NoSuchKey);
    };
    let changes = changes(&before, &after);
    if !changes.is_empty() {
        record(conn, account, actor, Action::KeyEdited, &after, &changes)?;
    }
    Ok(after)
}

/// Pauses: the key is refused until it is resumed. Returns what there is now.
pub fn pause(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    actor: &Actor,
) -> db::Result<Found> {
    change_live(conn, account, id, |conn, key| {
        if key.paused.is_some() {
            return Ok(());
        }
        diesel::update(row(account, id))
            .set((
                api_keys::status.eq(PAUSED),
                api_keys::paused_at.eq(clock::now()),
                api_keys::paused_by.eq(&actor.name),
            ))
            .execute(conn)?;
        Ok(record(conn, account, actor, Action::KeyPaused, key, "")?)
    })
}

/// Resumes. Returns what there is now.
pub fn resume(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    actor: &Actor,
) -> db::Result<Found> {
    change_live(conn, account, id, |conn, key| {
        if key.paused.is_none() {
            return Ok(());
        }
        diesel::update(row(account, id))
            .set((
                api_keys::status.eq(ACTIVE),
                api_keys::paused_at.eq(None::<NaiveDateTime>),
                api_keys::paused_by.eq(None::<String>),
            ))
            .execute(conn)?;
        Ok(record(conn, account, actor, Action::KeyResumed, key, "")?)
    })
}

/// Changes a key that has not ended. Returns what there is now.
pub(super) fn change_live(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    change: impl FnOnce(&mut Connection, &Key) -> db::Result<()>,
) -> db::Result<Found> {
    let found = lock(conn, account, id)?;
    let Found::Live(key) = &found else {
        return Ok(found);
    };
    change(conn, key)?;
    find(conn, account, id)
}

/// A key, which nobody else changes until the transaction ends. If its time is over, that is
/// written down first.
pub(super) fn lock(conn: &mut Connection, account: AccountId, id: i64) -> db::Result<Found> {
    // Changes nothing, but others wait for it.
    diesel::update(row(account, id))
        .set(api_keys::account_id.eq(account.0))
        .execute(conn)?;
    let now = db::now(conn)?;
    let mut key = find_all(conn, account, &[id])?.pop();
    if let Some(key) = &mut key
        && key.end.is_none()
        && let Some(over) = key.end_by(now)
    {
        let server = Actor::server();
        // It is refused in any case; what is written down cannot be undone when the clock was wrong.
        if db::trusted_now(conn)?.is_some() {
            end(conn, account, key, over.how, over.at, &server)?;
        }
        key.end = Some(over);
    }
    Ok(Found::of(key, now))
}

/// The row of a key that has not ended.
#[diesel::dsl::auto_type]
pub(super) fn row(account: AccountId, id: i64) -> _ {
    let account_id: i64 = account.0;
    api_keys::table
        .filter(api_keys::account_id.eq(account_id))
        .filter(api_keys::id.eq(id))
        .filter(api_keys::ended_at.is_null())
}

pub(super) fn unrestrict(conn: &mut Connection, key_id: i64) -> QueryResult<()> {
    diesel::delete(api_key_domains::table.filter(api_key_domains::api_key_id.eq(key_id)))
        .execute(conn)?;
    Ok(())
}

pub(super) fn record(
    conn: &mut Connection,
    account: AccountId,
    actor: &Actor,
    action: Action,
    key: &Key,
    detail: &str,
) -> QueryResult<()> {
    let event = NewEvent {
        action,
        subject_id: Some(key.id),
        subject: &format!("{} ({})", key.name, key.truncated),
        detail,
    };
    events::record(conn, account, actor, event)
}

/// What a key is, for the record of its creation.
pub(super) fn describe(key: &Key) -> String {
    let mut parts = vec![format!("scope: {}", key.scope)];
    if let Some(at) = &key.expires_at {
        parts.push(format!("expires {}", clock::rfc3339(at)));
    }
    if !key.rule.senders.is_any() {
        parts.push(format!("senders: {}", key.rule.senders));
    }
    if !key.rule.recipients.is_any() {
        parts.push(format!("recipients: {}", key.rule.recipients));
    }
    parts.join("; ")
}

/// What is another than it was; nothing if all is the same.
pub fn changes(before: &Key, after: &Key) -> String {
    let expiry = |key: &Key| {
        key.expires_at
            .as_ref()
            .map_or("never".into(), clock::rfc3339)
    };
    let quoted = |text: &str| format!("“{text}”");
    [
        ("name", quoted(&before.name), quoted(&after.name)),
        (
            "description",
            quoted(&before.description),
            quoted(&after.description),
        ),
        ("scope", before.scope.to_string(), after.scope.to_string()),
        ("expires", expiry(before), expiry(after)),
        (
            "senders",
            before.rule.senders.to_string(),
            after.rule.senders.to_string(),
        ),
        (
            "recipients",
            before.rule.recipients.to_string(),
            after.rule.recipients.to_string(),
        ),
    ]
    .into_iter()
    .filter(|(_, before, after)| before != after)
    .map(|(what, before, after)| format!("{what}: {before} → {after}"))
    .collect::<Vec<_>>()
    .join("; ")
}
