//! `GET /v2/verify`: for gateways that check whether a request may pass.

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderName;
use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::bearer::Bearer;
use super::policy::{self, Sending};
use super::store::LiveKey;
use crate::domains::name::DomainName;
use crate::http::{ApiError, Context};
use crate::keys::scope::Scope;

const ACCOUNT: HeaderName = HeaderName::from_static("x-tosend-account");
const KEY: HeaderName = HeaderName::from_static("x-tosend-key");
const SCOPE: HeaderName = HeaderName::from_static("x-tosend-scope");

/// The parameters of a query. Gateways such as Caddy add those of the client, which are ignored.
type Query = web::Query<Vec<(String, String)>>;

#[derive(Serialize)]
struct Verdict<'a> {
    valid: bool,
    account: AccountJson,
    key: KeyJson<'a>,
}

#[derive(Serialize)]
struct AccountJson {
    id: i64,
}

#[derive(Serialize)]
struct KeyJson<'a> {
    id: i64,
    name: &'a str,
    truncated: String,
    scope: &'a Scope,
}

/// `GET /v2/verify`, also with `?domain=`: returns the caller, in headers and in the body.
pub async fn verify(
    context: web::Data<Context>,
    Bearer(key, call): Bearer,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    call.end(answer(&context, &key, &query).await)
}

/// Envoy's form of the request: below `/v2/verify`, with the path, query and method of the request
/// that it is holding.
pub async fn verify_for_envoy(Bearer(key, call): Bearer) -> Result<HttpResponse, ApiError> {
    call.end(Ok(verdict(&key)))
}

async fn answer(
    context: &Context,
    key: &LiveKey,
    query: &[(String, String)],
) -> Result<HttpResponse, ApiError> {
    // Reported only after the key has been checked.
    if let Some(domain) = asked_domain(query)?
        && !may_send_from(context, key, domain).await?
    {
        return Err(domain_not_allowed());
    }
    Ok(verdict(key))
}

/// The domain for which the gateway also asks whether the key may send from it. Another spelling
/// must not be ignored, because that would allow every domain.
fn asked_domain(query: &[(String, String)]) -> Result<Option<&str>, ApiError> {
    let is_meant = |name: &str| {
        let letters = name.chars().filter(char::is_ascii_alphabetic);
        letters.collect::<String>().eq_ignore_ascii_case("domain")
    };
    let meant: Vec<_> = query.iter().filter(|(name, _)| is_meant(name)).collect();
    match meant[..] {
        [] => Ok(None),
        [(name, domain)] if name == "domain" => Ok(Some(domain)),
        _ => Err(ApiError::bad_request(
            "Name one domain only, as `domain=acme.com`.",
        )),
    }
}

/// The same answer whatever the reason.
fn domain_not_allowed() -> ApiError {
    let sentence = "The domain is not allowed for this API key.";
    ApiError::field(
        StatusCode::FORBIDDEN,
        sentence,
        "domain",
        "domain_not_allowed",
        sentence,
    )
}

/// Whether the account owns the domain, it is verified, and the key's scope includes it.
async fn may_send_from(context: &Context, key: &LiveKey, domain: &str) -> Result<bool, ApiError> {
    let Ok(name) = DomainName::parse(domain) else {
        return Ok(false);
    };
    let found = policy::find_domains(&context.db, key, vec![name]).await?;
    let sending = Sending {
        domain: found.values().next(),
        ..Sending::default()
    };
    Ok(policy::decide(key, &sending).is_ok())
}

fn verdict(key: &LiveKey) -> HttpResponse {
    let scope = match &key.scope {
        Scope::AllDomains => "all".to_owned(),
        Scope::Domains(_) => key.scope.to_string(),
    };
    HttpResponse::Ok()
        .insert_header((ACCOUNT, key.account.0))
        .insert_header((KEY, key.id))
        .insert_header((SCOPE, scope))
        .json(Verdict {
            valid: true,
            account: AccountJson { id: key.account.0 },
            key: KeyJson {
                id: key.id,
                name: &key.name,
                truncated: key.truncated.to_string(),
                scope: &key.scope,
            },
        })
}
