//! `GET /v2/info`, `POST /v2/emails` and `POST /v2/emails/batch`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use serde_json::{Value, json};

use super::acceptor::Acceptor;
use super::batch::{self, NoBatch};
use super::message::{Message, Problems};
use super::store::{self, NewEmail};
use crate::accounts::store as accounts_store;
use crate::clock;
use crate::db;
use crate::domains::name::DomainName;
use crate::domains::store::{self as domains_store, Domain};
use crate::http::api_error::FieldErrors;
use crate::http::body::{BodyPermit, Room};
use crate::http::{ApiError, Context, json};
use crate::keys::rule;
use crate::keys::scope::ScopedDomain;
use crate::keys::verification::bearer::{BearerOrQuery, BearerWithBody, Body};
use crate::keys::verification::policy::{self, Refusal, Sending};
use crate::keys::verification::store::LiveKey;
use crate::outbox::store as outbox_store;

/// A shorter body is parsed where it arrives: that takes less time than handing it to another thread.
const INLINE_BYTES: usize = 16 * 1024;

/// What is needed to accept emails.
struct Intake<'a> {
    context: &'a Context,
    room: &'a Room,
    acceptor: &'a Acceptor,
}

#[derive(Serialize)]
struct Accepted {
    message_id: String,
}

/// The result for one email of a batch.
#[derive(Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Entry {
    Success(Accepted),
    Error(ApiError),
}

/// `GET /v2/info`: the account that a key belongs to, and all of its domains, even for a restricted
/// key.
pub async fn info(
    context: web::Data<Context>,
    BearerOrQuery(key, call): BearerOrQuery,
) -> Result<HttpResponse, ApiError> {
    call.end(describe(&context, &key).await)
}

async fn describe(context: &Context, key: &LiveKey) -> Result<HttpResponse, ApiError> {
    let account_id = key.account;
    let key_id = key.id;
    let (account, domains, sent, of_account, of_key) = context
        .db
        .read(move |conn| {
            Ok::<_, db::Error>((
                accounts_store::find(conn, account_id)?,
                domains_store::list(conn, account_id)?,
                outbox_store::count_emails_of_domains(conn, account_id)?,
                outbox_store::volume_of_account(conn, account_id)?,
                outbox_store::volume_of_key(conn, account_id, key_id)?,
            ))
        })
        .await?;
    let default_id = domains.iter().map(|d| d.id).min();
    let domains: Vec<Value> = domains
        .iter()
        .map(|domain| {
            let sent = sent.get(&domain.id).copied().unwrap_or_default();
            domain_json(domain, Some(domain.id) == default_id, sent)
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "account": {
            "id": account_id.0,
            "title": account.title,
            "status": account.status.as_str(),
            "plan_type": "self_hosted",
            "credit_balance": null,
            "monthly_email_limit": null,
            "limit_per_second": null,
            "ses_region": "",
            "bounce_rate": 0.0,
            "complaint_rate": 0.0,
            "ses_status": "healthy",
            "emails_usage_this_month": of_account.this_month,
            "emails_sent_last_24hrs": of_account.last_24_hours,
        },
        "domains": domains,
        "key": {
            "name": key.name,
            "truncated": key.truncated.to_string(),
            "scope": &key.scope,
            "emails_usage_this_month": of_key.this_month,
            "emails_sent_last_24hrs": of_key.last_24_hours,
        },
    })))
}

/// `POST /v2/emails`: stores the email durably before answering; it is delivered later.
pub async fn create(
    context: web::Data<Context>,
    room: web::Data<Room>,
    acceptor: web::Data<Acceptor>,
    BearerWithBody { key, call, body }: BearerWithBody,
) -> Result<HttpResponse, ApiError> {
    let intake = Intake {
        context: &context,
        room: &room,
        acceptor: &acceptor,
    };
    let accepted = call.end(accept_one(&intake, key, body).await)?;
    Ok(HttpResponse::Ok().json(accepted))
}

async fn accept_one(
    intake: &Intake<'_>,
    key: Arc<LiveKey>,
    body: Body,
) -> Result<Accepted, ApiError> {
    let (bytes, permit) = body.json()?;
    let length = bytes.len();
    let parse = move || {
        let value = json::parse(&bytes)?;
        // The parsed strings are copies, which the message takes over.
        drop(bytes);
        Ok(vec![Ok(Message::parse(value)?)])
    };
    let messages = off_the_async_threads(intake.room, &permit, length, parse).await?;
    accept_all(intake, key, permit, messages).await?.remove(0)
}

