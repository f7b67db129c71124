//! The API Keys pages: the list, the page of a key, and the actions on keys.

mod edit;
mod emails;
mod end;
mod find;
mod first_request;
mod form;
mod new;
mod rotate;
mod rotation_note;
mod show;
mod shown_key;
mod snippets;
mod start;
mod waiting;

use std::iter::once;

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use chrono::{NaiveDateTime, TimeDelta};
use serde::Deserialize;

use super::standing::SOON;
use super::store::{self, Found, Key};
use super::view::{Column, DomainFilter, Sort, StatusFilter, View, Which};
use crate::accounts::session::SignedIn;
use crate::accounts::store::{AccountStatus, User, find_user};
use crate::clock;
use crate::db::{self, journal};
use crate::domains::store::{self as domains_store, Domain};
use crate::http::choice::Choice;
use crate::http::{Context, Error, page, preferences};
use crate::number::{counted, grouped};
use crate::outbox::store as outbox_store;

use emails::Emails;
use shown_key::ListedKey;
use start::Start;

pub use edit::{edit, save};
pub use end::{
    cancel_stop, confirm_delete, confirm_pause, confirm_stop, delete, pause, resume, stop,
};
pub use find::{find_form, find_pasted};
pub use first_request::first_request;
pub use new::{create, new};
pub use rotate::{rotate, rotate_form};
pub use show::show;
pub use start::start;
pub use waiting::first_uses;

const PER_PAGE: i64 = 25;
/// How long after a restore the page tells of it.
const SHOWN_AFTER_RESTORE: TimeDelta = TimeDelta::days(7);
/// Counting further would take long and add no information.
const MOST_WAITING: usize = 1_000;

/// The list, on its page and in answers that change it.
struct KeyList {
    keys: Vec<Key>,
    emails: Emails,
    account_status: AccountStatus,
    view: View,
    /// For filtering by domain.
    domains: Vec<Domain>,
    /// How many keys the view contains.
    total: i64,
    page: i64,
    /// Sent beside another fragment, to replace the list shown.
    is_out_of_band: bool,
}

impl KeyList {
    fn pages(&self) -> i64 {
        pages(self.total)
    }

    fn shows_ended(&self) -> bool {
        self.view.which == Which::Ended
    }

    fn title(&self) -> &'static str {
        match self.view.which {
            Which::Live => "API Keys",
            Which::Ended => "Ended API Keys",
        }
    }

    fn rows(&self) -> Vec<ListedKey<'_>> {
        let keys = self.keys.iter();
        keys.map(|key| ListedKey::new(key, &self.account_status, &self.emails))
            .collect()
    }

    /// Whether there is anything to search.
    fn has_toolbar(&self) -> bool {
        self.total > 0 || self.view.is_filtered()
    }

    /// Why the list is empty, if it is.
    fn emptiness(&self) -> Option<Empty> {
        let why = match self.view.which {
            _ if self.view.is_filtered() => Empty::NoMatch,
            Which::Ended => Empty::NoneEnded,
            Which::Live => Empty::NoneYet,
        };
        (self.total == 0).then_some(why)
    }

    fn heads(&self) -> Vec<Head> {
        let sorted = |label, id, column: Column| Head {
            label,
            sorter: Some(Sorter {
                id,
                path: self.view.sorted_by(&column).path(1),
                aria_sort: self.view.aria_sort(&column),
                icon: (self.view.sort.by == column).then_some(match self.view.sort.is_descending {
                    true => "down",
                    false => "up",
                }),
            }),
        };
        let plain = |label| Head {
            label,
            sorter: None,
        };
        vec![
            sorted("Name", "name", Column::Name),
            plain("Key"),
            plain("Domain"),
            match self.view.which {
                Which::Live => plain("Status"),
                Which::Ended => sorted("Status", "ended", Column::Ended),
            },
            sorted("Created", "created", Column::Created),
            sorted("Last used", "used", Column::LastUsed),
            plain("Calls, 24 hours"),
        ]
    }

    /// The statuses to filter by.
    fn statuses(&self) -> Vec<Choice> {
        let offered = StatusFilter::offered(&self.account_status);
        let choices = offered.map(|status| {
            let is_chosen = self.view.status == Some(status);
            Choice::new(status.as_str(), status.label(), is_chosen)
        });
        once(Choice::new("", "Any status", false))
            .chain(choices)
            .collect()
    }

    /// The scopes to filter by.
    fn scopes(&self) -> Vec<Choice> {
        let choice = |filter: DomainFilter, label: &str| {
            let is_chosen = self.view.domain == Some(filter);
            Choice::new(filter.spelled(), label, is_chosen)
        };
        let domains = self.domains.iter();
        let domains = domains.map(|domain| choice(DomainFilter::One(domain.id), &domain.name));
        [
            Choice::new("", "Any domain", false),
            choice(DomainFilter::AllDomains, "All domains"),
        ]
        .into_iter()
        .chain(domains)
        .collect()
    }

    /// The available sort orders.
    fn orders(&self) -> Vec<Choice> {
        let orders = Sort::all(self.view.which).into_iter();
        orders
            .map(|(sort, label)| Choice::new(sort.spelled(), label, self.view.sort == sort))
            .collect()
    }

    /// The number of keys, for people.
    fn count(&self) -> String {
        let keys = counted(self.total, "key");
        match self.view.is_filtered() {
            true => format!("{keys} found"),
            false => keys,
        }
    }
}

