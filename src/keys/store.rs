//! API keys in the database. Only hashes of keys come here.

use std::collections::HashMap;

use chrono::{NaiveDateTime, TimeDelta};
use diesel::Connection as _;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::upsert::excluded;

use super::name::KeyName;
use super::scope::{NewScope, Scope, ScopedDomain};
use super::secret::{KeyHash, PlainKey, Truncated};
use super::usage::Use;
use crate::accounts::store::{self as accounts_store, AccountId, AccountStatus};
use crate::clock;
use crate::db::{self, Connection, is_foreign_key_violation};
use crate::domains::store::DomainStatus;
use crate::schema::{
    accounts, api_key_domains, api_key_uses, api_keys, form_nonces, sending_domains,
};

/// How long a form can be sent after it was opened.
const NONCE_LIFETIME: TimeDelta = TimeDelta::hours(24);

/// A key that is not deleted, as lists show it. There is no field for the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub id: i64,
    pub name: String,
    pub truncated: Truncated,
    pub scope: Scope,
    pub status: KeyStatus,
    pub created_at: NaiveDateTime,
    pub last_used_at: Option<NaiveDateTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    Active,
    Paused,
}

impl KeyStatus {
    /// As the column and the command line spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
        }
    }

    /// As a page says it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Paused => "Inactive",
        }
    }

    pub fn is_active(self) -> bool {
        self == Self::Active
    }

    fn from_column(text: &str) -> Self {
        match text {
            "active" => Self::Active,
            _ => Self::Paused,
        }
    }
}

/// A key that works right now, with all that a verdict needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveKey {
    pub id: i64,
    pub account: AccountId,
    pub name: String,
    pub truncated: Truncated,
    pub scope: Scope,
}

impl LiveKey {
    pub fn allows(&self, domain_id: i64) -> bool {
        self.scope.allows(domain_id)
    }
}

/// What a new key is to be, checked.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub name: KeyName,
    pub scope: NewScope,
    pub created_by: Option<i64>,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("the account is paused")]
    AccountPaused,
    #[error("the account has {0} keys, which is its limit")]
    LimitReached(i64),
    #[error("the account has no such domain")]
    UnknownDomain,
    /// The form was sent before; `None` if that key has been deleted since.
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

/// What became of a key that a request names.
#[derive(Debug)]
pub enum Found {
    Live(Key),
    Deleted,
    Nothing,
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
    user_id: i64,
) -> Result<Key, CreateError> {
    let now = clock::now();
    let form = form_nonces::table
        .filter(form_nonces::nonce_hash.eq(&nonce_hash[..]))
        .filter(form_nonces::user_id.eq(user_id))
        .filter(form_nonces::created_at.gt(now - NONCE_LIFETIME));
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
    let key = create(conn, account, new, secret, limit)?;
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
) -> Result<Key, CreateError> {
    if !accounts_store::count_key(conn, account, limit)? {
        return Err(match accounts_store::find(conn, account)?.status {
            AccountStatus::Paused => CreateError::AccountPaused,
            AccountStatus::Active => CreateError::LimitReached(limit),
        });
    }
    let truncated = secret.truncated();
    let created_at = clock::now();
    let id: i64 = diesel::insert_into(api_keys::table)
        .values((
            api_keys::account_id.eq(account.0),
            api_keys::name.eq(new.name.as_ref()),
            api_keys::hash.eq(secret.hash().as_ref()),
            api_keys::first8.eq(&truncated.first8),
            api_keys::last4.eq(&truncated.last4),
            api_keys::all_domains.eq(new.scope == NewScope::AllDomains),
            api_keys::status.eq(KeyStatus::Active.as_str()),
            api_keys::created_by.eq(new.created_by),
            api_keys::created_at.eq(created_at),
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
        truncated,
        scope,
        status: KeyStatus::Active,
        created_at,
        last_used_at: None,
    })
}

/// Restricts a new key to domains of its own account.
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
    Ok(domains)
}

type KeyRow = (
    (i64, String, String, String, bool, String, NaiveDateTime),
    Option<NaiveDateTime>,
);
type DomainRow = (Option<i64>, Option<String>, Option<String>);