/// `POST /v2/emails/batch`: stores all emails that can be accepted or, if the database fails, none.
/// The call counts as accepted if any email is; otherwise it is refused for the first email's
/// reason.
pub async fn create_batch(
    context: web::Data<Context>,
    room: web::Data<Room>,
    acceptor: web::Data<Acceptor>,
    BearerWithBody { key, call, body }: BearerWithBody,
) -> Result<HttpResponse, ApiError> {
    let intake = Intake {
        context: &context,
        room: &room,
        acceptor: &acceptor,
    };
    let results = match accept_batch(&intake, key, body).await {
        Ok(results) => results,
        Err(error) => return call.end(Err(error)),
    };
    let refused = results.iter().find_map(|result| result.as_ref().err());
    let is_any_accepted = results.iter().any(Result::is_ok);
    call.end_for(refused.filter(|_| !is_any_accepted));
    let mut response = match refused {
        None => HttpResponse::Ok(),
        Some(_) => HttpResponse::MultiStatus(),
    };
    let entries = results.into_iter().map(|result| match result {
        Ok(accepted) => Entry::Success(accepted),
        Err(error) => Entry::Error(error),
    });
    Ok(response.json(json!({ "results": entries.collect::<Vec<_>>() })))
}

async fn accept_batch(
    intake: &Intake<'_>,
    key: Arc<LiveKey>,
    body: Body,
) -> Result<Results, ApiError> {
    let (bytes, permit) = body.json()?;
    let length = bytes.len();
    let parse = move || {
        let emails = batch::split(&bytes).map_err(|error| no_batch(&bytes, &error))?;
        // One after the other, because parsed values take many times as much memory.
        let parse = |email: &str| {
            let fields = json::parse_part(&bytes, email.as_bytes())?;
            Ok(Message::parse(fields).map_err(ApiError::from))
        };
        emails.into_iter().map(parse).collect()
    };
    let messages = off_the_async_threads(intake.room, &permit, length, parse).await?;
    accept_all(intake, key, permit, messages).await
}

type Messages = Vec<Result<Message, ApiError>>;
type Results = Vec<Result<Accepted, ApiError>>;

/// For work whose time and memory grow with the bytes; for big bodies, only a few run at a time.
async fn off_the_async_threads<T: Send + 'static>(
    room: &Room,
    permit: &BodyPermit,
    bytes: usize,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if bytes <= INLINE_BYTES {
        return work();
    }
    let Some(turn) = room.turn(permit).await else {
        return Err(ApiError::of_status(StatusCode::SERVICE_UNAVAILABLE));
    };
    let permit = permit.clone();
    let done = web::block(move || {
        // Held even if no request waits for the result any more.
        let _kept = (permit, turn);
        work()
    });
    done.await.unwrap_or_else(|error| {
        tracing::error!(%error, "an email could not be parsed");
        Err(ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR))
    })
}

/// Stores the emails that the key allows: all of them, or none. Returns a result for each, in order.
async fn accept_all(
    intake: &Intake<'_>,
    key: Arc<LiveKey>,
    permit: BodyPermit,
    messages: Messages,
) -> Result<Results, ApiError> {
    let names: Vec<Option<DomainName>> = messages.iter().map(sender_domain).collect();
    let domains = find_domains(intake.context, &key, &names).await?;
    let mut allowed = Vec::new();
    let results = messages.into_iter().zip(names).map(|(message, name)| {
        let message = message?;
        let domain = name.and_then(|name| domains.get(&name));
        let domain_id = policy::decide(&key, &sending(&message, domain))?;
        let message_id = store::message_id(&message);
        allowed.push((domain_id, message_id.clone(), message));
        Ok(Accepted { message_id })
    });
    let results: Results = results.collect();
    if allowed.is_empty() {
        return Ok(results);
    }
    let bytes = allowed
        .iter()
        .map(|(_, _, message)| message.estimated_bytes())
        .sum();
    // Only now, so that a refused email costs no more than its checks.
    let make = move || {
        let emails = allowed.into_iter().map(|(domain_id, message_id, message)| {
            NewEmail::new(domain_id, message_id, message.with_text())
        });
        Ok(emails.collect::<Vec<_>>())
    };
    let emails = off_the_async_threads(intake.room, &permit, bytes, make).await?;
    intake.acceptor.accept(&key, emails, permit).await?;
    Ok(results)
}

