//! The life of a key: made, changed, paused, replaced, ended. Each change is recorded in the
//! transaction that makes it, and takes effect with its commit.

use chrono::{NaiveDateTime, TimeDelta};
use diesel::prelude::*;

use super::nonces;
use super::{ACTIVE, EndedHow, Found, Key, PAUSED, Peer, find, find_all, scoped};
use crate::accounts::event::{Action, Actor, NewEvent};
use crate::accounts::store::{self as accounts_store, AccountId, AccountStatus, events};
use crate::clock;
use crate::db::{self, Connection, is_foreign_key_violation};
use crate::keys::expiry::Expiry;
use crate::keys::name::{Description, KeyName};
use crate::keys::rule::Rule;
use crate::keys::scope::{NewScope, Scope, ScopedDomain};
use crate::keys::secret::PlainKey;
use crate::schema::{api_key_domains, api_keys, form_nonces, sending_domains};

/// Uses are written a little after they happened.
const UNTIL_WRITTEN: TimeDelta = TimeDelta::minutes(1);

/// What a new key is to be, checked.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub name: KeyName,
    pub description: Description,
    pub scope: NewScope,
    pub expiry: Expiry,
    pub rule: Rule,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("the account is paused")]
    AccountPaused,
    #[error("the account has {0} keys, which is its limit")]
    LimitReached(i64),
    #[error("the account has no such domain")]
    UnknownDomain,
    /// The form was sent before; `None` if that key has ended since.
    #[error("the form was used already")]
    FormUsed(Option<Box<Key>>),
    #[error("the form is unknown or too old")]
    UnknownForm,
    #[error(transparent)]
    Db(#[from] db::Error),
}

impl From<diesel::result::Error> for CreateError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Db(error.into())
    }
}

/// Creates a key unless the form behind `nonce_hash` has created one already: a form makes one
/// key however often it is sent. On any error the form stays as it was.
pub fn create_once(
    conn: &mut Connection,
    account: AccountId,
    new: &NewKey,
    secret: &PlainKey,
    limit: i64,
    nonce_hash: &[u8; 32],
    actor: &Actor,
) -> Result<Key, CreateError> {
    let now = clock::now();
    let user_id = actor.user_id.ok_or(CreateError::UnknownForm)?;
    let form = form_nonces::table
        .filter(form_nonces::nonce_hash.eq(&nonce_hash[..]))
        .filter(form_nonces::user_id.eq(user_id))
        .filter(form_nonces::created_at.gt(now - nonces::LIFETIME));
    // Locks the row: whoever sends the same form at the same time waits here.
    let used = diesel::update(form.filter(form_nonces::used_at.is_null()))
        .set(form_nonces::used_at.eq(now))
        .execute(conn)?;
    if used == 0 {
        let key_id: Option<Option<i64>> = form
            .select(form_nonces::api_key_id)
            .first(conn)
            .optional()?;
        return Err(match key_id {
            Some(Some(id)) => match find(conn, account, id)? {
                Found::Live(key) => CreateError::FormUsed(Some(Box::new(key))),
                _ => CreateError::FormUsed(None),
            },
            _ => CreateError::UnknownForm,
        });
    }
    let key = create(conn, account, new, secret, limit, actor)?;
    diesel::update(form)
        .set(form_nonces::api_key_id.eq(key.id))
        .execute(conn)?;
    Ok(key)
}

pub fn create(
    conn: &mut Connection,
    account: AccountId,
    new: &NewKey,
    secret: &PlainKey,
    limit: i64,
    actor: &Actor,
) -> Result<Key, CreateError> {
    count_key(conn, account, limit)?;
    let key = insert(conn, account, new, secret, None, actor)?;
    let detail = describe(&key);
    record(conn, account, actor, Action::KeyCreated, &key, &detail)?;
    Ok(key)
}

/// Counts one live key more. Keys whose time is over do not count.
fn count_key(conn: &mut Connection, account: AccountId, limit: i64) -> Result<(), CreateError> {
    if accounts_store::count_key(conn, account, limit)? {
        return Ok(());
    }
    if accounts_store::find(conn, account)?.status == AccountStatus::Paused {
        return Err(CreateError::AccountPaused);
    }
    let now = db::now(conn)?;
    let overdue: Vec<i64> = api_keys::table
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_keys::ended_at.is_null())
        .filter(api_keys::expires_at.le(now).or(api_keys::stops_at.le(now)))
        .order(api_keys::id)
        .select(api_keys::id)
        .load(conn)?;
    for id in overdue {
        // Ends it.
        lock(conn, account, id)?;
    }
    match accounts_store::count_key(conn, account, limit)? {
        true => Ok(()),
        false => Err(CreateError::LimitReached(limit)),
    }
}