#[diesel::dsl::auto_type]
fn key_columns() -> _ {
    (
        (
            api_keys::id,
            api_keys::name,
            api_keys::first8,
            api_keys::last4,
            api_keys::all_domains,
            api_keys::status,
            api_keys::created_at,
        ),
        api_key_uses::used_at.nullable(),
    )
}

/// Keys, a row for each of their domains. (SQLite would put a nested join together as a whole, for
/// every lookup of one key.)
#[diesel::dsl::auto_type]
fn keys_with_domains() -> _ {
    api_keys::table
        .left_join(api_key_domains::table)
        .left_join(sending_domains::table.on(sending_domains::id.eq(api_key_domains::domain_id)))
}

/// Of the domain beside a key, if there is one.
#[diesel::dsl::auto_type]
fn domain_columns() -> _ {
    (
        sending_domains::id.nullable(),
        sending_domains::name.nullable(),
        sending_domains::status.nullable(),
    )
}

/// One page of live keys, newest first, in one query however many there are.
pub fn list(
    conn: &mut Connection,
    account: AccountId,
    limit: i64,
    offset: i64,
) -> db::Result<Vec<Key>> {
    let page = diesel::alias!(api_keys as page_of_keys);
    let ids = page
        .filter(page.field(api_keys::account_id).eq(account.0))
        .filter(page.field(api_keys::deleted_at).is_null())
        .order(page.field(api_keys::id).desc())
        .limit(limit)
        .offset(offset)
        .select(page.field(api_keys::id));
    let rows: Vec<(KeyRow, DomainRow)> = keys_with_domains()
        .left_join(api_key_uses::table)
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_keys::id.eq_any(ids))
        .order((api_keys::id.desc(), sending_domains::name.asc()))
        .select((key_columns(), domain_columns()))
        .load(conn)?;
    Ok(gather(rows))
}

pub fn find(conn: &mut Connection, account: AccountId, id: i64) -> db::Result<Found> {
    let rows: Vec<((KeyRow, Option<NaiveDateTime>), DomainRow)> = keys_with_domains()
        .left_join(api_key_uses::table)
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_keys::id.eq(id))
        .order(sending_domains::name.asc())
        .select(((key_columns(), api_keys::deleted_at), domain_columns()))
        .load(conn)?;
    let is_deleted = rows.iter().any(|((_, deleted_at), _)| deleted_at.is_some());
    let rows = rows.into_iter().map(|((key, _), domain)| (key, domain));
    Ok(match gather(rows.collect()).pop() {
        Some(_) if is_deleted => Found::Deleted,
        Some(key) => Found::Live(key),
        None => Found::Nothing,
    })
}

/// Puts the rows of a join together: one key may have several domains.
fn gather(rows: Vec<(KeyRow, DomainRow)>) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    for ((key, last_used_at), domain) in rows {
        let (id, name, first8, last4, all_domains, status, created_at) = key;
        if keys.last().is_none_or(|key| key.id != id) {
            keys.push(Key {
                id,
                name,
                truncated: Truncated { first8, last4 },
                scope: Scope::from_rows(all_domains, Vec::new()),
                status: KeyStatus::from_column(&status),
                created_at,
                last_used_at,
            });
        }
        if let (Some(key), Some(domain)) = (keys.last_mut(), scoped_domain(domain))
            && let Scope::Domains(domains) = &mut key.scope
        {
            domains.push(domain);
        }
    }
    keys
}

fn scoped_domain(row: DomainRow) -> Option<ScopedDomain> {
    let (Some(id), Some(name), Some(status)) = row else {
        return None;
    };
    Some(scoped(id, name, &status))
}

fn scoped(id: i64, name: String, status: &str) -> ScopedDomain {
    ScopedDomain {
        id,
        name,
        is_verified: DomainStatus::from_column(status).is_verified(),
    }
}

type LiveRow = ((i64, i64, String, String, String, bool), DomainRow);

