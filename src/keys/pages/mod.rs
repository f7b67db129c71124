//! The API Keys page: the list, the dialog that shows a new key once, and the end of a key.

use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde::Deserialize;
use serde_json::json;

use super::expiry::Expiry;
use super::name::{Description, KeyName};
use super::rule::Rule;
use super::scope::NewScope;
use super::secret::PlainKey;
use super::store::{self, CreateError, Found, Key, NewKey, Which};
use crate::accounts::event::Actor;
use crate::accounts::session::{Acting, SignedIn};
use crate::accounts::store::{AccountStatus, User};
use crate::app::State;
use crate::db::{self, Connection};
use crate::domains::store::{self as domains_store, Domain};
use crate::http::{Error, page};
use crate::token;

const PER_PAGE: i64 = 25;
const CHOOSE_A_DOMAIN: &str = "Choose “All domains” or one of your domains.";

/// The list, on its page and in answers that change it.
struct KeyList {
    keys: Vec<Key>,
    account_status: AccountStatus,
    total: i64,
    page: i64,
    /// Sent beside another fragment, to take the place of the list that is shown.
    is_out_of_band: bool,
}

impl KeyList {
    fn pages(&self) -> i64 {
        pages(self.total)
    }
}

#[derive(Template)]
#[template(path = "keys/index.html")]
struct IndexPage {
    user: User,
    list: KeyList,
    notice: Option<&'static str>,
}

#[derive(Deserialize)]
pub struct IndexQuery {
    page: Option<String>,
    notice: Option<String>,
}

/// `GET /api-keys`
pub async fn index(
    state: web::Data<State>,
    SignedIn(user): SignedIn,
    query: web::Query<IndexQuery>,
) -> Result<HttpResponse, Error> {
    let notice = match query.notice.as_deref() {
        Some("deleted") => Some("The key was deleted. It no longer works."),
        Some("gone") => Some("That key had been deleted already."),
        _ => None,
    };
    let list = key_list(&state, &user, parse_page(query.page.as_deref())).await?;
    page::html(&IndexPage { user, list, notice })
}

/// Reads one page of keys; a page beyond the last becomes the last.
async fn key_list(state: &State, user: &User, page: i64) -> Result<KeyList, Error> {
    let (account, total) = (user.account, user.key_count);
    let page = page.clamp(1, pages(total));
    let keys = state
        .db
        .read(move |conn| store::list(conn, account, Which::Live, PER_PAGE, (page - 1) * PER_PAGE))
        .await?;
    Ok(KeyList {
        keys,
        account_status: user.account_status,
        total,
        page,
        is_out_of_band: false,
    })
}

fn pages(total: i64) -> i64 {
    ((total + PER_PAGE - 1) / PER_PAGE).max(1)
}

fn parse_page(text: Option<&str>) -> i64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The create form, as a page of its own and as the dialog.
#[derive(Template)]
#[template(path = "keys/new.html", blocks = ["form"])]
struct NewPage {
    user: User,
    is_fragment: bool,
    nonce: String,
    name: String,
    /// The value of the chosen option: empty for all domains, or an id.
    domain: String,
    domains: Vec<Domain>,
    name_error: Option<String>,
    domain_error: Option<String>,
    form_error: Option<String>,
}

/// `GET /api-keys/new`
pub async fn new(
    state: web::Data<State>,
    request: HttpRequest,
    SignedIn(user): SignedIn,
) -> Result<HttpResponse, Error> {
    let form = new_page(&state, &request, user).await?;
    show_form(&form, HttpResponse::Ok())
}

/// A form with a nonce of its own, which makes one key at most.
async fn new_page(state: &State, request: &HttpRequest, user: User) -> Result<NewPage, Error> {
    let (account, user_id) = (user.account, user.id);
    let (nonce, domains) = state
        .db
        .write(move |conn| {
            let nonce = issue_nonce(conn, user_id)?;
            Ok::<_, db::Error>((nonce, domains_store::list(conn, account)?))
        })
        .await?;
    Ok(NewPage {
        user,
        is_fragment: page::is_htmx(request),
        nonce,
        name: String::new(),
        domain: String::new(),
        domains,
        name_error: None,
        domain_error: None,
        form_error: None,
    })
}

