//! Accepted emails in the database.

use chrono::{NaiveDateTime, TimeDelta};
use diesel::Connection as _;
use diesel::prelude::*;

use super::message::Message;
use crate::accounts::store::AccountId;
use crate::db::{self, Connection};
use crate::outbox::EmailStatus;
use crate::outbox::store::{self as outbox_store, Accepted};
use crate::schema::emails;
use crate::token;

/// How long emails wait for a lock of another transaction: those that share the commit wait, too.
const MOST_LOCK_WAIT_MILLISECONDS: u32 = 1_000;

/// An email to store.
pub struct NewEmail {
    /// The id by which the program knows it.
    pub message_id: String,
    domain_id: i64,
    /// The message in stored form.
    fields: String,
    sender: String,
    /// The first recipient.
    recipient: Option<String>,
    recipients: i64,
}

/// Chooses the id by which a program knows an email.
pub fn message_id(message: &Message) -> String {
    message.message_hash.clone().unwrap_or_else(token::random)
}

impl NewEmail {
    pub fn new(domain_id: i64, message_id: String, message: Message) -> Self {
        // Allocated at its full size: a growing buffer would exist twice.
        let mut fields = Vec::with_capacity(message.estimated_bytes());
        serde_json::to_writer(&mut fields, &message).expect("strings, lists and maps of strings");
        Self {
            message_id,
            domain_id,
            fields: String::from_utf8(fields).expect("JSON is UTF-8"),
            recipient: message.to.first().map(|to| to.email.clone()),
            recipients: message.count_recipients() as i64,
            sender: message.from.email,
        }
    }

    /// About its size in memory.
    pub fn bytes(&self) -> usize {
        self.fields.capacity()
    }
}

/// The emails of one request.
#[derive(Clone, Copy)]
pub struct Submitted<'a> {
    pub account: AccountId,
    pub api_key_id: i64,
    pub emails: &'a [NewEmail],
}

#[derive(Insertable)]
#[diesel(table_name = emails)]
struct EmailRow<'a> {
    account_id: i64,
    api_key_id: i64,
    domain_id: i64,
    message_id: &'a str,
    message: &'a str,
    status: &'static str,
    created_at: NaiveDateTime,
    internet_id: String,
    next_attempt_at: NaiveDateTime,
    sender: &'a str,
    recipient: Option<&'a str>,
    recipients: i64,
}

/// Stores emails in this order as held for delivery, and counts them.
///
/// # Errors
/// [`db::Error::Refused`] if one of them cannot be stored, such as when its domain was deleted in
/// the meantime: then it is unknown which.
pub fn accept_of_any_account(conn: &mut Connection, submitted: &[Submitted<'_>]) -> db::Result<()> {
    db::limit_lock_waits(conn, MOST_LOCK_WAIT_MILLISECONDS)?;
    let now = db::stamp(conn)?;
    let each = submitted
        .iter()
        .flat_map(|of| of.emails.iter().map(move |email| (of, email)));
    let (mut rows, mut accepted) = (Vec::new(), Vec::new());
    for (place, (of, email)) in each.enumerate() {
        accepted.push(Accepted {
            account: of.account,
            api_key_id: of.api_key_id,
            domain_id: email.domain_id,
        });
        rows.push(EmailRow {
            account_id: of.account.0,
            api_key_id: of.api_key_id,
            domain_id: email.domain_id,
            message_id: &email.message_id,
            message: &email.fields,
            status: EmailStatus::Held.as_str(),
            created_at: now,
            internet_id: token::random(),
            // Delivery takes the one that is due first: they keep their order.
            next_attempt_at: now + TimeDelta::microseconds(place as i64),
            sender: &email.sender,
            recipient: email.recipient.as_deref(),
            recipients: email.recipients,
        });
    }
    match conn {
        // One statement, because a statement is a round trip.
        Connection::Postgres(conn) => {
            diesel::insert_into(emails::table)
                .values(&rows)
                .execute(conn)?;
        }
        Connection::Sqlite(conn) => {
            for row in &rows {
                diesel::insert_into(emails::table)
                    .values(row)
                    .execute(conn)?;
            }
        }
    }
    outbox_store::count_in_of_any_account(conn, now, &accepted)
}

/// Like [`accept_of_any_account`], but what cannot be stored leaves the rest of the transaction as it
/// is: a savepoint for each request. Returns a result for each.
///
/// # Errors
/// If the transaction is lost.
pub fn accept_apart_of_any_account(
    conn: &mut Connection,
    submitted: &[Submitted<'_>],
) -> db::Result<Vec<db::Result<()>>> {
    let one = |of: &Submitted<'_>| {
        let stored = conn.transaction(|conn| accept_of_any_account(conn, std::slice::from_ref(of)));
        match stored {
            Err(error @ db::Error::Refused(_)) => Ok(Err(error)),
            stored => stored.map(Ok),
        }
    };
    submitted.iter().map(one).collect()
}