/// Keys that work right now: active, and of an active account.
#[diesel::dsl::auto_type]
fn live_keys() -> _ {
    let active: &'static str = KeyStatus::Active.as_str();
    let account_active: &'static str = AccountStatus::Active.as_str();
    keys_with_domains()
        .inner_join(accounts::table)
        .filter(api_keys::deleted_at.is_null())
        .filter(api_keys::status.eq(active))
        .filter(accounts::status.eq(account_active))
}

#[diesel::dsl::auto_type]
fn live_columns() -> _ {
    (
        (
            api_keys::id,
            api_keys::account_id,
            api_keys::name,
            api_keys::first8,
            api_keys::last4,
            api_keys::all_domains,
        ),
        domain_columns(),
    )
}

/// Who holds the keys with these hashes, no two of which are equal: an answer for each, in their
/// order, all as of one moment during the call. Point lookups in one transaction on SQLite; one
/// statement on PostgreSQL, where each is a round trip.
pub fn find_live_by_hashes_of_any_account(
    conn: &mut Connection,
    hashes: &[KeyHash],
) -> db::Result<Vec<Option<LiveKey>>> {
    match conn {
        Connection::Sqlite(conn) => {
            let find = |conn: &mut SqliteConnection| {
                let found = hashes.iter();
                let found = found.map(|hash| find_live_by_hash_of_any_account(conn, hash));
                found.collect()
            };
            // One statement is a transaction of its own; BEGIN and COMMIT cost as much again.
            match hashes {
                [_] => find(conn),
                _ => conn.transaction(find),
            }
        }
        Connection::Postgres(conn) => {
            let wanted: Vec<&[u8]> = hashes.iter().map(AsRef::as_ref).collect();
            let rows: Vec<(Option<Vec<u8>>, LiveRow)> = live_keys()
                .filter(api_keys::hash.eq_any(wanted))
                .select((api_keys::hash, live_columns()))
                .load(conn)?;
            let mut found: HashMap<Vec<u8>, Vec<LiveRow>> = HashMap::new();
            for (hash, row) in rows {
                found.entry(hash.unwrap_or_default()).or_default().push(row);
            }
            Ok(hashes
                .iter()
                .map(|hash| found.remove(hash.as_ref()).and_then(live_key))
                .collect())
        }
    }
}

fn find_live_by_hash_of_any_account(
    conn: &mut SqliteConnection,
    hash: &KeyHash,
) -> db::Result<Option<LiveKey>> {
    let rows: Vec<LiveRow> = live_keys()
        .filter(api_keys::hash.eq(hash.as_ref()))
        .select(live_columns())
        .load(conn)?;
    Ok(live_key(rows))
}

/// Puts the rows of one key together: one for each of its domains, or one without.
fn live_key(rows: Vec<LiveRow>) -> Option<LiveKey> {
    let (keys, domains): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let (id, account_id, name, first8, last4, all_domains) = keys.into_iter().next()?;
    let mut domains: Vec<ScopedDomain> = domains.into_iter().filter_map(scoped_domain).collect();
    domains.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Some(LiveKey {
        id,
        account: AccountId(account_id),
        name,
        truncated: Truncated { first8, last4 },
        scope: Scope::from_rows(all_domains, domains),
    })
}

#[derive(Insertable)]
#[diesel(table_name = api_key_uses)]
struct UseRow<'a> {
    api_key_id: i64,
    used_at: NaiveDateTime,
    address: String,
    user_agent: &'a str,
}

impl<'a> From<&'a (i64, Use)> for UseRow<'a> {
    fn from((key_id, latest): &'a (i64, Use)) -> Self {
        Self {
            api_key_id: *key_id,
            used_at: latest.at,
            address: latest.address.to_string(),
            user_agent: &latest.user_agent,
        }
    }
}

