//! The form for a new key, and the only answer that shows the key.

use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use askama::Template;

use super::super::expiry::Expiry;
use super::super::secret::PlainKey;
use super::super::store::{self, CreateError, Edit, Key, NewKey};
use super::form::{CHOOSE_DOMAINS, KeyForm, Pairs, value};
use super::snippets::{Sample, Snippet};
use super::{Empty, KeyList, Shown, fresh_list};
use crate::accounts::session::{Acting, ThisSession};
use crate::accounts::store::User;
use crate::db::{self, Connection};
use crate::domains::store::{self as domains_store, Domain};
use crate::http::{Context, Error, Explanation, client_address, page};
use crate::token;

/// The create form, as a page or a dialog.
#[derive(Template)]
#[template(path = "keys/new.html", blocks = ["form"])]
struct NewPage {
    user: User,
    is_fragment: bool,
    nonce: String,
    form: KeyForm,
    domains: Vec<Domain>,
}

/// `GET /api-keys/new`
pub async fn new(
    context: web::Data<Context>,
    request: HttpRequest,
    Acting { user, session, .. }: Acting,
) -> Result<HttpResponse, Error> {
    let (account, user_id) = (user.account, user.id);
    let (nonce, domains) = session
        .write(&context.db, move |conn| {
            let nonce = issue_nonce(conn, user_id)?;
            Ok::<_, db::Error>((nonce, domains_store::list(conn, account)?))
        })
        .await??;
    let page = NewPage {
        user,
        is_fragment: page::is_htmx(&request),
        nonce,
        form: KeyForm::new().with_addresses(client_address(&request), None),
        domains,
    };
    show_form(&page, HttpResponse::Ok())
}

/// Each form has its own nonce and can create at most one key.
fn issue_nonce(conn: &mut Connection, user_id: i64) -> db::Result<String> {
    let nonce = token::random();
    store::issue_nonce(conn, user_id, &token::hash(&nonce))?;
    Ok(nonce)
}

fn show_form(page: &NewPage, response: HttpResponseBuilder) -> Result<HttpResponse, Error> {
    match page.is_fragment {
        true => page::answer(response, &page.as_form()),
        false => page::answer(response, page),
    }
}

/// `POST /api-keys`: creates a key and shows it in this answer and nowhere else.
pub async fn create(
    context: web::Data<Context>,
    request: HttpRequest,
    Acting {
        user,
        actor,
        session,
    }: Acting,
    web::Form(pairs): web::Form<Pairs>,
) -> Result<HttpResponse, Error> {
    let mut form = KeyForm::read(&pairs).with_addresses(client_address(&request), None);
    let nonce = value(&pairs, "nonce").to_owned();
    let mut domains = list_domains(&context, &user).await?;
    let Some(entered) = form.parse(&domains) else {
        return form_again(&context, &request, user, session, form, nonce, domains).await;
    };
    let new = NewKey::from(entered);
    let secret = PlainKey::generate();
    let (account, limit) = (user.account, context.config.key_limit);
    let (nonce_hash, plain) = (token::hash(&nonce), secret.clone());
    let created = session
        .write(&context.db, move |conn| {
            store::create_once(conn, account, &new, &plain, limit, &nonce_hash, &actor)
        })
        .await?;
    match created {
        Ok(key) => show_created(&context, &request, user, &key, &secret, Some(domains)).await,
        Err(CreateError::FormUsed(key)) => {
            let page = AlreadyCreatedPage {
                user,
                key: key.map(|key| *key),
                is_fragment: page::is_htmx(&request),
            };
            match page.is_fragment {
                true => page::html(&page.as_already()),
                false => page::html(&page),
            }
        }
        Err(CreateError::AccountPaused) => Err(account_paused()),
        Err(CreateError::Db(error)) => Err(error.into()),
        Err(refused) => {
            match refused {
                CreateError::UnknownDomain => {
                    form.errors.scope = Some(CHOOSE_DOMAINS.into());
                    // One of them was deleted since.
                    domains = list_domains(&context, &user).await?;
                }
                CreateError::LimitReached(limit) => form.errors.form = Some(limit_reached(limit)),
                _ => {
                    form.errors.form = Some(
                        "This form had expired. Nothing was created: press Create again.".into(),
                    );
                }
            }
            form_again(&context, &request, user, session, form, nonce, domains).await
        }
    }
}

pub(super) fn account_paused() -> Error {
    Error::Forbidden(Explanation {
        title: "This account is paused.",
        advice: "No keys can be created until the operator resumes it.",
        leads_to_login: false,
    })
}

