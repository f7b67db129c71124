//! Locks a key before it is changed. If the key has expired or is due to stop, locking also ends
//! it.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::journal::note;
use super::row::{record, row, unrestrict};
use super::{EndedHow, Found, Key, find, find_all};
use crate::accounts::event::{Action, Actor};
use crate::accounts::store::{self as accounts_store, AccountId};
use crate::db::{self, Connection};
use crate::keys::scope::Scope;
use crate::schema::api_keys;

/// Changes a key that has not ended. Returns its state after the change.
pub(super) fn change_live(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    change: impl FnOnce(&mut Connection, &Key) -> db::Result<()>,
) -> db::Result<Found> {
    let found = lock_and_end_if_due(conn, account, id)?;
    let Found::Live(key) = &found else {
        return Ok(found);
    };
    change(conn, key)?;
    find(conn, account, id)
}

/// Locks and returns a key: no other transaction can change it until this one ends. If the key is
/// due to end, that is recorded first.
pub(super) fn lock_and_end_if_due(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
) -> db::Result<Found> {
    // Changes nothing, but makes other transactions wait.
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
        // The key is refused in any case, but a recorded end could not be undone if the clock was
        // wrong.
        if db::trusted_now(conn)?.is_some() {
            end(conn, account, key, over.how, over.at, &server)?;
        }
        key.end = Some(over);
    }
    Ok(Found::of(key, now))
}

/// Ends a key: its hash can never be presented again; its row is kept for the history, with its
/// domains as text.
pub(super) fn end(
    conn: &mut Connection,
    account: AccountId,
    key: &Key,
    how: EndedHow,
    at: NaiveDateTime,
    actor: &Actor,
) -> db::Result<()> {
    let domain_names = match &key.scope {
        Scope::AllDomains => None,
        Scope::Domains(_) => Some(key.scope.to_string()),
    };
    let ended = diesel::update(row(account, key.id))
        .set((
            api_keys::ended_hash.eq(api_keys::hash),
            api_keys::hash.eq(None::<Vec<u8>>),
            api_keys::ended_at.eq(at),
            api_keys::ended_how.eq(how.as_str()),
            api_keys::ended_by.eq(&actor.name),
            api_keys::ended_domain_names.eq(domain_names),
        ))
        .execute(conn)?;
    if ended == 0 {
        return Ok(());
    }
    unrestrict(conn, key.id)?;
    // An expiry is known from the key's row, whatever its age.
    if how != EndedHow::Expired {
        note(conn, account, key.id)?;
    }
    accounts_store::uncount_key(conn, account)?;
    let action = match how {
        EndedHow::Deleted => Action::KeyDeleted,
        EndedHow::Expired => Action::KeyExpired,
        EndedHow::Stopped => Action::KeyStopped,
    };
    let detail = match &key.successor {
        Some(successor) => format!("replaced by {}", successor.truncated),
        None => String::new(),
    };
    Ok(record(conn, account, actor, action, key, &detail)?)
}
