//! The page of an account's emails and their status, beside its activity.

use actix_web::{HttpResponse, web};
use askama::Template;
use chrono::NaiveDateTime;
use serde::Deserialize;

use super::store::{self, Sent};
use crate::accounts::session::SignedIn;
use crate::accounts::store::User;
use crate::http::choice::Choice;
use crate::http::{Context, Error, page};
use crate::outbox::Status;

const PER_PAGE: usize = 50;

#[derive(Deserialize)]
pub struct Query {
    #[serde(default)]
    status: String,
    #[serde(default)]
    before: String,
}

#[derive(Template)]
#[template(path = "mail/index.html")]
struct IndexPage {
    user: User,
    emails: Vec<Sent>,
    status: Option<Status>,
    has_relay: bool,
    /// Whether there are newer emails than these.
    is_continued: bool,
    older: Option<String>,
}

impl IndexPage {
    fn lead(&self) -> &'static str {
        match self.has_relay {
            true => {
                "What happened to this account’s emails. An email is delivered when the relay has accepted it."
            }
            false => {
                "Emails are accepted and held: no mail relay is configured, so nothing is delivered. They are sent once the operator configures one."
            }
        }
    }

    /// The statuses to filter by.
    fn statuses(&self) -> Vec<Choice> {
        let any = Choice::new("", "Any status", false);
        let statuses = Status::ALL.into_iter().map(|status| {
            let is_chosen = self.status == Some(status);
            Choice::new(status.as_str(), status.label(), is_chosen)
        });
        std::iter::once(any).chain(statuses).collect()
    }

    fn newest(&self) -> String {
        path(self.status, None)
    }
}

/// `GET /activity/emails`
pub async fn index(
    context: web::Data<Context>,
    SignedIn(user): SignedIn,
    query: web::Query<Query>,
) -> Result<HttpResponse, Error> {
    let (status, before) = (Status::parse(&query.status), query.before.parse().ok());
    let account = user.account;
    let mut emails = context
        .db
        .read(move |conn| store::list(conn, account, status, before, PER_PAGE as i64 + 1))
        .await?;
    let has_older = emails.len() > PER_PAGE;
    emails.truncate(PER_PAGE);
    let last = emails.last().filter(|_| has_older);
    let older = last.map(|last| path(status, Some(last.id)));
    page::html(&IndexPage {
        user,
        emails,
        status,
        has_relay: context.config.relay.is_some(),
        is_continued: before.is_some(),
        older,
    })
}

impl Sent {
    /// The relay's reply, for an email that was not delivered.
    fn shown_reply(&self) -> Option<&str> {
        let is_told = matches!(self.status, Status::Deferred | Status::Failed);
        self.reply.as_deref().filter(|_| is_told)
    }

    fn next_attempt(&self) -> Option<&NaiveDateTime> {
        (self.status == Status::Deferred).then_some(&self.next_attempt_at)
    }
}

impl Status {
    /// The style of the badge on the page.
    fn badge(self) -> &'static str {
        match self {
            Self::Held => "paused",
            Self::Deferred => "pending",
            Self::Delivered => "active",
            Self::Failed => "failed",
        }
    }
}

fn path(status: Option<Status>, before: Option<i64>) -> String {
    let status = status.map(|status| format!("status={}", status.as_str()));
    let before = before.map(|id| format!("before={id}"));
    let query: Vec<String> = status.into_iter().chain(before).collect();
    match query.is_empty() {
        true => "/activity/emails".to_owned(),
        false => format!("/activity/emails?{}", query.join("&")),
    }
}
