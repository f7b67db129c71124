//! The record of events. Rows are added, and removed when they are old, but never changed.

use std::cmp::Reverse;
use std::net::IpAddr;

use chrono::{Days, NaiveDateTime, TimeDelta};
use diesel::dsl::sql;
use diesel::helper_types::IntoBoxed;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use super::id::AccountId;
use crate::accounts::event::{Action, Actor, Filter, Kind, NewEvent, bounded};
use crate::db::{self, Connection};
use crate::schema::events;

/// How many actors are looked up one by one. An account has few: its people, the operator, the server.
const MOST_ACTORS: i64 = 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: i64,
    pub at: NaiveDateTime,
    pub actor: String,
    pub address: Option<String>,
    /// `None`: an action that this version does not know.
    pub action: Option<Action>,
    pub subject_id: Option<i64>,
    pub subject: String,
    pub detail: String,
}

type Row = (
    i64,
    NaiveDateTime,
    String,
    Option<String>,
    String,
    Option<i64>,
    String,
    String,
);

impl From<Row> for Event {
    fn from((id, at, actor, address, action, subject_id, subject, detail): Row) -> Self {
        Self {
            id,
            at,
            actor,
            address,
            action: Action::from_column(&action),
            subject_id,
            subject,
            detail,
        }
    }
}

impl Event {
    /// The wording on pages.
    pub fn label(&self) -> &'static str {
        self.action.map_or("Something else", Action::label)
    }

    /// The key that the event concerns, if any.
    pub fn key_id(&self) -> Option<i64> {
        let is_of_key = self.action.is_some_and(|action| action.is_of(Kind::Key));
        self.subject_id.filter(|_| is_of_key)
    }
}

/// Records an event in the running transaction, so that neither is stored without the other.
pub fn record(
    conn: &mut Connection,
    account: AccountId,
    actor: &Actor,
    event: NewEvent<'_>,
) -> QueryResult<()> {
    diesel::insert_into(events::table)
        .values((
            events::account_id.eq(account.0),
            events::at.eq(db::stamp(conn)?),
            events::actor.eq(&actor.name),
            events::address.eq(actor.address.map(|address: IpAddr| address.to_string())),
            events::action.eq(event.action.as_str()),
            events::subject_id.eq(event.subject_id),
            events::subject.eq(event.subject),
            events::detail.eq(&*bounded(event.detail)),
        ))
        .execute(conn)?;
    Ok(())
}

/// The events of an account, newest first; only those after the event `before`, if it is given and
/// still stored.
pub fn list(
    conn: &mut Connection,
    account: AccountId,
    filter: &Filter,
    before: Option<i64>,
    limit: i64,
) -> db::Result<Vec<Event>> {
    let end = match before {
        None => None,
        Some(id) => match find_end(conn, account, id)? {
            None => return Ok(Vec::new()),
            end => end,
        },
    };
    let page = Page {
        account,
        filter,
        end,
        limit,
    };
    // A key has few events.
    let is_of_many = filter.key_id.is_none() && (filter.kind.is_some() || !filter.actor.is_empty());
    let rows = match is_of_many {
        true => match find_actors(conn, account)? {
            Some(actors) => page.of_actors(conn, actors)?,
            None => page.matching(conn)?,
        },
        false => page.matching(conn)?,
    };
    Ok(rows.into_iter().map(Event::from).collect())
}

type Boxed<'a> = IntoBoxed<'a, events::table, <Connection as diesel::Connection>::Backend>;

/// The time and the id of an event, which order events.
type Place = (NaiveDateTime, i64);

/// A page of the events that match a filter.
struct Page<'a> {
    account: AccountId,
    filter: &'a Filter,
    /// Only events before this one.
    end: Option<Place>,
    limit: i64,
}

impl<'a> Page<'a> {
    /// Goes through the events in their order until enough match.
    fn matching(&self, conn: &mut Connection) -> QueryResult<Vec<Row>> {
        let mut query = self.in_time();
        if let Some(id) = self.filter.key_id {
            query = query
                .filter(events::subject_id.eq(id))
                .filter(of_kind(Kind::Key));
        }
        if let Some(kind) = self.filter.kind {
            query = query.filter(of_kind(kind));
        }
        if !self.filter.actor.is_empty() {
            // Actors' names are in lower case.
            let part = escape_like(&self.filter.actor.to_lowercase());
            query = query.filter(events::actor.like(format!("%{part}%")).escape('\\'));
        }
        query.select(columns()).load(conn)
    }