pub(super) fn limit_reached(limit: i64) -> String {
    format!("You have {limit} keys, which is the limit. Delete one that you no longer use.")
}

impl From<Edit> for NewKey {
    fn from(entered: Edit) -> Self {
        Self {
            name: entered.name,
            description: entered.description,
            scope: entered.scope,
            expiry: entered.expiry.unwrap_or(Expiry::NEVER),
            rule: entered.rule,
        }
    }
}

pub(super) async fn list_domains(context: &Context, user: &User) -> Result<Vec<Domain>, Error> {
    let account = user.account;
    Ok(context
        .db
        .read(move |conn| domains_store::list(conn, account))
        .await?)
}

/// The form as it was sent: with its nonce, or a new one if that can no longer be used.
async fn form_again(
    context: &Context,
    request: &HttpRequest,
    user: User,
    session: ThisSession,
    form: KeyForm,
    nonce: String,
    domains: Vec<Domain>,
) -> Result<HttpResponse, Error> {
    let user_id = user.id;
    let nonce = session
        .write(&context.db, move |conn| {
            match store::knows_nonce(conn, user_id, &token::hash(&nonce))? {
                true => Ok::<_, db::Error>(nonce),
                false => issue_nonce(conn, user_id),
            }
        })
        .await??;
    let page = NewPage {
        user,
        is_fragment: page::is_htmx(request),
        nonce,
        form,
        domains,
    };
    show_form(&page, HttpResponse::UnprocessableEntity())
}

/// The only answer that shows a key.
#[derive(Template)]
#[template(path = "keys/created.html", blocks = ["created"])]
struct CreatedPage<'a> {
    user: &'a User,
    key: &'a Key,
    secret: &'a str,
    snippets: Vec<Snippet>,
    /// Whether the command works now: at least one domain in the key's scope is verified.
    can_send: bool,
    /// For the page behind the dialog; omitted if it could not be read.
    list: Option<KeyList>,
    is_fragment: bool,
}

/// `domains`: the account's, if they have been read.
pub(super) async fn show_created(
    context: &Context,
    request: &HttpRequest,
    user: User,
    key: &Key,
    secret: &PlainKey,
    domains: Option<Vec<Domain>>,
) -> Result<HttpResponse, Error> {
    let is_fragment = page::is_htmx(request);
    // From here on nothing may fail: the key exists, and this is the only time it is shown.
    let domain = sender_domain(domains.as_deref().unwrap_or_default(), key).cloned();
    let list = match is_fragment {
        true => {
            let shown = Shown::newest();
            fresh_list(context, &user, shown, domains).await.ok()
        }
        false => None,
    };
    let sample = Sample {
        origin: &page::origin(request, &context.config),
        sender: &sender(key, domain.as_ref()),
        recipient: &recipient(key, &user),
    };
    let page = CreatedPage {
        user: &user,
        key,
        secret: secret.expose(),
        snippets: sample.snippets(secret),
        can_send: domain.is_some_and(|domain| domain.status.is_verified()),
        list,
        is_fragment,
    };
    let mut response = match is_fragment {
        true => page::html(&page.as_created())?,
        false => page::html(&page)?,
    };
    // A proxy that compressed the answer would expose it to BREACH.
    response.headers_mut().insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    Ok(response)
}

/// A domain in the key's scope, a verified one if possible.
fn sender_domain<'a>(domains: &'a [Domain], key: &Key) -> Option<&'a Domain> {
    domains
        .iter()
        .filter(|domain| key.scope.allows(domain.id))
        .max_by_key(|domain| domain.status.is_verified())
}

/// An address that the key may send from.
fn sender(key: &Key, domain: Option<&Domain>) -> String {
    let domain = domain.map_or("your-domain.example", |domain| &domain.name);
    match key.rule.senders.iter().next() {
        Some(address) => address.to_owned(),
        None => format!("hello@{domain}"),
    }
}

/// An address that the key may send to: the person's own if allowed.
fn recipient(key: &Key, user: &User) -> String {
    match key.rule.recipients.iter().next() {
        None => user.email.clone(),
        Some(address) if address.contains('@') => address.to_owned(),
        Some(domain) => format!("you@{domain}"),
    }
}

/// A form that was sent twice: the key exists, and cannot be shown again.
#[derive(Template)]
#[template(path = "keys/already_created.html", blocks = ["already"])]
struct AlreadyCreatedPage {
    user: User,
    key: Option<Key>,
    is_fragment: bool,
}
