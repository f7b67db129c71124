//! API keys in the database. This module sees only the hashes of keys.

mod again;
mod columns;
mod creation;
mod end;
mod journal;
mod life;
mod list;
mod lock;
mod nonces;
mod rotation;
mod row;
mod rule_row;
mod whole;

use std::collections::HashMap;

use chrono::{NaiveDateTime, TimeDelta};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;

use self::columns::{EndColumns, PausedColumns, ScopeColumns};
use super::rule::Rule;
use super::scope::{Scope, ScopedDomain};
use super::secret::{KeyHash, Truncated};
pub use super::standing::{End, EndedHow, KeyStatus, Paused, Standing};
use crate::accounts::store::{AccountId, AccountStatus};
use crate::clock;
use crate::db::{self, Connection};
use crate::domains::store::DomainStatus;
use crate::schema::{api_key_domains, api_key_uses, api_keys, sending_domains};

pub(in crate::keys) use columns::TruncatedColumns;

pub use again::{Again, narrow_again_of_any_account, pause_all_of_any_account};
pub use creation::{CreateError, NewKey, create, create_once};
pub use end::{
    delete, end_if_due, find_due_of_any_account, find_quiet_of_any_account,
    forget_ended_of_any_account, has_expired,
};
pub use journal::KeyLine;
pub use life::{Edit, EditError, describe_changes, edit, pause, resume};
pub use list::{count_ended, expiries_before, in_order, list, search};
pub use nonces::{issue_nonce, knows_nonce};
pub use rotation::{RotateError, Rotation, cancel_stop, rotate, stop};
pub(in crate::keys) use rule_row::RuleColumns;
pub use whole::{list_after, remove_some};

/// The maximum number of keys found by the truncated forms in one text.
const MOST_ALIKE: usize = 200;

/// How long a key is shown after its end.
const SHOWN_AFTER_END: TimeDelta = TimeDelta::days(90);

/// A key as pages and the command line show it. There is no field for the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub id: i64,
    pub name: String,
    pub description: String,
    pub truncated: Truncated,
    pub scope: Scope,
    pub rule: Rule,
    pub paused: Option<Paused>,
    /// The user who created it; none if the operator did.
    pub created_by: Option<i64>,
    pub created_at: NaiveDateTime,
    pub expires_at: Option<NaiveDateTime>,
    pub last_use: Option<LastUse>,
    /// When it stops, if it was replaced.
    pub stops_at: Option<NaiveDateTime>,
    /// If it was replaced: how long without a call before it stops by itself.
    pub stops_when_quiet: Option<TimeDelta>,
    /// The key that this one was created to replace.
    pub replaces: Option<i64>,
    pub end: Option<End>,
    /// The predecessor and the successor, while they live.
    pub predecessor: Option<Peer>,
    pub successor: Option<Peer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUse {
    pub at: NaiveDateTime,
    pub address: String,
    pub user_agent: String,
}

/// The other key of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: i64,
    pub created_at: NaiveDateTime,
    pub truncated: Truncated,
    pub last_used_at: Option<NaiveDateTime>,
    pub expires_at: Option<NaiveDateTime>,
    pub stops_at: Option<NaiveDateTime>,
    pub stops_when_quiet: Option<TimeDelta>,
}

impl Peer {
    /// How a key that `successor` replaces ends by itself.
    pub fn next_end(&self, successor: &Key) -> NextEnd {
        NextEnd {
            when_quiet: self.stops_when_quiet.filter(|_| !successor.has_ended()),
            ..NextEnd::first(self.expires_at, self.stops_at)
        }
    }
}

/// How a key ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextEnd {
    pub at: Option<NaiveDateTime>,
    /// Whether it expires then; otherwise it stops, as a replaced key.
    pub is_expiry: bool,
    /// Whether a replaced key has no time set at which it stops.
    pub is_open_ended: bool,
    /// It stops earlier if it has not been used for this long.
    pub when_quiet: Option<TimeDelta>,
}

