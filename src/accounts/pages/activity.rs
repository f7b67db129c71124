//! What happened in the account: a page and a download.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION};
use actix_web::web::{self, Bytes};
use askama::Template;
use chrono::{Datelike, NaiveDate};
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;

use crate::accounts::csv;
use crate::accounts::event::{Filter, Kind};
use crate::accounts::session::SignedIn;
use crate::accounts::store::events::{self, Event};
use crate::accounts::store::{AccountId, User};
use crate::app::State;
use crate::clock;
use crate::db::Db;
use crate::http::{Error, page};

const PER_PAGE: usize = 50;
/// Lines of the download that are in memory at a time.
const PER_CHUNK: usize = 1_000;

impl From<::csv::Error> for Error {
    fn from(error: ::csv::Error) -> Self {
        Self::Internal(error.to_string())
    }
}

/// What a filter that makes no sense says is left out.
#[derive(Deserialize)]
pub struct Query {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    who: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    before: String,
}

impl Query {
    fn filter(&self) -> Filter {
        Filter {
            kind: Kind::ALL
                .into_iter()
                .find(|kind| kind.as_str() == self.kind),
            actor: self.who.trim().replace(char::is_control, ""),
            key_id: self.key.parse().ok(),
            from: parse_day(&self.from),
            to: parse_day(&self.to),
        }
    }
}

/// A day that both databases can compare.
fn parse_day(text: &str) -> Option<NaiveDate> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    (1..9999).contains(&day.year()).then_some(day)
}

#[derive(Template)]
#[template(path = "accounts/activity.html")]
struct ActivityPage {
    user: User,
    filter: Filter,
    events: Vec<Event>,
    /// Whether there are newer events than these.
    is_continued: bool,
    older: Option<String>,
}

impl ActivityPage {
    fn is_filtered(&self) -> bool {
        self.filter != Filter::default()
    }

    fn csv(&self) -> String {
        url("/activity.csv", &self.filter, None)
    }

    fn newest(&self) -> String {
        url("/activity", &self.filter, None)
    }

    /// All that happened to one key.
    fn of_key(&self, id: &i64) -> String {
        format!("/activity?key={id}")
    }

    fn of_all_keys(&self) -> String {
        let filter = Filter {
            key_id: None,
            ..self.filter.clone()
        };
        url("/activity", &filter, None)
    }
}

/// `GET /activity`
pub async fn index(
    state: web::Data<State>,
    SignedIn(user): SignedIn,
    query: web::Query<Query>,
) -> Result<HttpResponse, Error> {
    let (filter, before) = (query.filter(), query.before.parse().ok());
    let mut events = read(&state.db, user.account, &filter, before, PER_PAGE + 1).await?;
    let has_older = events.len() > PER_PAGE;
    events.truncate(PER_PAGE);
    let last = events.last().filter(|_| has_older);
    let older = last.map(|last| url("/activity", &filter, Some(last.id)));
    page::html(&ActivityPage {
        user,
        filter,
        events,
        is_continued: before.is_some(),
        older,
    })
}

/// `GET /activity.csv`: all that the filters let through.
pub async fn csv(
    state: web::Data<State>,
    SignedIn(user): SignedIn,
    query: web::Query<Query>,
) -> Result<HttpResponse, Error> {
    let (filter, account) = (query.filter(), user.account);
    // Before the answer begins: this much can still be told as an error.
    let first = read(&state.db, account, &filter, None, PER_CHUNK).await?;
    let header = stream::iter([csv::header().map(Bytes::from).map_err(Error::from)]);
    let chunks = stream::try_unfold(Some(first), move |events| {
        let (db, filter) = (state.db.clone(), filter.clone());
        async move {
            let Some(events) = events else {
                return Ok(None);
            };
            let next = match events.get(PER_CHUNK - 1) {
                Some(last) => Some(read(&db, account, &filter, Some(last.id), PER_CHUNK).await?),
                None => None,
            };
            Ok::<_, Error>(Some((Bytes::from(csv::lines(&events)?), next)))
        }
    });
    let name = format!("activity-{}.csv", clock::now().date());
    Ok(HttpResponse::Ok()
        .content_type("text/csv; charset=utf-8")
        .insert_header((
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ))
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(header.chain(chunks)))
}

async fn read(
    db: &Db,
    account: AccountId,
    filter: &Filter,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<Event>, Error> {
    let filter = filter.clone();
    Ok(db
        .read(move |conn| events::list(conn, account, &filter, before, limit as i64))
        .await?)
}

fn url(path: &str, filter: &Filter, before: Option<i64>) -> String {
    let day = |day: Option<NaiveDate>| day.map(|day| day.to_string());
    let id = |id: Option<i64>| id.map(|id| id.to_string());
    let query = [
        ("kind", filter.kind.map(|kind| kind.as_str().to_owned())),
        (
            "who",
            (!filter.actor.is_empty()).then(|| filter.actor.clone()),
        ),
        ("key", id(filter.key_id)),
        ("from", day(filter.from)),
        ("to", day(filter.to)),
        ("before", id(before)),
    ];
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(
        query
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    match text.finish() {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}