/// Why the list is empty.
enum Empty {
    NoMatch,
    NoneEnded,
    NoneYet,
}

/// A column heading.
struct Head {
    label: &'static str,
    sorter: Option<Sorter>,
}

/// A link that sorts by a column.
struct Sorter {
    id: &'static str,
    path: String,
    /// `None`: the list is sorted by another column.
    aria_sort: Option<&'static str>,
    icon: Option<&'static str>,
}

/// The list that replaces the one shown, and how many keys were found, for screen readers.
#[derive(Template)]
#[template(path = "keys/_searched.html")]
struct SearchedFragment {
    list: KeyList,
}

#[derive(Template)]
#[template(path = "keys/index.html")]
struct IndexPage {
    user: User,
    list: KeyList,
    notice: Option<&'static str>,
    /// The steps to the first email, until they are done.
    start: Option<Start>,
    shows_tips: bool,
    /// Whether emails are delivered.
    has_relay: bool,
    /// How many emails are not delivered yet, counted up to `MOST_WAITING`.
    waiting: usize,
    /// The relay's message, if it refuses this server.
    refusal: Option<String>,
    /// When the keys that expire soon do, the first one first.
    expiries: Vec<NaiveDateTime>,
    /// When an older copy of the database was restored, if that was lately.
    restored_at: Option<NaiveDateTime>,
}

/// A key that expires within this time is warned of more visibly.
const VERY_SOON: TimeDelta = TimeDelta::days(3);

impl IndexPage {
    /// The sentence about keys that expire soon, if there are any.
    fn expiring(&self) -> Option<String> {
        let first = clock::left(self.expiries.first()?);
        Some(match self.expiries.len() {
            1 => format!("A key expires in {first}."),
            keys => format!("{keys} keys expire within two weeks, the first one in {first}."),
        })
    }

    fn is_urgent(&self) -> bool {
        let first = self.expiries.first();
        first.is_some_and(|first| *first <= clock::now() + VERY_SOON)
    }

    /// A domain that keys are restricted to or that the account has added, and that cannot send.
    fn unverified(&self) -> Option<&Domain> {
        let mut domains = self.list.domains.iter();
        let found = domains.find(|domain| !domain.status.is_verified());
        // The steps say it already.
        found.filter(|_| self.start.is_none())
    }

    /// The number of waiting emails for people, if there are any.
    fn waiting(&self) -> Option<String> {
        let verb = if self.has_relay { "waiting" } else { "held" };
        match self.waiting {
            0 => None,
            1 => Some(format!("1 email is {verb}.")),
            MOST_WAITING.. => Some(format!(
                "{} emails or more are {verb}.",
                grouped(MOST_WAITING as i64)
            )),
            count => Some(format!("{count} emails are {verb}.")),
        }
    }
}

/// `GET /api-keys`; for htmx only the list.
pub async fn index(
    context: web::Data<Context>,
    request: HttpRequest,
    SignedIn(user): SignedIn,
    query: web::Query<Notice>,
) -> Result<HttpResponse, Error> {
    let notice = match query.notice.as_deref() {
        Some("deleted") => Some("The key was deleted. It no longer works."),
        Some("gone") => Some("That key had ended already."),
        _ => None,
    };
    let (view, page) = View::parse(request.query_string());
    let list = key_list(&context, &user, view, page, None).await?;
    if page::is_htmx(&request) {
        // The form sends every field, but the address contains only those that were chosen.
        let path = list.view.path(list.page);
        let mut answer = page::html(&SearchedFragment { list })?;
        page::replace_url(&mut answer, &path);
        return Ok(answer);
    }
    let start = shown_start(&context, &request, &user, &list, query.start.is_some()).await?;
    let account = user.account;
    let (waiting, refusal, expiries, restored_at) = context
        .db
        .read(move |conn| {
            let waiting = outbox_store::count_waiting_emails(conn, account, MOST_WAITING as i64)?;
            let refusal = match waiting {
                0 => None,
                _ => outbox_store::refusal_by_relay(conn, account)?,
            };
            let restored_at =
                journal::find_recovery(conn)?.filter(|at| clock::now() - *at < SHOWN_AFTER_RESTORE);
            let expiries = store::expiries_before(conn, account, clock::now() + SOON)?;
            Ok::<_, db::Error>((waiting, refusal, expiries, restored_at))
        })
        .await?;
    page::html(&IndexPage {
        user,
        list,
        notice,
        shows_tips: start.is_none() && !preferences::current().hides_tips,
        start,
        has_relay: context.config.relay.is_some(),
        waiting,
        refusal,
        expiries,
        restored_at,
    })
}

