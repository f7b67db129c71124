//! The record of what happened. Rows are added and, when they are old, removed; never changed.

use std::net::IpAddr;

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::AccountId;
use crate::accounts::event::{Action, Actor, NewEvent};
use crate::clock;
use crate::db::{self, Connection};
use crate::schema::events;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: i64,
    pub at: NaiveDateTime,
    pub actor: String,
    pub address: Option<String>,
    /// `None`: one that this version does not know.
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

/// Records what the running transaction does, in that transaction: neither is without the other.
pub fn record(
    conn: &mut Connection,
    account: AccountId,
    actor: &Actor,
    event: NewEvent<'_>,
) -> QueryResult<()> {
    diesel::insert_into(events::table)
        .values((
            events::account_id.eq(account.0),
            events::at.eq(clock::now()),
            events::actor.eq(&actor.name),
            events::address.eq(actor.address.map(|address: IpAddr| address.to_string())),
            events::action.eq(event.action.as_str()),
            events::subject_id.eq(event.subject_id),
            events::subject.eq(event.subject),
            events::detail.eq(event.detail),
        ))
        .execute(conn)?;
    Ok(())
}

/// What happened to one key or domain, newest first. `kind`: the actions' first word.
pub fn list_of_subject(
    conn: &mut Connection,
    account: AccountId,
    kind: &str,
    subject_id: i64,
    limit: i64,
) -> db::Result<Vec<Event>> {
    let rows: Vec<Row> = events::table
        .filter(events::account_id.eq(account.0))
        .filter(events::subject_id.eq(subject_id))
        .filter(events::action.like(format!("{kind}.%")))
        .order(events::id.desc())
        .limit(limit)
        .select((
            events::id,
            events::at,
            events::actor,
            events::address,
            events::action,
            events::subject_id,
            events::subject,
            events::detail,
        ))
        .load(conn)?;
    Ok(rows.into_iter().map(Event::from).collect())
}