/// Remembers uses of keys, each unless a later one is known already.
pub fn record_uses_of_any_account(conn: &mut Connection, uses: &[(i64, Use)]) -> db::Result<()> {
    match conn {
        // Many in one statement: each statement is a round trip.
        Connection::Postgres(conn) => {
            use diesel::query_dsl::methods::FilterDsl;

            // A crash may lose them, and nobody waits for the disk or for a standby.
            conn.batch_execute("SET LOCAL synchronous_commit = off")?;
            for uses in uses.chunks(1_000) {
                diesel::insert_into(api_key_uses::table)
                    .values(uses.iter().map(UseRow::from).collect::<Vec<_>>())
                    .on_conflict(api_key_uses::api_key_id)
                    .do_update()
                    .set((
                        api_key_uses::used_at.eq(excluded(api_key_uses::used_at)),
                        api_key_uses::address.eq(excluded(api_key_uses::address)),
                        api_key_uses::user_agent.eq(excluded(api_key_uses::user_agent)),
                    ))
                    .filter(api_key_uses::used_at.lt(excluded(api_key_uses::used_at)))
                    .execute(conn)?;
            }
        }
        // Two statements that Diesel keeps prepared, which it does with none that says ON CONFLICT.
        Connection::Sqlite(conn) => {
            for latest in uses {
                let known: Vec<NaiveDateTime> = api_key_uses::table
                    .filter(api_key_uses::api_key_id.eq(latest.0))
                    .select(api_key_uses::used_at)
                    .load(conn)?;
                if known.first().is_none_or(|known| *known < latest.1.at) {
                    diesel::replace_into(api_key_uses::table)
                        .values(UseRow::from(latest))
                        .execute(conn)?;
                }
            }
        }
    }
    Ok(())
}

/// Pauses or resumes. Returns whether there is such a live key.
pub fn set_status(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    status: KeyStatus,
) -> db::Result<bool> {
    let updated = diesel::update(api_keys::table)
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_keys::id.eq(id))
        .filter(api_keys::deleted_at.is_null())
        .set(api_keys::status.eq(status.as_str()))
        .execute(conn)?;
    Ok(updated == 1)
}

/// Deletes a key: its hash is gone for good, its row stays for the history with its domains as
/// text. Returns what there was.
pub fn delete(conn: &mut Connection, account: AccountId, id: i64) -> db::Result<Found> {
    let found = find(conn, account, id)?;
    let Found::Live(key) = &found else {
        return Ok(found);
    };
    let domain_names = match &key.scope {
        Scope::AllDomains => None,
        Scope::Domains(_) => Some(key.scope.to_string()),
    };
    let deleted = diesel::update(api_keys::table)
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_keys::id.eq(id))
        .filter(api_keys::deleted_at.is_null())
        .set((
            api_keys::hash.eq(None::<Vec<u8>>),
            api_keys::deleted_at.eq(clock::now()),
            api_keys::deleted_domain_names.eq(domain_names),
        ))
        .execute(conn)?;
    if deleted == 0 {
        return Ok(Found::Deleted);
    }
    diesel::delete(api_key_domains::table.filter(api_key_domains::api_key_id.eq(id)))
        .execute(conn)?;
    accounts_store::uncount_key(conn, account)?;
    Ok(found)
}

/// Whether a form with this nonce was shown to the user and can still be sent, or was.
pub fn knows_nonce(conn: &mut Connection, user_id: i64, nonce_hash: &[u8; 32]) -> db::Result<bool> {
    let known: Option<i64> = form_nonces::table
        .filter(form_nonces::nonce_hash.eq(&nonce_hash[..]))
        .filter(form_nonces::user_id.eq(user_id))
        .filter(form_nonces::created_at.gt(clock::now() - NONCE_LIFETIME))
        .select(form_nonces::user_id)
        .first(conn)
        .optional()?;
    Ok(known.is_some())
}

/// Remembers a form that is about to be shown; forgets those that are too old to be sent.
pub fn issue_nonce(conn: &mut Connection, user_id: i64, nonce_hash: &[u8; 32]) -> db::Result<()> {
    let now = clock::now();
    diesel::delete(form_nonces::table.filter(form_nonces::created_at.lt(now - NONCE_LIFETIME)))
        .execute(conn)?;
    diesel::insert_into(form_nonces::table)
        .values((
            form_nonces::nonce_hash.eq(&nonce_hash[..]),
            form_nonces::user_id.eq(user_id),
            form_nonces::created_at.eq(now),
        ))
        .execute(conn)?;
    Ok(())
}
