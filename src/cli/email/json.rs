//! Emails as JSON on the command line, for programs. Members are only ever added, never changed.

use serde::Serialize;

use crate::clock;
use crate::mail::attempt::RefusedRecipient;
use crate::mail::queue::store::Details;

#[derive(Serialize)]
pub struct EmailJson<'a> {
    id: i64,
    message_id: &'a str,
    /// Its title.
    account: &'a str,
    key_id: i64,
    key_name: &'a str,
    status: &'static str,
    /// Whether a server is sending it right now.
    is_under_way: bool,
    sender: Option<&'a str>,
    /// The first recipient, and how many there are in all.
    recipient: Option<&'a str>,
    recipients: Option<i64>,
    created_at: String,
    ended_at: Option<String>,
    /// Of a deferred email.
    next_attempt_at: Option<String>,
    attempts: i64,
    has_content: bool,
    /// Those that still have to get it; `null`: all, if it has not ended.
    remaining: Option<&'a [String]>,
    refused: &'a [RefusedRecipient],
    reply: Option<&'a str>,
}

impl<'a> EmailJson<'a> {
    pub fn of(email: &'a Details) -> Self {
        let is_waiting = email.ended_at.is_none() && !email.state.is_under_way;
        let next = is_waiting.then(|| clock::rfc3339(&email.next_attempt_at));
        Self {
            id: email.id,
            message_id: &email.message_id,
            account: &email.account,
            key_id: email.key_id,
            key_name: &email.key_name,
            status: email.state.status.as_str(),
            is_under_way: email.state.is_under_way,
            sender: email.sender.as_deref(),
            recipient: email.recipient.as_deref(),
            recipients: email.recipients,
            created_at: clock::rfc3339(&email.created_at),
            ended_at: email.ended_at.as_ref().map(clock::rfc3339),
            next_attempt_at: next,
            attempts: email.state.attempts,
            has_content: email.state.has_content,
            remaining: email.state.remaining.as_deref(),
            refused: &email.state.refused,
            reply: email.reply.as_deref(),
        }
    }

    pub fn pretty(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map_err(|e| e.to_string())
    }
}
