//! The Domains pages.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde::Deserialize;

use super::name::DomainName;
use super::store::{self, Deleted, Domain};
use crate::accounts::session::{Acting, SignedIn};
use crate::accounts::store::User;
use crate::app::State;
use crate::http::{Error, page};

#[derive(Template)]
#[template(path = "domains/index.html")]
struct IndexPage {
    user: User,
    domains: Vec<Domain>,
    name: String,
    name_error: Option<String>,
}

/// `GET /domains`
pub async fn index(
    state: web::Data<State>,
    SignedIn(user): SignedIn,
) -> Result<HttpResponse, Error> {
    page::html(&index_page(&state, user).await?)
}

async fn index_page(state: &State, user: User) -> Result<IndexPage, Error> {
    let account = user.account;
    let domains = state
        .db
        .read(move |conn| store::list(conn, account))
        .await?;
    Ok(IndexPage {
        user,
        domains,
        name: String::new(),
        name_error: None,
    })
}

#[derive(Deserialize)]
pub struct CreateForm {
    #[serde(default)]
    name: String,
}

/// `POST /domains`: adds a domain, which is pending until it is verified.
pub async fn create(
    state: web::Data<State>,
    request: HttpRequest,
    Acting { user, actor }: Acting,
    web::Form(form): web::Form<CreateForm>,
) -> Result<HttpResponse, Error> {
    let account = user.account;
    let problem = match DomainName::parse(&form.name) {
        Ok(name) => {
            let added = state
                .db
                .write(move |conn| store::add(conn, account, &name, &actor))
                .await?;
            match added {
                Some(domain) => {
                    return Ok(page::redirect(&request, &format!("/domains/{}", domain.id)));
                }
                None => "This domain is in your list already.".to_owned(),
            }
        }
        Err(why) => why.to_string(),
    };
    let mut page = index_page(&state, user).await?;
    page.name = form.name;
    page.name_error = Some(problem);
    page::unprocessable(&page)
}

#[derive(Template)]
#[template(path = "domains/show.html")]
struct ShowPage {
    user: User,
    domain: Domain,
    /// What the operator runs to attest a pending domain.
    command: String,
}

/// `GET /domains/{id}`
pub async fn show(
    state: web::Data<State>,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let domain = find(&state, &user, *id).await?;
    let command = format!(
        "{} domain add --account={} {} --verified",
        page::shell_quote(&state.program),
        page::shell_quote(&user.email),
        page::shell_quote(&domain.name),
    );
    page::html(&ShowPage {
        user,
        domain,
        command,
    })
}

#[derive(Template)]
#[template(path = "domains/delete.html")]
struct DeletePage {
    user: User,
    domain: Domain,
    /// The live keys that stand against it, by id and name.
    keys: Vec<(i64, String)>,
}

/// `GET /domains/{id}/delete`
pub async fn confirm_delete(
    state: web::Data<State>,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    page::html(&delete_page(&state, user, *id).await?)
}

/// `POST /domains/{id}/delete`: refused while live keys are restricted to the domain.
pub async fn delete(
    state: web::Data<State>,
    request: HttpRequest,
    Acting { user, actor }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let (account, id) = (user.account, *id);
    let deleted = state
        .db
        .write(move |conn| store::delete(conn, account, id, &actor))
        .await?;
    match deleted {
        Deleted::Yes => Ok(page::redirect(&request, "/domains")),
        Deleted::NoSuchDomain => Err(Error::NotFound),
        Deleted::InUse => page::unprocessable(&delete_page(&state, user, id).await?),
    }
}

async fn delete_page(state: &State, user: User, id: i64) -> Result<DeletePage, Error> {
    let domain = find(state, &user, id).await?;
    let account = user.account;
    let keys = state
        .db
        .read(move |conn| store::list_keys(conn, account, id))
        .await?;
    Ok(DeletePage { user, domain, keys })
}

async fn find(state: &State, user: &User, id: i64) -> Result<Domain, Error> {
    let account = user.account;
    state
        .db
        .read(move |conn| store::find(conn, account, id))
        .await?
        .ok_or(Error::NotFound)
}