fn issue_nonce(conn: &mut Connection, user_id: i64) -> db::Result<String> {
    let nonce = token::random();
    store::issue_nonce(conn, user_id, &token::hash(&nonce))?;
    Ok(nonce)
}

fn show_form(
    form: &NewPage,
    response: actix_web::HttpResponseBuilder,
) -> Result<HttpResponse, Error> {
    match form.is_fragment {
        true => page::answer(response, &form.as_form()),
        false => page::answer(response, form),
    }
}

#[derive(Deserialize)]
pub struct CreateForm {
    #[serde(default)]
    name: String,
    /// A lost field must not widen a key: absent is an error, empty means all domains.
    domain: Option<String>,
    #[serde(default)]
    nonce: String,
}

/// What the form says, or what is wrong with it: the errors of the name and of the domain.
fn parse_form(form: &CreateForm) -> Result<NewKey, (Option<String>, Option<String>)> {
    let name = KeyName::parse(&form.name).map_err(|why| why.to_string());
    let scope = match form.domain.as_deref() {
        Some("") => Ok(NewScope::AllDomains),
        Some(id) => id
            .parse()
            .map(|id| NewScope::Domains(vec![id]))
            .map_err(|_| CHOOSE_A_DOMAIN.to_owned()),
        None => Err(CHOOSE_A_DOMAIN.to_owned()),
    };
    match (name, scope) {
        (Ok(name), Ok(scope)) => Ok(NewKey {
            name,
            description: Description::default(),
            scope,
            expiry: Expiry::NEVER,
            rule: Rule::default(),
        }),
        (name, scope) => Err((name.err(), scope.err())),
    }
}

/// The answer that shows a key, once.
#[derive(Template)]
#[template(path = "keys/created.html", blocks = ["created"])]
struct CreatedPage<'a> {
    user: &'a User,
    key: &'a Key,
    secret: &'a str,
    curl: String,
    /// Whether the command works now: some domain that the key opens is verified.
    can_send: bool,
    /// For the page behind the dialog; left out if it could not be read.
    list: Option<KeyList>,
    is_fragment: bool,
}

/// `POST /api-keys`: creates a key and shows it in this answer and nowhere else.
pub async fn create(
    state: web::Data<State>,
    request: HttpRequest,
    Acting { user, actor }: Acting,
    web::Form(form): web::Form<CreateForm>,
) -> Result<HttpResponse, Error> {
    let new = match parse_form(&form) {
        Ok(new) => new,
        Err((name_error, domain_error)) => {
            let mut page = refill(&state, &request, user, form).await?;
            page.name_error = name_error;
            page.domain_error = domain_error.or(page.domain_error);
            return show_form(&page, HttpResponse::UnprocessableEntity());
        }
    };
    let secret = PlainKey::generate();
    let account = user.account;
    let (limit, nonce_hash, plain) = (
        state.config.key_limit,
        token::hash(&form.nonce),
        secret.clone(),
    );
    let created = state
        .db
        .write(move |conn| {
            store::create_once(conn, account, &new, &plain, limit, &nonce_hash, &actor)
        })
        .await;
    match created {
        Ok(key) => show_created(&state, &request, user, &key, &secret).await,
        Err(CreateError::FormUsed(key)) => {
            let is_fragment = page::is_htmx(&request);
            let page = AlreadyCreatedPage {
                user,
                key: key.map(|key| *key),
                is_fragment,
            };
            match is_fragment {
                true => page::html(&page.as_already()),
                false => page::html(&page),
            }
        }
        Err(CreateError::AccountPaused) => Err(Error::AccountPaused),
        Err(CreateError::Db(error)) => Err(error.into()),
        Err(refused) => {
            let mut page = refill(&state, &request, user, form).await?;
            match refused {
                CreateError::UnknownDomain => page.domain_error = Some(CHOOSE_A_DOMAIN.into()),
                CreateError::LimitReached(limit) => {
                    page.form_error = Some(format!(
                        "You have {limit} keys, which is the limit. Delete one that is not used any more."
                    ));
                }
                _ => {
                    page.form_error = Some(
                        "This form was too old. Nothing was created; press Create again.".into(),
                    );
                }
            }
            show_form(&page, HttpResponse::UnprocessableEntity())
        }
    }
}

