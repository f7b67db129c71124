//! Which keys work at this moment: the query behind every request.

use std::collections::HashMap;

use chrono::NaiveDateTime;
use diesel::Connection as _;
use diesel::dsl;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;

use crate::accounts::store::{AccountId, AccountStatus};
use crate::clock;
use crate::db::{self, Connection, timezone};
use crate::keys::rule::Rule;
use crate::keys::scope::{Scope, ScopedDomain};
use crate::keys::secret::{KeyHash, Truncated};
use crate::keys::standing::ACTIVE;
use crate::keys::store::{DomainRow, RuleColumns, TruncatedColumns, keys_with_domains};
use crate::schema::{accounts, api_keys};

/// A key that works at this moment, with everything a verdict needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveKey {
    pub id: i64,
    pub account: AccountId,
    pub name: String,
    pub truncated: Truncated,
    pub scope: Scope,
    pub rule: Rule,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = api_keys, check_for_backend(Pg, Sqlite))]
struct LiveColumns {
    id: i64,
    account_id: i64,
    name: String,
    #[diesel(embed)]
    truncated: TruncatedColumns,
    all_domains: bool,
    #[diesel(embed)]
    rule: RuleColumns,
}

/// A key and one of its domains.
type LiveRow = (LiveColumns, Option<DomainRow>);

/// Keys that work unless they have expired: active, and of an active account.
#[diesel::dsl::auto_type]
fn live_keys() -> _ {
    let active: &'static str = ACTIVE;
    let account_active: &'static str = AccountStatus::Active.as_str();
    keys_with_domains()
        .inner_join(accounts::table)
        .filter(api_keys::ended_at.is_null())
        .filter(api_keys::status.eq(active))
        .filter(accounts::status.eq(account_active))
}

/// Keys that have not expired by PostgreSQL's clock, which all nodes share. The clock is read when
/// the statement starts.
#[diesel::dsl::auto_type]
fn last_by_its_clock() -> _ {
    let utc: &'static str = "UTC";
    let expires = api_keys::expires_at.gt(timezone(utc, dsl::now).nullable());
    let stops = api_keys::stops_at.gt(timezone(utc, dsl::now).nullable());
    (api_keys::expires_at.is_null().or(expires)).and(api_keys::stops_at.is_null().or(stops))
}

/// The holders of the keys with these distinct hashes: one answer per hash, in the same order, all
/// from one consistent snapshot taken during the call. SQLite uses point lookups in one
/// transaction; PostgreSQL one statement, because each is a round trip.
pub fn find_live_by_hashes_of_any_account(
    conn: &mut Connection,
    hashes: &[KeyHash],
) -> db::Result<Vec<Option<LiveKey>>> {
    match conn {
        Connection::Sqlite(conn) => {
            let find = |conn: &mut SqliteConnection| {
                let now = clock::now();
                let found = hashes.iter();
                let found = found.map(|hash| find_live_by_hash_of_any_account(conn, hash, now));
                found.collect()
            };
            // A single statement is its own transaction; BEGIN and COMMIT would double the cost.
            match hashes {
                [_] => find(conn),
                _ => conn.transaction(find),
            }
        }
        Connection::Postgres(conn) => {
            let wanted: Vec<&[u8]> = hashes.iter().map(AsRef::as_ref).collect();
            let rows: Vec<(Option<Vec<u8>>, LiveRow)> = live_keys()
                .filter(api_keys::hash.eq_any(wanted))
                .filter(last_by_its_clock())
                .select((api_keys::hash, LiveRow::as_select()))
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

/// By this node's clock, because SQLite has none of its own. Compared here, because instants passed
/// as values of the statement would be formatted again for every lookup.
fn find_live_by_hash_of_any_account(
    conn: &mut SqliteConnection,
    hash: &KeyHash,
    now: NaiveDateTime,
) -> db::Result<Option<LiveKey>> {
    type Ends = (Option<NaiveDateTime>, Option<NaiveDateTime>);
    let rows: Vec<(Ends, LiveRow)> = live_keys()
        .filter(api_keys::hash.eq(hash.as_ref()))
        .select((
            (api_keys::expires_at, api_keys::stops_at),
            LiveRow::as_select(),
        ))
        .load(conn)?;
    let is_over = |((expires_at, stops_at), _): &(Ends, LiveRow)| {
        let mut ends = expires_at.iter().chain(stops_at);
        ends.any(|end| *end <= now)
    };
    Ok(match rows.iter().any(is_over) {
        true => None,
        false => live_key(rows.into_iter().map(|(_, row)| row).collect()),
    })
}

/// Combines the rows of one key: one for each of its domains, or one without a domain.
fn live_key(rows: Vec<LiveRow>) -> Option<LiveKey> {
    let (keys, domains): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let key = keys.into_iter().next()?;
    let domains = domains.into_iter().flatten();
    let mut domains: Vec<ScopedDomain> = domains.map(ScopedDomain::from).collect();
    domains.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Some(LiveKey {
        id: key.id,
        account: AccountId(key.account_id),
        name: key.name,
        truncated: key.truncated.into(),
        scope: Scope::from_rows(key.all_domains, domains),
        rule: key.rule.into(),
    })
}