impl NextEnd {
    fn first(expires_at: Option<NaiveDateTime>, stops_at: Option<NaiveDateTime>) -> Self {
        let at = expires_at.into_iter().chain(stops_at).min();
        Self {
            is_expiry: at.is_some() && at == expires_at,
            is_open_ended: stops_at.is_none(),
            at,
            when_quiet: None,
        }
    }
}

impl Key {
    /// By the clock of this node. `verification::store` decides what callers are told.
    pub fn standing(&self, account: &AccountStatus) -> Standing {
        let can_send = match &self.scope {
            Scope::AllDomains => true,
            Scope::Domains(domains) => domains.iter().any(|domain| domain.is_verified),
        };
        let now = clock::now();
        Standing::of(self.end_by(now), self.paused.clone(), *account, can_send).until(
            now,
            self.expires_at,
            self.stops_at,
        )
    }

    /// How the key has ended by then; an expired key has ended even if that is not recorded yet.
    pub fn end_by(&self, now: NaiveDateTime) -> Option<End> {
        End::by(now, self.end.clone(), self.expires_at, self.stops_at)
    }

    pub fn has_ended(&self) -> bool {
        self.end_by(clock::now()).is_some()
    }

    /// How the key ends by itself, unless it is changed before.
    pub fn next_end(&self) -> NextEnd {
        NextEnd {
            // Without a successor, it is not certain that any program has another key.
            when_quiet: self.successor.as_ref().and(self.stops_when_quiet),
            ..NextEnd::first(self.expires_at, self.stops_at)
        }
    }

    pub fn last_used_at(&self) -> Option<NaiveDateTime> {
        self.last_use.as_ref().map(|last| last.at)
    }

