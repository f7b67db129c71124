//! The record of events. Rows are added, and removed when they are old, but never changed.

use std::net::IpAddr;

use chrono::{Days, NaiveDateTime, TimeDelta};
use diesel::prelude::*;

use super::id::AccountId;
use crate::accounts::event::{Action, Actor, Filter, Kind, NewEvent, bounded};
use crate::db::{self, Connection};
use crate::schema::events;

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
    let mut query = events::table
        .filter(events::account_id.eq(account.0))
        .order((events::at.desc(), events::id.desc()))
        .limit(limit)
        .select(columns())
        .into_boxed();
    if let Some(id) = before {
        let at: Option<NaiveDateTime> = events::table
            .filter(events::account_id.eq(account.0))
            .filter(events::id.eq(id))
            .select(events::at)
            .first(conn)
            .optional()?;
        let Some(at) = at else {
            return Ok(Vec::new());
        };
        query = query
            .filter(events::at.le(at))
            .filter(events::at.lt(at).or(events::id.lt(id)));
    }
    if let Some(id) = filter.key_id {
        query = query
            .filter(events::subject_id.eq(id))
            .filter(of_kind(Kind::Key));
    }
    if let Some(kind) = filter.kind {
        query = query.filter(of_kind(kind));
    }
    if !filter.actor.is_empty() {
        // Actors' names are in lower case.
        let part = escape_like(&filter.actor.to_lowercase());
        query = query.filter(events::actor.like(format!("%{part}%")).escape('\\'));
    }
    if let Some(first) = filter.from {
        query = query.filter(events::at.ge(first.and_time(Default::default())));
    }
    if let Some(end) = filter
        .to
        .and_then(|last| last.checked_add_days(Days::new(1)))
    {
        query = query.filter(events::at.lt(end.and_time(Default::default())));
    }
    let rows: Vec<Row> = query.load(conn)?;
    Ok(rows.into_iter().map(Event::from).collect())
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
