//! The lists of an account's keys.

use std::collections::{HashMap, HashSet};

use chrono::NaiveDateTime;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;

use super::columns::{EndColumns, PausedColumns, TruncatedColumns};
use super::{DomainRow, End, Key, KeyStatus, SHOWN_AFTER_END, Standing, find_all};
use crate::accounts::store::{AccountId, AccountStatus};
use crate::clock;
use crate::db::{self, Connection};
use crate::keys::advice::{Advice, OLD};
use crate::keys::scope::ScopedDomain;
use crate::keys::secret::Truncated;
use crate::keys::view::{Column, DomainFilter, StatusFilter, View, Which};
use crate::schema::{api_key_domains, api_key_uses, api_keys, sending_domains};

/// All keys of a kind, the latest first, in a fixed number of queries.
pub fn list(
    conn: &mut Connection,
    account: AccountId,
    which: Which,
    limit: i64,
    offset: i64,
) -> db::Result<Vec<Key>> {
    let of_account = api_keys::table.filter(api_keys::account_id.eq(account.0));
    let ids: Vec<i64> = match which {
        Which::Live => of_account
            .filter(api_keys::ended_at.is_null())
            .order(api_keys::id.desc())
            .limit(limit)
            .offset(offset)
            .select(api_keys::id)
            .load(conn)?,
        Which::Ended => of_account
            .filter(api_keys::ended_at.gt(clock::now() - SHOWN_AFTER_END))
            .order((api_keys::ended_at.desc(), api_keys::id.desc()))
            .limit(limit)
            .offset(offset)
            .select(api_keys::id)
            .load(conn)?,
    };
    Ok(beside_their_successors(in_order(conn, account, &ids)?))
}

/// How many keys have ended in the last 90 days.
pub fn count_ended(conn: &mut Connection, account: AccountId) -> db::Result<i64> {
    Ok(api_keys::table
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_keys::ended_at.gt(clock::now() - SHOWN_AFTER_END))
        .count()
        .get_result(conn)?)
}

/// When the live keys of the account that expire before this time do, the first one first.
pub fn expiries_before(
    conn: &mut Connection,
    account: AccountId,
    before: NaiveDateTime,
) -> db::Result<Vec<NaiveDateTime>> {
    let expiries: Vec<Option<NaiveDateTime>> = api_keys::table
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_keys::ended_at.is_null())
        .filter(api_keys::expires_at.le(before))
        .order(api_keys::expires_at)
        .select(api_keys::expires_at)
        .load(conn)?;
    Ok(expiries.into_iter().flatten().collect())
}

/// The keys with these ids, in the same order.
pub fn in_order(conn: &mut Connection, account: AccountId, ids: &[i64]) -> db::Result<Vec<Key>> {
    let mut keys = find_all(conn, account, ids)?;
    let place: HashMap<i64, usize> = ids.iter().copied().zip(0..).collect();
    keys.sort_by_key(|key| place.get(&key.id).copied());
    Ok(keys)
}

/// Puts a key that is being replaced below its successor, if both are in the list.
fn beside_their_successors(keys: Vec<Key>) -> Vec<Key> {
    let ids: HashSet<i64> = keys.iter().map(|key| key.id).collect();
    let mut replaced: HashMap<i64, Key> = HashMap::new();
    let mut ordered = Vec::with_capacity(keys.len());
    for key in keys {
        match &key.successor {
            Some(successor) if ids.contains(&successor.id) => drop(replaced.insert(key.id, key)),
            _ => ordered.push(key),
        }
    }
    let mut together = Vec::with_capacity(ids.len());
    for key in ordered {
        let mut older = key.predecessor.as_ref().map(|peer| peer.id);
        together.push(key);
        while let Some(key) = older.and_then(|id| replaced.remove(&id)) {
            older = key.predecessor.as_ref().map(|peer| peer.id);
            together.push(key);
        }
    }
    // Keys that ended during the read.
    together.extend(replaced.into_values());
    together
}