    /// Changes whenever an editable property does: a form that was opened before the change must
    /// not undo it.
    pub fn version(&self) -> String {
        // Only the names of the scope's domains: whether they are verified is not an editable
        // property.
        let scope = self.scope.to_string();
        let edited = (
            &self.name,
            &self.description,
            scope,
            &self.rule,
            self.expires_at,
        );
        let text = format!("{edited:?}");
        crate::token::hash(&text)[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// The result of looking up a key that a request names.
#[derive(Debug)]
pub enum Found {
    Live(Key),
    Ended(Key),
    Nothing,
}

impl Found {
    fn of(key: Option<Key>, now: NaiveDateTime) -> Self {
        let Some(key) = key else {
            return Self::Nothing;
        };
        match key.end_by(now) {
            None => Self::Live(key),
            Some(end) if end.at > now - SHOWN_AFTER_END => Self::Ended(key),
            Some(_) => Self::Nothing,
        }
    }
}

/// The columns of a key. Those that make one value together are spelled in `columns.rs`.
#[derive(Queryable, Selectable)]
#[diesel(table_name = api_keys, check_for_backend(Pg, Sqlite))]
struct KeyRow {
    id: i64,
    name: String,
    description: String,
    #[diesel(embed)]
    truncated: TruncatedColumns,
    #[diesel(embed)]
    scope: ScopeColumns,
    #[diesel(embed)]
    rule: RuleColumns,
    #[diesel(embed)]
    paused: PausedColumns,
    created_by: Option<i64>,
    created_at: NaiveDateTime,
    expires_at: Option<NaiveDateTime>,
    stops_at: Option<NaiveDateTime>,
    stops_when_quiet: Option<i64>,
    replaces: Option<i64>,
    #[diesel(embed)]
    end: EndColumns,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = api_key_uses, check_for_backend(Pg, Sqlite))]
struct UseRow {
    used_at: NaiveDateTime,
    address: String,
    user_agent: String,
}

/// A domain of a key.
#[derive(Queryable, Selectable)]
#[diesel(table_name = sending_domains, check_for_backend(Pg, Sqlite))]
pub(in crate::keys) struct DomainRow {
    id: i64,
    name: String,
    status: String,
}

/// A key, its last use, and one of its domains.
type JoinedRow = (KeyRow, Option<UseRow>, Option<DomainRow>);

/// The hash of a key, or of a key that has ended.
type HashesRow = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

/// Keys, with one row for each of their domains. (SQLite would materialize a nested join
/// completely, for every lookup of one key.)
#[diesel::dsl::auto_type]
pub(in crate::keys) fn keys_with_domains() -> _ {
    api_keys::table
        .left_join(api_key_domains::table)
        .left_join(sending_domains::table.on(sending_domains::id.eq(api_key_domains::domain_id)))
}

/// One key. It is not found any more some time after its end.
pub fn find(conn: &mut Connection, account: AccountId, id: i64) -> db::Result<Found> {
    let key = find_all(conn, account, &[id])?.pop();
    Ok(Found::of(key, db::now(conn)?))
}

/// The keys of the account, live or ended, that have these hashes.
pub fn find_by_hashes(
    conn: &mut Connection,
    account: AccountId,
    hashes: &[KeyHash],
) -> db::Result<HashMap<KeyHash, Key>> {
    let wanted: Vec<&[u8]> = hashes.iter().map(AsRef::as_ref).collect();
    let rows: Vec<HashesRow> = api_keys::table
        .filter(api_keys::account_id.eq(account.0))
        .filter(
            api_keys::hash
                .eq_any(&wanted)
                .or(api_keys::ended_hash.eq_any(&wanted)),
        )
        .select((api_keys::id, api_keys::hash, api_keys::ended_hash))
        .load(conn)?;
    let ids: Vec<i64> = rows.iter().map(|(id, ..)| *id).collect();
    let keys = find_all(conn, account, &ids)?;
    let of = |key: Key| {
        let (_, hash, ended) = rows.iter().find(|(id, ..)| *id == key.id)?;
        let stored = hash.as_deref().or(ended.as_deref())?;
        let hash = hashes.iter().find(|hash| hash.as_ref() == stored)?;
        Some((*hash, key))
    };
    Ok(keys.into_iter().filter_map(of).collect())
}

/// The keys whose truncated form is one of these, live ones first.
pub fn find_by_forms(
    conn: &mut Connection,
    account: AccountId,
    forms: &[&Truncated],
) -> db::Result<Vec<Key>> {
    if forms.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, String, String)> = api_keys::table
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_keys::first8.eq_any(forms.iter().map(|form| &form.first8)))
        .filter(api_keys::last4.eq_any(forms.iter().map(|form| &form.last4)))
        .order(api_keys::id.desc())
        .select((api_keys::id, api_keys::first8, api_keys::last4))
        .load(conn)?;
    let is_wanted = |first8: &str, last4: &str| {
        let mut forms = forms.iter();
        forms.any(|form| form.first8 == first8 && form.last4 == last4)
    };
    let ids: Vec<i64> = rows
        .iter()
        .filter(|(_, first8, last4)| is_wanted(first8, last4))
        .map(|(id, ..)| *id)
        .take(MOST_ALIKE)
        .collect();
    let mut keys = find_all(conn, account, &ids)?;
    let since = clock::now() - SHOWN_AFTER_END;
    keys.retain(|key| key.end.as_ref().is_none_or(|end| end.at > since));
    keys.sort_by_key(|key| key.end.is_some());
    Ok(keys)
}

/// The keys with these ids, newest first.
fn find_all(conn: &mut Connection, account: AccountId, ids: &[i64]) -> db::Result<Vec<Key>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut keys: Vec<Key> = Vec::new();
    // SQLite limits a statement to some thousand values.
    for ids in ids.chunks(1_000) {
        let rows: Vec<JoinedRow> = keys_with_domains()
            .left_join(api_key_uses::table)
            .filter(api_keys::account_id.eq(account.0))
            .filter(api_keys::id.eq_any(ids))
            .order((api_keys::id.desc(), sending_domains::name.asc()))
            .select(JoinedRow::as_select())
            .load(conn)?;
        gather(&mut keys, rows);
    }
    for keys in keys.chunks_mut(1_000) {
        attach_peers(conn, account, keys)?;
    }
    Ok(keys)
}