/// The form again, as it was sent: with its nonce, or a fresh one where that is worth nothing.
async fn refill(
    state: &State,
    request: &HttpRequest,
    user: User,
    form: CreateForm,
) -> Result<NewPage, Error> {
    let (account, user_id, nonce) = (user.account, user.id, form.nonce);
    let (nonce, domains) = state
        .db
        .write(move |conn| {
            let nonce = match store::knows_nonce(conn, user_id, &token::hash(&nonce))? {
                true => nonce,
                false => issue_nonce(conn, user_id)?,
            };
            Ok::<_, db::Error>((nonce, domains_store::list(conn, account)?))
        })
        .await?;
    // A choice that is gone must not come back as "All domains".
    let domain_error = match form.domain.as_deref() {
        Some("") => None,
        Some(id) if domains.iter().any(|d| d.id.to_string() == id) => None,
        _ => Some(CHOOSE_A_DOMAIN.to_owned()),
    };
    Ok(NewPage {
        user,
        is_fragment: page::is_htmx(request),
        nonce,
        name: form.name,
        domain: form.domain.unwrap_or_default(),
        domains,
        name_error: None,
        domain_error,
        form_error: None,
    })
}

async fn show_created(
    state: &State,
    request: &HttpRequest,
    user: User,
    key: &Key,
    secret: &PlainKey,
) -> Result<HttpResponse, Error> {
    let is_fragment = page::is_htmx(request);
    // From here on nothing may fail: the key exists and is shown now or never.
    let list = match is_fragment {
        true => fresh_list(state, &user, 1).await.ok(),
        false => None,
    };
    let sender = sender_domain(state, &user, key).await;
    let page = CreatedPage {
        user: &user,
        key,
        secret: secret.expose(),
        curl: curl_line(
            &page::origin(request, &state.config),
            sender.as_ref().map_or("your-domain.example", |d| &d.name),
            &user.email,
            secret,
        ),
        can_send: sender.is_some_and(|domain| domain.status.is_verified()),
        list,
        is_fragment,
    };
    let mut response = match is_fragment {
        true => page::html(&page.as_created())?,
        false => page::html(&page)?,
    };
    // A proxy that compressed the answer would open it to BREACH.
    response.headers_mut().insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    Ok(response)
}

/// The list after a change, to be sent beside another fragment.
async fn fresh_list(state: &State, user: &User, page: i64) -> Result<KeyList, Error> {
    let user_id = user.id;
    let user = state
        .db
        .read(move |conn| crate::accounts::store::find_user(conn, user_id))
        .await?
        .ok_or(Error::SignInNeeded)?;
    let mut list = key_list(state, &user, page).await?;
    list.is_out_of_band = true;
    Ok(list)
}

/// A domain that the key opens, a verified one if there is one.
async fn sender_domain(state: &State, user: &User, key: &Key) -> Option<Domain> {
    let account = user.account;
    let domains = state
        .db
        .read(move |conn| domains_store::list(conn, account))
        .await
        .unwrap_or_default();
    domains
        .into_iter()
        .filter(|domain| key.scope.allows(domain.id))
        .max_by_key(|domain| domain.status.is_verified())
}

/// A complete command that sends an email with the key.
fn curl_line(origin: &str, sender_domain: &str, recipient: &str, secret: &PlainKey) -> String {
    let body = format!(
        r#"{{"from": {}, "to": [{}], "subject": "Hello from ToSend", "text": "It works."}}"#,
        json!({"email": format!("hello@{sender_domain}")}),
        json!({"email": recipient}),
    );
    format!(
        "curl {} \\\n  -H {} \\\n  -H {} \\\n  -d {}",
        page::shell_quote(&format!("{origin}/v2/emails")),
        page::shell_quote(&format!("Authorization: Bearer {}", secret.expose())),
        page::shell_quote("Content-Type: application/json"),
        page::shell_quote(&body),
    )
}