    /// Looks up each of these actors that matches, so that events which do not match cost nothing:
    /// each has its events in order in an index.
    fn of_actors(&self, conn: &mut Connection, mut actors: Vec<String>) -> QueryResult<Vec<Row>> {
        // Actors' names are in lower case.
        let part = self.filter.actor.to_lowercase();
        actors.retain(|actor| actor.contains(&part));
        let mut rows: Vec<Row> = Vec::new();
        for actor in actors {
            let mut query = self.in_time().filter(events::actor.eq(actor));
            if let Some(kind) = self.filter.kind {
                // As in the index.
                let begin = sql::<Text>("substr(action, 1, 3)");
                query = query.filter(begin.eq(&kind.as_str()[..3]));
            }
            rows.extend(query.select(columns()).load::<Row>(conn)?);
        }
        rows.sort_unstable_by_key(|(id, at, ..)| Reverse((*at, *id)));
        rows.truncate(self.limit as usize);
        Ok(rows)
    }

    fn in_time(&self) -> Boxed<'a> {
        let mut query = events::table
            .filter(events::account_id.eq(self.account.0))
            .order((events::at.desc(), events::id.desc()))
            .limit(self.limit)
            .into_boxed();
        if let Some((at, id)) = self.end {
            query = query
                .filter(events::at.le(at))
                .filter(events::at.lt(at).or(events::id.lt(id)));
        }
        if let Some(first) = self.filter.from {
            query = query.filter(events::at.ge(first.and_time(Default::default())));
        }
        let last = self.filter.to;
        if let Some(end) = last.and_then(|last| last.checked_add_days(Days::new(1))) {
            query = query.filter(events::at.lt(end.and_time(Default::default())));
        }
        query
    }
}

fn find_end(conn: &mut Connection, account: AccountId, id: i64) -> QueryResult<Option<Place>> {
    events::table
        .filter(events::account_id.eq(account.0))
        .filter(events::id.eq(id))
        .select((events::at, events::id))
        .first(conn)
        .optional()
}

#[derive(QueryableByName)]
struct ActorRow {
    #[diesel(sql_type = Text)]
    actor: String,
}

/// All actors of an account: one lookup for each, however many events they have. `None`: too many to
/// look each of them up.
fn find_actors(conn: &mut Connection, account: AccountId) -> QueryResult<Option<Vec<String>>> {
    let found: Vec<ActorRow> = sql_query(
        "WITH RECURSIVE actors (actor, place) AS (
             SELECT min(actor), 1 FROM events WHERE account_id = $1
             UNION ALL
             SELECT (SELECT min(events.actor) FROM events
                     WHERE account_id = $1 AND events.actor > actors.actor), place + 1
             FROM actors WHERE actor IS NOT NULL AND place <= $2
         )
         SELECT actor FROM actors WHERE actor IS NOT NULL",
    )
    .bind::<BigInt, _>(account.0)
    .bind::<BigInt, _>(MOST_ACTORS)
    .load(conn)?;
    let is_few = found.len() as i64 <= MOST_ACTORS;
    Ok(is_few.then(|| found.into_iter().map(|row| row.actor).collect()))
}

/// Deletes some of the events older than this many days. Returns how many.
pub fn forget_of_any_account(conn: &mut Connection, days: i64, most: i64) -> db::Result<usize> {
    let Some(now) = db::trusted_now(conn)? else {
        return Ok(0);
    };
    let before = now - TimeDelta::days(days);
    let old: Vec<i64> = events::table
        .filter(events::at.lt(before))
        .order(events::at)
        .limit(most)
        .select(events::id)
        .load(conn)?;
    Ok(diesel::delete(events::table.filter(events::id.eq_any(old))).execute(conn)?)
}

#[diesel::dsl::auto_type]
fn columns() -> _ {
    (
        events::id,
        events::at,
        events::actor,
        events::address,
        events::action,
        events::subject_id,
        events::subject,
        events::detail,
    )
}

#[diesel::dsl::auto_type]
fn of_kind(kind: Kind) -> _ {
    let actions: String = format!("{}.%", kind.as_str());
    events::action.like(actions)
}

/// Escapes text for use in a LIKE pattern.
fn escape_like(text: &str) -> String {
    let special = |c: char| matches!(c, '\\' | '%' | '_');
    text.chars()
        .flat_map(|c| special(c).then_some('\\').into_iter().chain([c]))
        .collect()
}
