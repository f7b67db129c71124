//! The account's activity: a page and a download.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION};
use actix_web::web::{self, Bytes};
use askama::Template;
use chrono::{Datelike, NaiveDate};
use futures_util::stream;
use serde::Deserialize;

use crate::accounts::csv;
use crate::accounts::downloads::{BUSY_SECONDS, DownloadTurn, Downloads};
use crate::accounts::event::{Filter, Kind};
use crate::accounts::session::SignedIn;
use crate::accounts::store::events::{self, Event};
use crate::accounts::store::{AccountId, User};
use crate::clock;
use crate::db::Db;
use crate::http::choice::Choice;
use crate::http::{Context, Error, page};

const PER_PAGE: usize = 50;
/// About how much of a download is read at a time; the next part is read once the browser has taken
/// this one. Events from older versions may be long, so the first few determine how many make up
/// this size.
const PER_READ: usize = 256 * 1024;
const FIRST_LINES: usize = 20;
const MOST_LINES: usize = 500;
/// How much is passed on at a time. The connection keeps it in memory until it is sent.
const PER_PIECE: usize = 32 * 1024;
/// An actor's name has at most 254 characters: a longer search text cannot be part of any.
const LONGEST_WHO: usize = 255;

impl From<::csv::Error> for Error {
    fn from(error: ::csv::Error) -> Self {
        Self::Internal(error.to_string())
    }
}

/// Invalid filter values are ignored.
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
            actor: self
                .who
                .trim()
                .replace(char::is_control, "")
                .chars()
                .take(LONGEST_WHO)
                .collect(),
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

    /// The kinds of events to filter by.
    fn kinds(&self) -> Vec<Choice> {
        let all = Choice::new("", "All", false);
        let kinds = Kind::ALL.into_iter().map(|kind| {
            let is_chosen = self.filter.kind == Some(kind);
            Choice::new(kind.as_str(), kind.label(), is_chosen)
        });
        std::iter::once(all).chain(kinds).collect()
    }

    /// The address that lists all events of the key that an event concerns.
    fn subject_path(&self, event: &Event) -> Option<String> {
        let id = event.key_id()?;
        Some(format!("/activity?key={id}"))
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
    context: web::Data<Context>,
    SignedIn(user): SignedIn,
    query: web::Query<Query>,
) -> Result<HttpResponse, Error> {
    let (filter, before) = (query.filter(), query.before.parse().ok());
    let mut events = read(&context.db, user.account, &filter, before, PER_PAGE + 1).await?;
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

/// `GET /activity.csv`: all events that match the filters.
pub async fn csv(
    context: web::Data<Context>,
    downloads: web::Data<Downloads>,
    SignedIn(user): SignedIn,
    query: web::Query<Query>,
) -> Result<HttpResponse, Error> {
    let turn = downloads.begin(user.account.0).ok_or(Error::TooMany {
        retry_after_seconds: BUSY_SECONDS,
    })?;
    let mut download = Download {
        db: context.db.clone(),
        account: user.account,
        filter: query.filter(),
        lines: Bytes::from(csv::header()?),
        next: None,
        is_read: false,
        at_a_time: FIRST_LINES,
        _turn: turn,
    };
    // Before the answer starts: a failure here can still be reported as an error.
    download.read().await?;
    let pieces = stream::try_unfold(download, |mut download| async move {
        let piece = download.piece().await?;
        Ok::<_, Error>(piece.map(|piece| (piece, download)))
    });
    let name = format!("activity-{}.csv", clock::now().date());
    Ok(HttpResponse::Ok()
        .content_type("text/csv; charset=utf-8")
        .insert_header((
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ))
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(pieces))
}

/// The rest of a download.
struct Download {
    db: Db,
    account: AccountId,
    filter: Filter,
    /// Read, but not yet passed on.
    lines: Bytes,
    /// The last event that was read.
    next: Option<i64>,
    is_read: bool,
    /// How many events to read next.
    at_a_time: usize,
    _turn: DownloadTurn,
}

impl Download {
    async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        if self.lines.is_empty() && !self.is_read {
            self.read().await?;
        }
        let length = self.lines.len().min(PER_PIECE);
        Ok((length > 0).then(|| self.lines.split_to(length)))
    }

    async fn read(&mut self) -> Result<(), Error> {
        let wanted = self.at_a_time;
        let events = read(&self.db, self.account, &self.filter, self.next, wanted).await?;
        self.is_read = events.len() < wanted;
        self.next = events.last().map(|last| last.id);
        let mut lines = self.lines.to_vec();
        lines.extend(csv::lines(&events)?);
        let each = lines.len() / wanted + 1;
        self.at_a_time = (PER_READ / each).clamp(1, MOST_LINES);
        self.lines = lines.into();
        Ok(())
    }
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
