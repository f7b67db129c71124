//! `GET /v2/info` and `POST /v2/emails`.

use std::borrow::Cow;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use serde_json::{Value, json};

use super::message::{Mailbox, Message, Problems};
use super::store;
use crate::accounts::store as accounts_store;
use crate::app::State;
use crate::clock;
use crate::domains::name::DomainName;
use crate::domains::store::{self as domains_store, Domain};
use crate::http::ApiError;
use crate::http::api_error::FieldErrors;
use crate::keys::bearer::{BearerOrQuery, BearerWithBody, Body};
use crate::keys::rule::Rule;
use crate::keys::store::LiveKey;

#[derive(Serialize)]
struct Accepted {
    message_id: String,
}

/// `GET /v2/info`: the account behind a key, and its domains, all of them even for a key that is
/// restricted.
pub async fn info(
    state: web::Data<State>,
    BearerOrQuery(key, call): BearerOrQuery,
) -> Result<HttpResponse, ApiError> {
    call.end(describe(&state, &key).await)
}

async fn describe(state: &State, key: &LiveKey) -> Result<HttpResponse, ApiError> {
    let account_id = key.account;
    let (account, domains, usage) = state
        .db
        .read(move |conn| {
            Ok::<_, crate::db::Error>((
                accounts_store::find(conn, account_id)?,
                domains_store::list(conn, account_id)?,
                store::usage(conn, account_id)?,
            ))
        })
        .await?;
    let default_id = domains.iter().map(|d| d.id).min();
    let domains: Vec<Value> = domains
        .iter()
        .map(|domain| domain_json(domain, Some(domain.id) == default_id))
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
            "emails_usage_this_month": usage.this_month,
            "emails_sent_last_24hrs": usage.last_24_hours,
        },
        "domains": domains,
        "key": {
            "name": key.name,
            "truncated": key.truncated.to_string(),
            "scope": &key.scope,
        },
    })))
}

/// `POST /v2/emails`: durably stored before it is answered, and delivered after that.
pub async fn create(
    state: web::Data<State>,
    BearerWithBody { key, call, body }: BearerWithBody,
) -> Result<HttpResponse, ApiError> {
    call.end(accept(&state, key, body).await)
}

async fn accept(state: &State, key: LiveKey, body: Body) -> Result<HttpResponse, ApiError> {
    let message = Message::parse(&body.json()?)?;
    let domain = sending_domain(state, &key, &message).await?;
    obey(&key.rule, &message)?;
    let message_id = state
        .db
        .write(move |conn| store::accept(conn, &key, domain.id, &message))
        .await?;
    state.accepted.notify_one();
    Ok(HttpResponse::Ok().json(Accepted { message_id }))
}

/// The domain that a message is sent from: found, then verified, then allowed for the key.
async fn sending_domain(
    state: &State,
    key: &LiveKey,
    message: &Message,
) -> Result<Domain, ApiError> {
    let account = key.account;
    let domain = match DomainName::of_address(message.from_domain()) {
        Some(name) => {
            state
                .db
                .read(move |conn| domains_store::find_by_name(conn, account, &name))
                .await?
        }
        None => None,
    };
    let Some(domain) = domain else {
        return Err(refused(
            "The from email domain is not found.",
            "domain_not_found",
            "The from email domain is not found in your account.",
        ));
    };
    if !domain.status.is_verified() {
        let sentence = "The from email domain is not verified.";
        return Err(refused(sentence, "domain_not_verified", sentence));
    }
    if !key.allows(domain.id) {
        let sentence = "The from email domain is not allowed for this API key.";
        return Err(refused(sentence, "domain_not_allowed", sentence));
    }
    Ok(domain)
}

/// Refuses what the key's rule does not allow: the sender first, then all that is wrong with the
/// recipients.
fn obey(rule: &Rule, message: &Message) -> Result<(), ApiError> {
    if !rule.senders.allows(&message.from.email) {
        let sentence = "The from email address is not allowed for this API key.";
        return Err(refused(sentence, "address_not_allowed", sentence));
    }
    let mut errors = FieldErrors::new();
    for (field, mailboxes) in [
        ("to", &message.to),
        ("cc", &message.cc),
        ("bcc", &message.bcc),
    ] {
        let is_wrong = |mailbox: &&Mailbox| !rule.recipients.allows(&mailbox.email);
        if let Some(wrong) = mailboxes.iter().find(is_wrong) {
            let sentence = format!(
                "The recipient {} is not allowed for this API key.",
                wrong.email
            );
            errors.insert(
                field.to_owned(),
                [("recipient_not_allowed", sentence.into())].into(),
            );
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(ApiError::unprocessable(
            "A recipient is not allowed for this API key.",
            errors,
        )),
    }
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

fn domain_json(domain: &Domain, is_default: bool) -> Value {
    json!({
        "id": domain.id,
        "domain_name": domain.name,
        "verification_status": domain.status.as_str(),
        "is_default": i32::from(is_default),
        "total_sent": 0,
        "total_delivered": 0,
        "total_bounced": 0,
        "total_complained": 0,
        "created_at": clock::for_api(&domain.created_at),
    })
}
