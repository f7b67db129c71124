//! Accepted emails in the database.

use chrono::{Datelike, NaiveDateTime, TimeDelta};
use diesel::prelude::*;

use super::message::Message;
use crate::accounts::store::AccountId;
use crate::clock;
use crate::db::{self, Connection};
use crate::keys::store::LiveKey;
use crate::schema::emails;
use crate::token;

/// How many emails an account handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub this_month: i64,
    pub last_24_hours: i64,
}

/// Stores an email, held for delivery. Returns its message id.
pub fn accept(
    conn: &mut Connection,
    key: &LiveKey,
    domain_id: i64,
    message: &Message,
) -> db::Result<String> {
    let message_id = message.message_hash.clone().unwrap_or_else(token::random);
    let now = clock::now();
    let fields = serde_json::to_string(message).expect("strings, lists and maps of strings");
    diesel::insert_into(emails::table)
        .values((
            emails::account_id.eq(key.account.0),
            emails::api_key_id.eq(key.id),
            emails::domain_id.eq(domain_id),
            emails::message_id.eq(&message_id),
            emails::message.eq(fields),
            emails::status.eq("held"),
            emails::created_at.eq(now),
            emails::internet_id.eq(token::random()),
            emails::next_attempt_at.eq(now),
            emails::sender.eq(&message.from.email),
            emails::recipient.eq(message.to.first().map(|to| &to.email)),
            emails::recipients.eq(message.count_recipients() as i64),
        ))
        .execute(conn)?;
    Ok(message_id)
}

/// Months and hours are UTC's.
pub fn usage(conn: &mut Connection, account: AccountId) -> db::Result<Usage> {
    let now = clock::now();
    let month = now.date().with_day(1).unwrap_or(now.date());
    Ok(Usage {
        this_month: count_since(conn, account, month.and_time(Default::default()))?,
        last_24_hours: count_since(conn, account, now - TimeDelta::hours(24))?,
    })
}

fn count_since(conn: &mut Connection, account: AccountId, since: NaiveDateTime) -> db::Result<i64> {
    Ok(emails::table
        .filter(emails::account_id.eq(account.0))
        .filter(emails::created_at.ge(since))
        .count()
        .get_result(conn)?)
}