/// Combines the rows of a join: one key may have several domains.
fn gather(keys: &mut Vec<Key>, rows: Vec<JoinedRow>) {
    for (row, last_use, domain) in rows {
        if keys.last().is_none_or(|key| key.id != row.id) {
            keys.push(Key::new(row, last_use));
        }
        if let (Some(key), Some(domain)) = (keys.last_mut(), domain)
            && let Scope::Domains(domains) = &mut key.scope
        {
            domains.push(domain.into());
        }
    }
}

impl Key {
    fn new(row: KeyRow, last_use: Option<UseRow>) -> Self {
        Self {
            id: row.id,
            name: row.name,
            description: row.description,
            truncated: row.truncated.into(),
            scope: row.scope.into(),
            rule: row.rule.into(),
            paused: row.paused.into(),
            created_by: row.created_by,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_use: last_use.map(LastUse::from),
            stops_at: row.stops_at,
            stops_when_quiet: row.stops_when_quiet.map(TimeDelta::seconds),
            replaces: row.replaces,
            end: row.end.into(),
            predecessor: None,
            successor: None,
        }
    }
}

impl From<UseRow> for LastUse {
    fn from(row: UseRow) -> Self {
        Self {
            at: row.used_at,
            address: row.address,
            user_agent: row.user_agent,
        }
    }
}

impl From<DomainRow> for ScopedDomain {
    fn from(row: DomainRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            is_verified: DomainStatus::from_column(&row.status).is_verified(),
        }
    }
}

/// Adds predecessor and successor to these keys, in at most two queries.
fn attach_peers(conn: &mut Connection, account: AccountId, keys: &mut [Key]) -> db::Result<()> {
    let ids: Vec<i64> = keys.iter().map(|key| key.id).collect();
    let replaced: Vec<i64> = keys.iter().filter_map(|key| key.replaces).collect();
    // Two statements: with "or" in one, SQLite would read all keys of the account.
    let mut rows: Vec<PeerRow> = live_peers(account)
        .filter(api_keys::replaces.eq_any(ids))
        .select(PeerRow::as_select())
        .load(conn)?;
    if !replaced.is_empty() {
        let predecessors = live_peers(account).filter(api_keys::id.eq_any(replaced));
        rows.extend(predecessors.select(PeerRow::as_select()).load(conn)?);
    }
    for row in rows {
        let (id, replaces) = (row.id, row.replaces);
        let peer = Peer::from(row);
        for key in keys.iter_mut() {
            if key.replaces == Some(id) {
                key.predecessor = Some(peer.clone());
            }
            if replaces == Some(key.id) {
                key.successor = Some(peer.clone());
            }
        }
    }
    Ok(())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = api_keys, check_for_backend(Pg, Sqlite))]
struct PeerRow {
    id: i64,
    replaces: Option<i64>,
    #[diesel(embed)]
    truncated: TruncatedColumns,
    created_at: NaiveDateTime,
    expires_at: Option<NaiveDateTime>,
    stops_at: Option<NaiveDateTime>,
    stops_when_quiet: Option<i64>,
    #[diesel(select_expression = api_key_uses::used_at.nullable())]
    last_used_at: Option<NaiveDateTime>,
}

impl From<PeerRow> for Peer {
    fn from(row: PeerRow) -> Self {
        Self {
            id: row.id,
            created_at: row.created_at,
            truncated: row.truncated.into(),
            last_used_at: row.last_used_at,
            expires_at: row.expires_at,
            stops_at: row.stops_at,
            stops_when_quiet: row.stops_when_quiet.map(TimeDelta::seconds),
        }
    }
}

#[diesel::dsl::auto_type]
fn live_peers(account: AccountId) -> _ {
    // The account column is written as a sum, because SQLite would otherwise use the index on it
    // instead of the one on the ids being looked up.
    let id: i64 = account.0;
    let of_account = (api_keys::account_id + 0_i64).eq(id);
    api_keys::table
        .left_join(api_key_uses::table)
        .filter(of_account)
        .filter(api_keys::ended_at.is_null())
}