#[derive(Deserialize)]
pub struct Notice {
    notice: Option<String>,
    /// Asks for the steps to the first email, also when they are done or hidden.
    start: Option<String>,
}

/// The steps to the first email: while there is one to do, or because somebody asked for them.
async fn shown_start(
    context: &Context,
    request: &HttpRequest,
    user: &User,
    list: &KeyList,
    is_wanted: bool,
) -> Result<Option<Start>, Error> {
    let is_new = list.view.is_usual() && list.keys.iter().all(|key| key.last_use.is_none());
    if !is_wanted && (!is_new || preferences::current().hides_start) {
        return Ok(None);
    }
    let start = Start::find(context, request, user, &list.domains).await?;
    Ok((is_wanted || !start.is_done()).then_some(start))
}

/// Reads one page of keys; beyond the last page, returns the last. `domains`: the account's, if they
/// have been read already.
async fn key_list(
    context: &Context,
    user: &User,
    view: View,
    page: i64,
    domains: Option<Vec<Domain>>,
) -> Result<KeyList, Error> {
    let (account, status, live) = (user.account, user.account_status, user.key_count);
    context
        .db
        .read(move |conn| {
            let domains = match domains {
                Some(domains) => domains,
                None => domains_store::list(conn, account)?,
            };
            let found = match view.is_usual() {
                true => None,
                false => Some(store::search(conn, account, status, &view)?),
            };
            let total = match (&found, view.which) {
                (Some(ids), _) => ids.len() as i64,
                (None, Which::Live) => live,
                (None, Which::Ended) => store::count_ended(conn, account)?,
            };
            let page = page.clamp(1, pages(total));
            let first = (page - 1) * PER_PAGE;
            let keys = match found {
                Some(ids) => {
                    let rest = &ids[first as usize..];
                    let of_page = &rest[..rest.len().min(PER_PAGE as usize)];
                    store::in_order(conn, account, of_page)?
                }
                None => store::list(conn, account, view.which, PER_PAGE, first)?,
            };
            let ids: Vec<i64> = keys.iter().map(|key| key.id).collect();
            Ok::<_, Error>(KeyList {
                emails: Emails::read(conn, account, &ids)?,
                keys,
                account_status: status,
                view,
                domains,
                total,
                page,
                is_out_of_band: false,
            })
        })
        .await
}

fn pages(total: i64) -> i64 {
    ((total + PER_PAGE - 1) / PER_PAGE).max(1)
}

/// The list after a change, to be sent beside another fragment.
async fn fresh_list(
    context: &Context,
    user: &User,
    shown: Shown,
    domains: Option<Vec<Domain>>,
) -> Result<KeyList, Error> {
    let user_id = user.id;
    let user = context
        .db
        .read(move |conn| find_user(conn, user_id))
        .await?
        .ok_or(Error::SignInNeeded)?;
    let mut list = key_list(context, &user, shown.view, shown.page, domains).await?;
    list.is_out_of_band = true;
    Ok(list)
}

/// What the browser displays while htmx requests something else.
struct Shown {
    view: View,
    page: i64,
}

impl Shown {
    /// The view in which a new key comes first.
    fn newest() -> Self {
        Self {
            view: View::of(Which::Live),
            page: 1,
        }
    }
}

/// The list that the browser displays, for an htmx request; `None` if it displays something else.
fn shown_list(request: &HttpRequest) -> Option<Shown> {
    if !page::is_htmx(request) {
        return None;
    }
    let path = page::came_from(request).unwrap_or("/api-keys".to_owned());
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    let (view, page) = View::parse(query);
    (path == "/api-keys").then_some(Shown { view, page })
}

/// Finds a key and whether it is live.
async fn find(context: &Context, user: &User, id: i64) -> Result<Found, Error> {
    let account = user.account;
    Ok(context
        .db
        .read(move |conn| store::find(conn, account, id))
        .await?)
}

/// One key, with its end if it has ended.
async fn find_key(context: &Context, user: &User, id: i64) -> Result<Key, Error> {
    match find(context, user, id).await? {
        Found::Live(key) | Found::Ended(key) => Ok(key),
        Found::Nothing => Err(Error::NotFound),
    }
}

/// One key, if it has not ended.
async fn find_live(context: &Context, user: &User, id: i64) -> Result<Option<Key>, Error> {
    live(find(context, user, id).await?)
}

/// `None`: the key has ended.
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

/// Where to go when a key turns out to have ended: its page explains how.
fn to_ended(request: &HttpRequest, id: i64) -> HttpResponse {
    page::redirect(request, &format!("{}?notice=ended", path_of(id)))
}
