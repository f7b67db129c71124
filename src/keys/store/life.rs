//! Changes, pauses and resumes keys. Each change is recorded in the same transaction, and takes
//! effect with its commit.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::journal::note;
use super::lock::{change_live, lock_and_end_if_due};
use super::row::{record, restrict, row, unrestrict};
use super::rule_row::RuleColumns;
use super::{Found, Key, find};
use crate::accounts::event::{Action, Actor};
use crate::accounts::store::AccountId;
use crate::clock;
use crate::db::{self, Connection};
use crate::keys::expiry::Expiry;
use crate::keys::name::{Description, KeyName};
use crate::keys::rule::Rule;
use crate::keys::scope::NewScope;
use crate::keys::standing::{ACTIVE, PAUSED};
use crate::schema::api_keys;

/// The new properties of a key.
#[derive(Debug, Clone)]
pub struct Edit {
    pub name: KeyName,
    pub description: Description,
    pub scope: NewScope,
    /// `None`: unchanged.
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
    /// Another person changed the key since it was read.
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

/// Changes a key's properties, not its secret, if it is still the `version` that was read. Returns
/// the key after the change.
pub fn edit(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    version: Option<&str>,
    edit: &Edit,
    actor: &Actor,
) -> Result<Key, EditError> {
    let before = match lock_and_end_if_due(conn, account, id)? {
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
            RuleColumns::from(&edit.rule),
            api_keys::expires_at.eq(match edit.expiry {
                Some(expiry) => expiry.instant(),
                None => before.expires_at,
            }),
        ))
        .execute(conn)?;
    unrestrict(conn, id)?;
    if let NewScope::Domains(ids) = &edit.scope {
        restrict(conn, account, id, ids)?.ok_or(EditError::UnknownDomain)?;
    }
    // An expiry that was in the future a moment ago may have passed.
    let (Found::Live(after) | Found::Ended(after)) = find(conn, account, id)? else {
        return Err(EditError::NoSuchKey);
    };
    let changes = describe_changes(&before, &after);
    if !changes.is_empty() {
        note(conn, account, id)?;
        record(conn, account, actor, Action::KeyEdited, &after, &changes)?;
    }
    Ok(after)
}

/// Pauses the key: it is refused until it is resumed. Returns its state after the change.
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
        note(conn, account, id)?;
        Ok(record(conn, account, actor, Action::KeyPaused, key, "")?)
    })
}

/// Resumes the key. Returns its state after the change.
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
        note(conn, account, id)?;
        Ok(record(conn, account, actor, Action::KeyResumed, key, "")?)
    })
}

/// The differences, in words; empty if there are none.
pub fn describe_changes(before: &Key, after: &Key) -> String {
    let expiry = |key: &Key| {
        key.expires_at
            .as_ref()
            .map_or("never".into(), clock::rfc3339)
    };
    let quoted = |text: &str| format!("“{text}”");
    let parts = before.rule.parts().zip(after.rule.parts());
    let rule = parts.map(|((part, old), (_, new))| (part.name, old.to_string(), new.to_string()));
    [
        ("name", quoted(&before.name), quoted(&after.name)),
        (
            "description",
            quoted(&before.description),
            quoted(&after.description),
        ),
        ("scope", before.scope.to_string(), after.scope.to_string()),
        ("expires", expiry(before), expiry(after)),
    ]
    .into_iter()
    .chain(rule)
    .filter(|(_, before, after)| before != after)
    .map(|(what, before, after)| format!("{what}: {before} → {after}"))
    .collect::<Vec<_>>()
    .join("; ")
}
