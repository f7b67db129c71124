//! Which keys work at this moment: the query behind every request.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::NaiveDateTime;
use diesel::Connection as _;
use diesel::dsl;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;

use crate::accounts::store::{AccountId, AccountStatus};
use crate::clock;
use crate::db::journal::{self, Belonging};
use crate::db::verdict_changes::{self, Position};
use crate::db::{self, Connection, timezone};
use crate::keys::rule::Rule;
use crate::keys::scope::{Scope, ScopedDomain};
use crate::keys::secret::{KeyHash, Truncated};
use crate::keys::standing::ACTIVE;
use crate::keys::store::{DomainRow, RuleColumns, TruncatedColumns, keys_with_domains};
use crate::schema::verdict_changes as verdict_changes_table;
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

/// Compared outside the statement: instants passed as its values would be formatted again for every lookup
/// on SQLite.
#[derive(Queryable, Selectable)]
#[diesel(table_name = api_keys, check_for_backend(Pg, Sqlite))]
struct Ends {
    expires_at: Option<NaiveDateTime>,
    stops_at: Option<NaiveDateTime>,
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

/// A key that works until it ends by itself.
#[derive(Debug, Clone)]
pub struct Found {
    pub key: Arc<LiveKey>,
    /// When it expires or stops, whichever comes first.
    pub ends_at: Option<NaiveDateTime>,
}

impl Found {
    pub fn has_ended_by(&self, now: NaiveDateTime) -> bool {
        self.ends_at.is_some_and(|end| end <= now)
    }
}

/// What was found, with its moment.
#[derive(Debug)]
pub struct Looked {
    /// One for each hash, in the same order. Some may have ended by themselves.
    pub found: Vec<Option<Found>>,
    /// By the clock that decides when keys end: PostgreSQL's, which all nodes share and which is read
    /// when the statement starts, or this machine's with SQLite, which has none of its own.
    pub now: NaiveDateTime,
    /// The last change that is part of what was found; `None`: not known, or no key was found.
    pub position: Option<Position>,
    /// Which journal of ends belongs to the database, as of the same moment; likewise.
    pub journal: Option<Belonging>,
}

impl Looked {
    /// The keys that work now.
    pub fn answers(self) -> Vec<Option<Arc<LiveKey>>> {
        let now = self.now;
        let works = |found: &Found| !found.has_ended_by(now);
        let found = self.found.into_iter();
        found
            .map(|found| found.filter(works).map(|found| found.key))
            .collect()
    }
}

/// The holders of the keys with these distinct hashes, all from one consistent snapshot taken during the
/// call. SQLite uses point lookups in one transaction; PostgreSQL one statement, because each is a round
/// trip.
pub fn look_up_of_any_account(conn: &mut Connection, hashes: &[KeyHash]) -> db::Result<Looked> {
    match conn {
        Connection::Sqlite(_) => look_up_on_sqlite(conn, hashes),
        Connection::Postgres(conn) => look_up_on_postgres(conn, hashes),
    }
}

fn look_up_on_sqlite(conn: &mut Connection, hashes: &[KeyHash]) -> db::Result<Looked> {
    let now = clock::now();
    conn.transaction(|conn| {
        let found = hashes.iter().map(|hash| find_on_sqlite(conn, hash));
        let found = found.collect::<db::Result<Vec<_>>>()?;
        let (position, journal) = match found.iter().any(Option::is_some) {
            true => (
                verdict_changes::newest(conn)?.map(|newest| newest.position),
                journal::find_now(conn)?,
            ),
            false => (None, None),
        };
        Ok(Looked {
            found,
            now,
            position,
            journal,
        })
    })
}

fn find_on_sqlite(conn: &mut Connection, hash: &KeyHash) -> db::Result<Option<Found>> {
    let Connection::Sqlite(conn) = conn else {
        return Ok(None);
    };
    let rows = live_keys()
        .filter(api_keys::hash.eq(hash.as_ref()))
        .select(<(Ends, LiveRow)>::as_select())
        .load(conn)?;
    Ok(found(rows))
}

fn look_up_on_postgres(conn: &mut PgConnection, hashes: &[KeyHash]) -> db::Result<Looked> {
    type Newest = (Option<i64>, Option<Vec<u8>>);
    type OfJournal = (Option<String>, Option<i64>);
    type Row = (
        Option<Vec<u8>>,
        (Ends, LiveRow),
        NaiveDateTime,
        Newest,
        OfJournal,
    );
    let newest = verdict_changes_table::table.order(verdict_changes_table::n.desc());
    let newest = newest.limit(1);
    let wanted: Vec<&[u8]> = hashes.iter().map(AsRef::as_ref).collect();
    let rows: Vec<Row> = live_keys()
        .filter(api_keys::hash.eq_any(wanted))
        .select((
            api_keys::hash,
            <(Ends, LiveRow)>::as_select(),
            timezone("UTC", dsl::now),
            (
                newest.select(verdict_changes_table::n).single_value(),
                newest.select(verdict_changes_table::mark).single_value(),
            ),
            journal::belonging_as_values(),
        ))
        .load(conn)?;
    let mut looked = Looked {
        found: Vec::with_capacity(hashes.len()),
        // Without a row, nothing is compared with it.
        now: NaiveDateTime::MAX,
        position: None,
        journal: None,
    };
    let mut by_hash: HashMap<Vec<u8>, Vec<(Ends, LiveRow)>> = HashMap::new();
    for (hash, row, now, newest, journal) in rows {
        looked.now = now;
        if let (Some(journal_id), Some(last)) = journal {
            looked.journal = Some(Belonging { journal_id, last });
        }
        if let (Some(n), Some(mark)) = newest {
            looked.position = Some(Position { n, mark });
        }
        by_hash
            .entry(hash.unwrap_or_default())
            .or_default()
            .push(row);
    }
    let find = |hash: &KeyHash| by_hash.remove(hash.as_ref()).and_then(found);
    looked.found.extend(hashes.iter().map(find));
    Ok(looked)
}

fn found(rows: Vec<(Ends, LiveRow)>) -> Option<Found> {
    let (ends, rows): (Vec<Ends>, Vec<LiveRow>) = rows.into_iter().unzip();
    let ends = ends.into_iter().next()?;
    let key = Arc::new(live_key(rows)?);
    let ends_at = ends.expires_at.into_iter().chain(ends.stops_at).min();
    Some(Found { key, ends_at })
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