fn insert(
    conn: &mut Connection,
    account: AccountId,
    new: &NewKey,
    secret: &PlainKey,
    replaces: Option<i64>,
    actor: &Actor,
) -> Result<Key, CreateError> {
    let truncated = secret.truncated();
    let created_at = clock::now();
    let id: i64 = diesel::insert_into(api_keys::table)
        .values((
            api_keys::account_id.eq(account.0),
            api_keys::name.eq(new.name.as_ref()),
            api_keys::description.eq(new.description.as_ref()),
            api_keys::hash.eq(secret.hash().as_ref()),
            api_keys::first8.eq(&truncated.first8),
            api_keys::last4.eq(&truncated.last4),
            api_keys::all_domains.eq(new.scope == NewScope::AllDomains),
            api_keys::senders.eq(new.rule.senders.as_column()),
            api_keys::recipients.eq(new.rule.recipients.as_column()),
            api_keys::status.eq(ACTIVE),
            api_keys::created_by.eq(actor.user_id),
            api_keys::created_at.eq(created_at),
            api_keys::expires_at.eq(new.expiry.instant()),
            api_keys::replaces.eq(replaces),
        ))
        .returning(api_keys::id)
        .get_result(conn)?;
    let scope = match &new.scope {
        NewScope::AllDomains => Scope::AllDomains,
        NewScope::Domains(ids) => Scope::Domains(restrict(conn, account, id, ids)?),
    };
    Ok(Key {
        id,
        name: new.name.to_string(),
        description: new.description.to_string(),
        truncated,
        scope,
        rule: new.rule.clone(),
        paused: None,
        created_by: actor.user_id,
        created_at,
        expires_at: new.expiry.instant(),
        last_use: None,
        stops_at: None,
        stops_when_quiet: None,
        replaces,
        end: None,
        predecessor: None,
        successor: None,
    })
}

/// Restricts a key to domains of its own account.
fn restrict(
    conn: &mut Connection,
    account: AccountId,
    key_id: i64,
    domain_ids: &[i64],
) -> Result<Vec<ScopedDomain>, CreateError> {
    let mut domains = Vec::new();
    for &domain_id in domain_ids {
        let (name, status): (String, String) = sending_domains::table
            .filter(sending_domains::account_id.eq(account.0))
            .filter(sending_domains::id.eq(domain_id))
            .select((sending_domains::name, sending_domains::status))
            .first(conn)
            .optional()?
            .ok_or(CreateError::UnknownDomain)?;
        diesel::insert_into(api_key_domains::table)
            .values((
                api_key_domains::api_key_id.eq(key_id),
                api_key_domains::domain_id.eq(domain_id),
            ))
            .execute(conn)
            .map_err(|error| match is_foreign_key_violation(&error) {
                // Deleted since the line above.
                true => CreateError::UnknownDomain,
                false => error.into(),
            })?;
        domains.push(scoped(domain_id, name, &status));
    }
    domains.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(domains)
}

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
    let Found::Live(key) = lock(conn, account, id)? else {
        return find(conn, account, id);
    };
    if key.paused.is_none() {
        diesel::update(row(account, id))
            .set((
                api_keys::status.eq(PAUSED),
                api_keys::paused_at.eq(clock::now()),
                api_keys::paused_by.eq(&actor.name),
            ))
            .execute(conn)?;
        record(conn, account, actor, Action::KeyPaused, &key, "")?;
    }
    find(conn, account, id)
}

/// Resumes. Returns what there is now.
pub fn resume(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    actor: &Actor,
) -> db::Result<Found> {
    let Found::Live(key) = lock(conn, account, id)? else {
        return find(conn, account, id);
    };
    if key.paused.is_some() {
        diesel::update(row(account, id))
            .set((
                api_keys::status.eq(ACTIVE),
                api_keys::paused_at.eq(None::<NaiveDateTime>),
                api_keys::paused_by.eq(None::<String>),
            ))
            .execute(conn)?;
        record(conn, account, actor, Action::KeyResumed, &key, "")?;
    }
    find(conn, account, id)
}

/// How a key is to be replaced.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// How long the old key goes on, but never beyond its own expiry; `None`: until it is stopped.
    pub overlap: Option<TimeDelta>,
    /// Whether the old key stops by itself when it has not been used for so long.
    pub stops_when_quiet: Option<TimeDelta>,
    /// Of the new key; `None`: as the old one's.
    pub expiry: Option<Expiry>,
}