/// The domain that a message is sent from; `None`: it cannot be one of an account.
fn sender_domain(message: &Result<Message, ApiError>) -> Option<DomainName> {
    DomainName::of_address(message.as_ref().ok()?.from_domain())
}

/// Those of these domains that the account has; each is looked up once.
async fn find_domains(
    context: &Context,
    key: &LiveKey,
    names: &[Option<DomainName>],
) -> Result<HashMap<DomainName, ScopedDomain>, ApiError> {
    let mut wanted: Vec<DomainName> = Vec::new();
    for name in names.iter().flatten() {
        if !wanted.contains(name) {
            wanted.push(name.clone());
        }
    }
    Ok(policy::find_domains(&context.db, key, wanted).await?)
}

fn sending<'a>(message: &'a Message, domain: Option<&'a ScopedDomain>) -> Sending<'a> {
    let fields = [
        ("to", &message.to),
        ("cc", &message.cc),
        ("bcc", &message.bcc),
    ];
    let recipients = fields.into_iter().flat_map(|(field, mailboxes)| {
        let mailboxes = mailboxes.iter();
        mailboxes.map(move |mailbox| (field, mailbox.email.as_str()))
    });
    Sending {
        domain,
        sender: Some(&message.from.email),
        recipients: recipients.collect(),
    }
}

impl From<Refusal<'_>> for ApiError {
    fn from(refusal: Refusal<'_>) -> Self {
        match refusal {
            Refusal::DomainNotFound => refused(
                "The from email domain is not found.",
                "domain_not_found",
                "The from email domain is not found in your account.",
            ),
            Refusal::DomainNotVerified => {
                let sentence = "The from email domain is not verified.";
                refused(sentence, "domain_not_verified", sentence)
            }
            Refusal::DomainNotAllowed => {
                let sentence = "The from email domain is not allowed for this API key.";
                refused(sentence, "domain_not_allowed", sentence)
            }
            Refusal::SenderNotAllowed => {
                let sentence = "The from email address is not allowed for this API key.";
                refused(sentence, "address_not_allowed", sentence)
            }
            Refusal::RecipientsNotAllowed(wrong) => {
                let error = |(field, recipient): (&str, &str)| {
                    let codes = [("recipient_not_allowed", not_allowed(recipient).into())];
                    (field.to_owned(), codes.into())
                };
                let errors: FieldErrors = wrong.into_iter().map(error).collect();
                Self::unprocessable("A recipient is not allowed for this API key.", errors)
            }
        }
    }
}

fn not_allowed(recipient: &str) -> String {
    let why = match rule::is_plain(recipient) {
        true => "",
        false => {
            " Before the @, it may have only letters, digits and ._-+='~ because the key is for some recipients only."
        }
    };
    format!("The recipient {recipient} is not allowed for this API key.{why}")
}

fn refused(message: &'static str, code: &'static str, sentence: &'static str) -> ApiError {
    ApiError::field(
        StatusCode::UNPROCESSABLE_ENTITY,
        message,
        "from",
        code,
        sentence,
    )
}

impl From<Problems> for ApiError {
    fn from(problems: Problems) -> Self {
        let mut errors = FieldErrors::new();
        for problem in problems.iter() {
            errors
                .entry(problem.field.to_owned())
                .or_default()
                .insert(problem.code, Cow::clone(&problem.sentence));
        }
        Self::unprocessable(problems.headline(), errors)
    }
}

fn no_batch(body: &[u8], error: &NoBatch) -> ApiError {
    let (message, code) = match error {
        NoBatch::Unreadable => return json::unreadable(body),
        NoBatch::NoList => (
            "Emails data is required and must be an array".into(),
            "required",
        ),
        NoBatch::TooMany => (Cow::from(error.to_string()), "max_limit"),
    };
    let codes = [(code, error.to_string().into())].into();
    ApiError::unprocessable(message, [("emails".to_owned(), codes)].into())
}

fn domain_json(domain: &Domain, is_default: bool, sent: i64) -> Value {
    json!({
        "id": domain.id,
        "domain_name": domain.name,
        "verification_status": domain.status.as_str(),
        "is_default": i32::from(is_default),
        "total_sent": sent,
        "total_delivered": 0,
        "total_bounced": 0,
        "total_complained": 0,
        "created_at": clock::for_api(&domain.created_at),
    })
}