/// What filters and sorts keys: less than a whole key, because all keys of an account are read.
#[derive(Queryable, Selectable)]
#[diesel(table_name = api_keys, check_for_backend(Pg, Sqlite))]
struct Candidate {
    id: i64,
    name: String,
    description: String,
    #[diesel(embed)]
    truncated: TruncatedColumns,
    all_domains: bool,
    #[diesel(embed)]
    paused: PausedColumns,
    created_at: NaiveDateTime,
    expires_at: Option<NaiveDateTime>,
    stops_at: Option<NaiveDateTime>,
    #[diesel(embed)]
    end: EndColumns,
    #[diesel(select_expression = api_key_uses::used_at.nullable())]
    used_at: Option<NaiveDateTime>,
}

impl Candidate {
    fn status(&self, account: AccountStatus, can_send: bool, now: NaiveDateTime) -> KeyStatus {
        let end = End::by(now, self.end.clone().into(), self.expires_at, self.stops_at);
        Standing::of(end, self.paused.clone().into(), account, can_send)
            .until(now, self.expires_at, self.stops_at)
            .status()
    }
}

/// The ids of the keys in a view, in its order. Text is compared here and not in SQL, so that both
/// databases give the same result.
pub fn search(
    conn: &mut Connection,
    account: AccountId,
    status: AccountStatus,
    view: &View,
) -> db::Result<Vec<i64>> {
    let now = clock::now();
    let mut found = candidates(conn, account, view.which, now)?;
    if !view.search.is_empty() {
        found.retain(|key| {
            let truncated = Truncated::from(key.truncated.clone());
            view.finds([&key.name, &key.description, &truncated.to_string()])
        });
    }
    if view.status.is_some() || view.domain.is_some() {
        let scopes = scopes(conn, account)?;
        let opens = |key: &Candidate, is_it: &dyn Fn(&ScopedDomain) -> bool| {
            scopes
                .get(&key.id)
                .is_some_and(|of_key| of_key.iter().any(is_it))
        };
        let can_send = |key: &Candidate| key.all_domains || opens(key, &|d| d.is_verified);
        found.retain(|key| match view.status {
            None => true,
            Some(StatusFilter::Of(wanted)) => wanted == key.status(status, can_send(key), now),
            Some(StatusFilter::Unused) => {
                Advice::on(key.created_at, key.used_at, now) == Some(Advice::Unused)
            }
            Some(StatusFilter::Old) => key.created_at <= now - OLD,
        });
        found.retain(|key| match view.domain {
            None => true,
            Some(DomainFilter::AllDomains) => key.all_domains,
            Some(DomainFilter::One(id)) => opens(key, &|domain| domain.id == id),
        });
    }
    match view.sort.by {
        Column::Name => found.sort_by_cached_key(|key| (key.name.to_lowercase(), key.id)),
        Column::Created => found.sort_by_key(|key| key.id),
        Column::LastUsed => found.sort_by_key(|key| (key.used_at, key.id)),
        Column::Ended => found.sort_by_key(|key| (key.end.ended_at, key.id)),
    }
    if view.sort.is_descending {
        found.reverse();
    }
    Ok(found.into_iter().map(|key| key.id).collect())
}

fn candidates(
    conn: &mut Connection,
    account: AccountId,
    which: Which,
    now: NaiveDateTime,
) -> db::Result<Vec<Candidate>> {
    let all = api_keys::table
        .left_join(api_key_uses::table)
        .filter(api_keys::account_id.eq(account.0))
        .select(Candidate::as_select());
    Ok(match which {
        Which::Live => all.filter(api_keys::ended_at.is_null()).load(conn)?,
        Which::Ended => all
            .filter(api_keys::ended_at.gt(now - SHOWN_AFTER_END))
            .load(conn)?,
    })
}

/// The domains of all restricted keys of an account.
fn scopes(
    conn: &mut Connection,
    account: AccountId,
) -> db::Result<HashMap<i64, Vec<ScopedDomain>>> {
    let rows: Vec<(i64, DomainRow)> = api_key_domains::table
        .inner_join(sending_domains::table)
        .filter(sending_domains::account_id.eq(account.0))
        .select((api_key_domains::api_key_id, DomainRow::as_select()))
        .load(conn)?;
    let mut scopes: HashMap<i64, Vec<ScopedDomain>> = HashMap::new();
    for (key_id, domain) in rows {
        scopes.entry(key_id).or_default().push(domain.into());
    }
    Ok(scopes)
}