/// The two keys of a rotation.
#[derive(Debug)]
pub struct Rotated {
    pub old: Key,
    pub new: Key,
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

/// Makes a successor with another secret and all else alike; the old key goes on for a while.
pub fn rotate(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    rotation: &Rotation,
    secret: &PlainKey,
    limit: i64,
    actor: &Actor,
) -> Result<Rotated, RotateError> {
    let old = match lock(conn, account, id)? {
        Found::Live(key) => key,
        Found::Ended(key) => return Err(RotateError::Ended(Box::new(key))),
        Found::Nothing => return Err(RotateError::NoSuchKey),
    };
    if has_live_successor(conn, account, &old)? {
        return Err(RotateError::AlreadyRotated(Box::new(old)));
    }
    // A full account must be able to replace a key that leaked.
    count_key(conn, account, limit.saturating_mul(2))?;
    let new = NewKey {
        name: KeyName::known(&old.name),
        description: Description::known(&old.description),
        scope: old.scope.as_new(),
        expiry: rotation.expiry.unwrap_or(Expiry::known(old.expires_at)),
        rule: old.rule.clone(),
    };
    let mut new = insert(conn, account, &new, secret, Some(id), actor)?;
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
    let (Found::Live(old) | Found::Ended(old)) = find(conn, account, id)? else {
        return Err(RotateError::NoSuchKey);
    };
    if old.end.is_none() {
        new.predecessor = Some(Peer {
            id,
            created_at: old.created_at,
            truncated: old.truncated.clone(),
            last_used_at: old.last_used_at(),
            stops_at: old.stops_at,
            stops_when_quiet: old.stops_when_quiet,
        });
    }
    Ok(Rotated { old, new })
}

/// Whether another key replaces this one. If that one's time is over, that is written down.
fn has_live_successor(conn: &mut Connection, account: AccountId, key: &Key) -> db::Result<bool> {
    match &key.successor {
        Some(successor) => Ok(matches!(lock(conn, account, successor.id)?, Found::Live(_))),
        None => Ok(false),
    }
}

/// Ends a key that was replaced; any other is left as it is. Returns what there was.
pub fn stop(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    actor: &Actor,
) -> db::Result<Found> {
    match lock(conn, account, id)? {
        Found::Live(key) if !has_live_successor(conn, account, &key)? => Ok(Found::Live(key)),
        _ => end_now(conn, account, id, EndedHow::Stopped, actor),
    }
}

/// Deletes a key. Returns what there was.
pub fn delete(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    actor: &Actor,
) -> db::Result<Found> {
    end_now(conn, account, id, EndedHow::Deleted, actor)
}

fn end_now(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    how: EndedHow,
    actor: &Actor,
) -> db::Result<Found> {
    let found = lock(conn, account, id)?;
    if let Found::Live(key) = &found {
        end(conn, account, key, how, clock::now(), actor)?;
    }
    Ok(found)
}

/// Takes back that a key that was replaced stops by itself. Returns what there is now.
pub fn keep_going(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    actor: &Actor,
) -> db::Result<Found> {
    let Found::Live(key) = lock(conn, account, id)? else {
        return find(conn, account, id);
    };
    if key.stops_at.is_some() || key.stops_when_quiet.is_some() {
        diesel::update(row(account, id))
            .set((
                api_keys::stops_at.eq(None::<NaiveDateTime>),
                api_keys::stops_when_quiet.eq(None::<i64>),
            ))
            .execute(conn)?;
        let detail = stop_in_words(None, None);
        record(conn, account, actor, Action::KeyEdited, &key, &detail)?;
    }
    find(conn, account, id)
}

/// Some of the keys whose time is over, which are refused already and have not ended yet.
pub fn find_due_of_any_account(
    conn: &mut Connection,
    most: i64,
) -> db::Result<Vec<(AccountId, i64)>> {
    let now = db::now(conn)?;
    // Two queries, since SQLite looks into neither index for "the one or the other".
    let mut due: Vec<(i64, i64)> = api_keys::table
        .filter(api_keys::ended_at.is_null())
        .filter(api_keys::expires_at.le(now))
        .order(api_keys::expires_at)
        .limit(most)
        .select((api_keys::account_id, api_keys::id))
        .load(conn)?;
    let stopped: Vec<(i64, i64)> = api_keys::table
        .filter(api_keys::ended_at.is_null())
        .filter(api_keys::stops_at.le(now))
        .order(api_keys::stops_at)
        .limit(most)
        .select((api_keys::account_id, api_keys::id))
        .load(conn)?;
    due.extend(stopped);
    let ids = due
        .into_iter()
        .map(|(account, id)| (AccountId(account), id));
    Ok(ids.collect())
}

/// The keys that were replaced and stop when they are quiet.
pub fn find_quiet_of_any_account(conn: &mut Connection) -> db::Result<Vec<(AccountId, i64)>> {
    let waiting: Vec<(i64, i64)> = api_keys::table
        .filter(api_keys::stops_when_quiet.is_not_null())
        .filter(api_keys::ended_at.is_null())
        .order(api_keys::id)
        .select((api_keys::account_id, api_keys::id))
        .load(conn)?;
    let ids = waiting
        .into_iter()
        .map(|(account, id)| (AccountId(account), id));
    Ok(ids.collect())
}

/// Ends a key whose time is over, or that was replaced and quiet for long enough. `since`: when
/// calls could be seen at all; before, nobody could use the key. Returns whether it ended.
pub fn end_if_due(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    since: NaiveDateTime,
) -> db::Result<bool> {
    let key = match lock(conn, account, id)? {
        Found::Live(key) => key,
        Found::Ended(_) => return Ok(true),
        Found::Nothing => return Ok(false),
    };
    let now = db::now(conn)?;
    if !is_quiet(&key, since, now)
        || accounts_store::find(conn, account)?.status == AccountStatus::Paused
    {
        return Ok(false);
    }
    let server = Actor::server();
    end(conn, account, &key, EndedHow::Stopped, now, &server)?;
    Ok(true)
}

/// Whether a key that was replaced was not used for as long as it takes to stop it. One that was
/// paused could not be used.
fn is_quiet(key: &Key, since: NaiveDateTime, now: NaiveDateTime) -> bool {
    let (Some(quiet), Some(successor)) = (key.stops_when_quiet, &key.successor) else {
        return false;
    };
    let begun = since.max(successor.created_at);
    let last = key.last_used_at().map_or(begun, |used| used.max(begun));
    key.paused.is_none() && last + quiet + UNTIL_WRITTEN <= now
}

/// Whether there was a key of this name that expired at this instant.
pub fn has_expired(
    conn: &mut Connection,
    account: AccountId,
    name: &KeyName,
    expires_at: NaiveDateTime,
) -> db::Result<bool> {
    let expired = api_keys::table
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_keys::ended_at.eq(expires_at))
        .filter(api_keys::expires_at.eq(expires_at))
        .filter(api_keys::name.eq(name.as_ref()));
    Ok(diesel::select(diesel::dsl::exists(expired.select(api_keys::id))).get_result(conn)?)
}

