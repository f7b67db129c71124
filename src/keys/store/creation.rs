//! Creates keys.

use diesel::prelude::*;

use super::lock::lock_and_end_if_due;
use super::row::{describe, record, restrict};
use super::rule_row::RuleColumns;
use super::{Found, Key, KeyRow, find, nonces};
use crate::accounts::event::{Action, Actor};
use crate::accounts::store::{self as accounts_store, AccountId, AccountStatus};
use crate::clock;
use crate::db::{self, Connection};
use crate::keys::expiry::Expiry;
use crate::keys::name::{Description, KeyName};
use crate::keys::rule::Rule;
use crate::keys::scope::{NewScope, Scope};
use crate::keys::secret::PlainKey;
use crate::keys::standing::ACTIVE;
use crate::schema::{api_keys, form_nonces};

/// The properties of a new key, validated.
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
    /// The form was already sent; `None` if the key it created has ended since.
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

/// Creates a key unless the form behind `nonce_hash` has already created one: a form creates one
/// key however often it is sent. After any error the form can be sent again.
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
    // Locks the row: a request that sends the same form at the same time waits here.
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

/// Counts one more live key. Expired keys do not count.
pub(super) fn count_key(
    conn: &mut Connection,
    account: AccountId,
    limit: i64,
) -> Result<(), CreateError> {
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
        // This ends the key.
        lock_and_end_if_due(conn, account, id)?;
    }
    match accounts_store::count_key(conn, account, limit)? {
        true => Ok(()),
        false => Err(CreateError::LimitReached(limit)),
    }
}

pub(super) fn insert(
    conn: &mut Connection,
    account: AccountId,
    new: &NewKey,
    secret: &PlainKey,
    replaces: Option<i64>,
    actor: &Actor,
) -> Result<Key, CreateError> {
    let truncated = secret.truncated();
    let row: KeyRow = diesel::insert_into(api_keys::table)
        .values((
            api_keys::account_id.eq(account.0),
            api_keys::name.eq(new.name.as_ref()),
            api_keys::description.eq(new.description.as_ref()),
            api_keys::hash.eq(secret.hash().as_ref()),
            api_keys::first8.eq(&truncated.first8),
            api_keys::last4.eq(&truncated.last4),
            api_keys::all_domains.eq(new.scope == NewScope::AllDomains),
            RuleColumns::from(&new.rule),
            api_keys::status.eq(ACTIVE),
            api_keys::created_by.eq(actor.user_id),
            api_keys::created_at.eq(clock::now()),
            api_keys::expires_at.eq(new.expiry.instant()),
            api_keys::replaces.eq(replaces),
        ))
        .returning(db::columns::<KeyRow>())
        .get_result(conn)?;
    let mut key = Key::new(row, None);
    if let NewScope::Domains(ids) = &new.scope {
        let domains = restrict(conn, account, key.id, ids)?;
        key.scope = Scope::Domains(domains.ok_or(CreateError::UnknownDomain)?);
    }
    Ok(key)
}
