//! The API Keys pages: the list, a key's own page, and what can be done with a key.

mod edit;
mod end;
mod find;
mod form;
mod new;
mod rotate;
mod show;

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde::Deserialize;

use super::store::{self, Found, Key, Which};
use crate::accounts::session::SignedIn;
use crate::accounts::store::{AccountStatus, User, find_user};
use crate::app::State;
use crate::db;
use crate::http::{Error, page};

pub use edit::{edit, save};
pub use end::{confirm_delete, confirm_pause, delete, keep_going, pause, resume, stop};
pub use find::{find, find_form};
pub use new::{create, new};
pub use rotate::{rotate, rotate_form};
pub use show::show;

const PER_PAGE: i64 = 25;

/// The list, on its page and in answers that change it.
struct KeyList {
    keys: Vec<Key>,
    account_status: AccountStatus,
    which: Which,
    total: i64,
    page: i64,
    /// Sent beside another fragment, to take the place of the list that is shown.
    is_out_of_band: bool,
}

impl KeyList {
    fn pages(&self) -> i64 {
        pages(self.total)
    }

    fn shows_ended(&self) -> bool {
        self.which == Which::Ended
    }

    /// The address of one page of it.
    fn path(&self, page: i64) -> String {
        match self.which {
            Which::Live => format!("/api-keys?page={page}"),
            Which::Ended => format!("/api-keys?show=ended&page={page}"),
        }
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
    show: Option<String>,
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
        Some("gone") => Some("That key had ended already."),
        _ => None,
    };
    let which = parse_which(query.show.as_deref());
    let list = key_list(&state, &user, which, parse_page(query.page.as_deref())).await?;
    page::html(&IndexPage { user, list, notice })
}

/// Reads one page of keys; a page beyond the last becomes the last.
async fn key_list(state: &State, user: &User, which: Which, page: i64) -> Result<KeyList, Error> {
    let (account, live) = (user.account, user.key_count);
    let (keys, total, page) = state
        .db
        .read(move |conn| {
            let total = match which {
                Which::Live => live,
                Which::Ended => store::count_ended(conn, account)?,
            };
            let page = page.clamp(1, pages(total));
            let keys = store::list(conn, account, which, PER_PAGE, (page - 1) * PER_PAGE)?;
            Ok::<_, db::Error>((keys, total, page))
        })
        .await?;
    Ok(KeyList {
        keys,
        account_status: user.account_status,
        which,
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

fn parse_which(text: Option<&str>) -> Which {
    match text {
        Some("ended") => Which::Ended,
        _ => Which::Live,
    }
}

/// The list after a change, to be sent beside another fragment.
async fn fresh_list(state: &State, user: &User, page: i64) -> Result<KeyList, Error> {
    let user_id = user.id;
    let user = state
        .db
        .read(move |conn| find_user(conn, user_id))
        .await?
        .ok_or(Error::SignInNeeded)?;
    let mut list = key_list(state, &user, Which::Live, page).await?;
    list.is_out_of_band = true;
    Ok(list)
}

/// For htmx, the page of the list that the browser shows; `None` if it shows something else.
fn shown_list(request: &HttpRequest) -> Option<i64> {
    if !page::is_htmx(request) {
        return None;
    }
    let Some(url) = request.headers().get("hx-current-url") else {
        return Some(1);
    };
    let url = url::Url::parse(url.to_str().ok()?).ok()?;
    let value = |wanted| {
        let mut pairs = url.query_pairs();
        pairs.find_map(|(name, value)| (name == wanted).then(|| value.into_owned()))
    };
    let is_list = url.path() == "/api-keys";
    let is_live = parse_which(value("show").as_deref()) == Which::Live;
    (is_list && is_live).then(|| parse_page(value("page").as_deref()))
}

/// One key, with its end if it has ended.
async fn find_key(state: &State, user: &User, id: i64) -> Result<Key, Error> {
    let account = user.account;
    match state
        .db
        .read(move |conn| store::find(conn, account, id))
        .await?
    {
        Found::Live(key) | Found::Ended(key) => Ok(key),
        Found::Nothing => Err(Error::NotFound),
    }
}

/// One key, if it has not ended.
async fn find_live(state: &State, user: &User, id: i64) -> Result<Option<Key>, Error> {
    let account = user.account;
    let found = state
        .db
        .read(move |conn| store::find(conn, account, id))
        .await?;
    live(found)
}

/// `None`: it has ended.
fn live(found: Found) -> Result<Option<Key>, Error> {
    match found {
        Found::Live(key) => Ok(Some(key)),
        Found::Ended(_) => Ok(None),
        Found::Nothing => Err(Error::NotFound),
    }
}

fn path_of(id: i64) -> String {
    format!("/api-keys/{id}")
}

/// Where to go when a key turns out to have ended: its page says how.
fn to_ended(request: &HttpRequest, id: i64) -> HttpResponse {
    page::redirect(request, &format!("{}?notice=ended", path_of(id)))
}
