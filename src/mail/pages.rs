//! The page of an account's emails and their status, beside its activity.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use chrono::NaiveDateTime;
use serde::Deserialize;

use super::queue::{TaskVerdict, store as queue_store};
use super::store::{self, Sent};
use crate::accounts::event::{Action, NewEvent};
use crate::accounts::session::{Acting, SignedIn};
use crate::accounts::store::{User, events};
use crate::clock;
use crate::db;
use crate::http::choice::Choice;
use crate::http::{Context, Error, Explanation, page};
use crate::outbox::{Arrivals, EmailStatus};

const PER_PAGE: usize = 50;

#[derive(Deserialize)]
pub struct Query {
    #[serde(default)]
    status: String,
    #[serde(default)]
    before: String,
    /// What came of a retry.
    #[serde(default)]
    retry: String,
}

#[derive(Template)]
#[template(path = "mail/index.html")]
struct IndexPage {
    user: User,
    emails: Vec<Sent>,
    status: Option<EmailStatus>,
    has_relay: bool,
    /// Whether there are newer emails than these.
    is_continued: bool,
    older: Option<String>,
    notice: Option<&'static str>,
}

impl IndexPage {
    fn lead(&self) -> &'static str {
        match self.has_relay {
            true => {
                "The emails that your programs sent, and where each of them is now. “Delivered” means that the mail relay has accepted it."
            }
            false => {
                "Emails are accepted and held, because no mail relay is configured (TOSEND_SMTP_URL). They are sent as soon as the operator configures one."
            }
        }
    }

    /// The statuses to filter by.
    fn statuses(&self) -> Vec<Choice> {
        let any = Choice::new("", "Any status", false);
        let statuses = EmailStatus::ALL.into_iter().map(|status| {
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
    let (status, before) = (EmailStatus::parse(&query.status), query.before.parse().ok());
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
        notice: notice(&query.retry),
    })
}

/// The values of `retry` in the page's address.
const RETRIED: &str = "done";
const LEFT_ALONE: &str = "not-needed";

fn notice(retry: &str) -> Option<&'static str> {
    match retry {
        RETRIED => Some("The email is being sent again, to the recipients who did not get it."),
        LEFT_ALONE => Some(
            "Nothing was changed: the email is being sent, was delivered, or its content was deleted.",
        ),
        _ => None,
    }
}

const PAUSED: Explanation = Explanation {
    title: "This account is paused",
    advice: "Its emails cannot be sent again until the operator resumes it.",
    leads_to_login: false,
};

/// `POST /activity/emails/{id}/retry`: sends an email again to those who did not get it.
pub async fn retry(
    context: web::Data<Context>,
    arrivals: web::Data<Arrivals>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    if user.is_account_paused() {
        return Err(Error::Forbidden(PAUSED));
    }
    let (account, id) = (user.account, *id);
    let retry = move |conn: &mut db::Connection| {
        let Some((recipient, verdict)) = queue_store::retry_one(conn, account, id)? else {
            return Ok(None);
        };
        if verdict.is_done() {
            let event = NewEvent {
                action: Action::EmailsRetried,
                subject_id: Some(id),
                subject: &recipient,
                detail: "",
            };
            events::record(conn, account, &actor, event)?;
        }
        Ok::<_, db::Error>(Some(verdict))
    };
    let verdict = session.write(&context.db, retry).await??;
    let came_of_it = match verdict.ok_or(Error::NotFound)? {
        TaskVerdict::Done => RETRIED,
        _ => LEFT_ALONE,
    };
    arrivals.wake();
    let path = format!("/activity/emails?retry={came_of_it}");
    Ok(page::redirect(&request, &path))
}

impl Sent {
    /// The relay's reply, for an email that was not delivered.
    fn shown_reply(&self) -> Option<&str> {
        let is_told = matches!(self.status, EmailStatus::Deferred | EmailStatus::Failed);
        self.reply.as_deref().filter(|_| is_told)
    }

    fn retry_label(&self) -> &'static str {
        match self.status {
            EmailStatus::Deferred => "Try now",
            _ => "Send again",
        }
    }

    /// For those who do not see in which row the button is.
    fn retry_name(&self) -> String {
        let recipient = self.recipient.as_deref().unwrap_or("unknown");
        let at = clock::for_people(&self.created_at);
        format!("{}: email to {recipient}, {at}", self.retry_label())
    }

    fn next_attempt(&self) -> Option<&NaiveDateTime> {
        (self.status == EmailStatus::Deferred).then_some(&self.next_attempt_at)
    }
}

impl EmailStatus {
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

fn path(status: Option<EmailStatus>, before: Option<i64>) -> String {
    let status = status.map(|status| format!("status={}", status.as_str()));
    let before = before.map(|id| format!("before={id}"));
    let query: Vec<String> = status.into_iter().chain(before).collect();
    match query.is_empty() {
        true => "/activity/emails".to_owned(),
        false => format!("/activity/emails?{}", query.join("&")),
    }
}