/// Forgets the hashes of some of the keys that ended so long ago that they are shown no more.
pub fn forget_ended_of_any_account(conn: &mut Connection, most: i64) -> db::Result<usize> {
    let since = clock::now() - super::SHOWN_AFTER_END;
    let old: Vec<i64> = api_keys::table
        .filter(api_keys::ended_hash.is_not_null())
        .filter(api_keys::ended_at.lt(since))
        .order(api_keys::ended_at)
        .limit(most)
        .select(api_keys::id)
        .load(conn)?;
    Ok(
        diesel::update(api_keys::table.filter(api_keys::id.eq_any(old)))
            .set(api_keys::ended_hash.eq(None::<Vec<u8>>))
            .execute(conn)?,
    )
}

/// A key, which nobody else changes until the transaction ends. If its time is over, that is
/// written down first.
fn lock(conn: &mut Connection, account: AccountId, id: i64) -> db::Result<Found> {
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
        end(conn, account, key, over.how, over.at, &server)?;
        key.end = Some(over);
    }
    Ok(Found::of(key, now))
}

/// The row of a key that has not ended.
#[diesel::dsl::auto_type]
fn row(account: AccountId, id: i64) -> _ {
    let account_id: i64 = account.0;
    api_keys::table
        .filter(api_keys::account_id.eq(account_id))
        .filter(api_keys::id.eq(id))
        .filter(api_keys::ended_at.is_null())
}

/// Ends a key: its hash can never be presented again, its row stays for the history with its
/// domains as text.
fn end(
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

fn unrestrict(conn: &mut Connection, key_id: i64) -> QueryResult<()> {
    diesel::delete(api_key_domains::table.filter(api_key_domains::api_key_id.eq(key_id)))
        .execute(conn)?;
    Ok(())
}

fn record(
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
fn describe(key: &Key) -> String {
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

fn stop_in_words(stops_at: Option<NaiveDateTime>, when_quiet: Option<TimeDelta>) -> String {
    let at = stops_at.map(|at| format!("it stops at {}", clock::rfc3339(&at)));
    let quiet = when_quiet.map(|quiet| {
        let hours = clock::hours(&quiet);
        format!("it stops when it was not used for {hours}")
    });
    match (at, quiet) {
        (None, None) => "it goes on until it is stopped".to_owned(),
        (at, quiet) => at.into_iter().chain(quiet).collect::<Vec<_>>().join("; "),
    }
}
