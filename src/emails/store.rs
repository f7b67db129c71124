//! Accepted emails in the database.

use diesel::prelude::*;

use super::message::Message;
use crate::db::{self, Connection, is_foreign_key_violation};
use crate::keys::verification::store::LiveKey;
use crate::outbox::{Status, store};
use crate::schema::emails;
use crate::token;

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
}

/// Stores emails as held for delivery.
pub fn accept(conn: &mut Connection, key: &LiveKey, accepted: &[NewEmail]) -> db::Result<()> {
    // So that each email is counted exactly once, whatever the clock does.
    let now = db::stamp(conn)?.max(store::countable_from_of_any_account(conn)?);
    for email in accepted {
        let stored = diesel::insert_into(emails::table)
            .values((
                emails::account_id.eq(key.account.0),
                emails::api_key_id.eq(key.id),
                emails::domain_id.eq(email.domain_id),
                emails::message_id.eq(&email.message_id),
                emails::message.eq(&email.fields),
                emails::status.eq(Status::Held.as_str()),
                emails::created_at.eq(now),
                emails::internet_id.eq(token::random()),
                emails::next_attempt_at.eq(now),
                emails::sender.eq(&email.sender),
                emails::recipient.eq(&email.recipient),
                emails::recipients.eq(email.recipients),
            ))
            .execute(conn);
        stored.map_err(|error| match is_foreign_key_violation(&error) {
            // A client that tries again will learn that the domain is not found.
            true => db::Error::Unavailable("the domain was deleted in the meantime".to_owned()),
            false => error.into(),
        })?;
    }
    Ok(())
}