/// A form that was sent twice: the key exists, and cannot be shown again.
#[derive(Template)]
#[template(path = "keys/already_created.html", blocks = ["already"])]
struct AlreadyCreatedPage {
    user: User,
    key: Option<Key>,
    is_fragment: bool,
}

#[derive(Template)]
#[template(path = "keys/delete.html", blocks = ["confirm"])]
struct DeletePage {
    user: User,
    key: Key,
    is_fragment: bool,
}

/// `GET /api-keys/{id}/delete`: names the key and what deleting it does.
pub async fn confirm_delete(
    state: web::Data<State>,
    request: HttpRequest,
    SignedIn(user): SignedIn,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let (account, id) = (user.account, *id);
    let found = state
        .db
        .read(move |conn| store::find(conn, account, id))
        .await?;
    let Some(key) = live(found)? else {
        return Ok(page::redirect(&request, "/api-keys?notice=gone"));
    };
    let page = DeletePage {
        user,
        key,
        is_fragment: page::is_htmx(&request),
    };
    match page.is_fragment {
        true => page::html(&page.as_confirm()),
        false => page::html(&page),
    }
}

/// What takes the place of the dialog after a delete, and the list beside it.
#[derive(Template)]
#[template(path = "keys/_deleted.html")]
struct DeletedFragment {
    key: Key,
    list: KeyList,
}

/// `POST /api-keys/{id}/delete`: answered when the key no longer works, anywhere.
pub async fn delete(
    state: web::Data<State>,
    request: HttpRequest,
    Acting { user, actor }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let (account, id) = (user.account, *id);
    let found = state
        .db
        .write(move |conn| store::delete(conn, account, id, &actor))
        .await?;
    let Some(key) = live(found)? else {
        return Ok(page::redirect(&request, "/api-keys?notice=gone"));
    };
    if !page::is_htmx(&request) {
        return Ok(page::redirect(&request, "/api-keys?notice=deleted"));
    }
    match fresh_list(&state, &user, shown_page(&request)).await {
        Ok(list) => page::html(&DeletedFragment { key, list }),
        Err(_) => Ok(page::redirect(&request, "/api-keys?notice=deleted")),
    }
}

/// The page of the list that the browser shows, as htmx tells it.
fn shown_page(request: &HttpRequest) -> i64 {
    let url = request
        .headers()
        .get("hx-current-url")
        .and_then(|url| url::Url::parse(url.to_str().ok()?).ok());
    let page = url
        .as_ref()
        .and_then(|url| url.query_pairs().find(|(name, _)| name == "page"));
    parse_page(page.as_ref().map(|(_, value)| value.as_ref()))
}

/// `None`: it has ended.
fn live(found: Found) -> Result<Option<Key>, Error> {
    match found {
        Found::Live(key) => Ok(Some(key)),
        Found::Ended(_) => Ok(None),
        Found::Nothing => Err(Error::NotFound),
    }
}

#[derive(Template)]
#[template(path = "keys/_row.html")]
struct RowFragment {
    key: Key,
    account_status: AccountStatus,
}

/// `POST /api-keys/{id}/pause`: the key is refused from now on, until it is resumed.
pub async fn pause(
    state: web::Data<State>,
    request: HttpRequest,
    Acting { user, actor }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    set_paused(&state, &request, &user, actor, *id, true).await
}

/// `POST /api-keys/{id}/resume`
pub async fn resume(
    state: web::Data<State>,
    request: HttpRequest,
    Acting { user, actor }: Acting,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    set_paused(&state, &request, &user, actor, *id, false).await
}

async fn set_paused(
    state: &State,
    request: &HttpRequest,
    user: &User,
    actor: Actor,
    id: i64,
    is_paused: bool,
) -> Result<HttpResponse, Error> {
    let (account, account_status) = (user.account, user.account_status);
    let found = state
        .db
        .write(move |conn| match is_paused {
            true => store::pause(conn, account, id, &actor),
            false => store::resume(conn, account, id, &actor),
        })
        .await?;
    match live(found)? {
        None => Ok(page::redirect(request, "/api-keys?notice=gone")),
        Some(key) if page::is_htmx(request) => page::html(&RowFragment {
            key,
            account_status,
        }),
        Some(_) => Ok(page::redirect(request, "/api-keys")),
    }
}
