//! The path from an empty account to its first accepted email, for the list of keys.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use serde::Deserialize;

use super::snippets::Sample;
use crate::accounts::session::SignedIn;
use crate::accounts::store::User;
use crate::domains::store::{self as domains_store, Domain};
use crate::http::{Context, Error, page};
use crate::keys::usage::store as usage_store;

/// How often the page asks: about an hour in all.
const MOST_ROUNDS: u32 = 120;

pub struct Start {
    /// The domain that the steps are about: a verified one if there is one.
    pub domain: Option<Domain>,
    has_key: bool,
    /// Whether a request with a key of the account was ever accepted.
    has_sent: bool,
    /// The command that sends an email; the key is in the environment.
    pub command: String,
    pub round: u32,
}

impl Start {
    /// `domains`: the account's.
    pub async fn find(
        context: &Context,
        request: &HttpRequest,
        user: &User,
        domains: &[Domain],
    ) -> Result<Self, Error> {
        let account = user.account;
        let domain = domains.iter().max_by_key(|d| d.status.is_verified());
        let has_key = user.key_count > 0;
        let has_sent = has_key
            && context
                .db
                .read(move |conn| usage_store::has_accepted_calls(conn, account))
                .await?;
        let sender = domain.map_or("your-domain.example", |domain| &domain.name);
        let sample = Sample {
            origin: &page::origin(request, &context.config),
            sender: &format!("hello@{sender}"),
            recipient: &user.email,
        };
        Ok(Self {
            command: sample.curl_from_environment(),
            domain: domain.cloned(),
            has_key,
            has_sent,
            round: 0,
        })
    }

    fn is_verified(&self) -> bool {
        let domain = self.domain.as_ref();
        domain.is_some_and(|domain| domain.status.is_verified())
    }

    /// Whether each step is done, in their order.
    fn done(&self) -> [bool; 4] {
        let has_domain = self.domain.is_some();
        [has_domain, self.is_verified(), self.has_key, self.has_sent]
    }

    pub fn is_done(&self) -> bool {
        self.done().iter().all(|is_done| *is_done)
    }

    /// The style of a step: `done`, `now` for the first that is not, or `later`.
    pub fn state(&self, step: usize) -> &'static str {
        let done = self.done();
        match done.iter().position(|is_done| !is_done) {
            _ if done[step] => "done",
            Some(next) if next == step => "now",
            _ => "later",
        }
    }

    /// What the page displays, to recognize a change.
    pub fn spelled(&self) -> String {
        self.done()
            .map(|is_done| if is_done { '1' } else { '0' })
            .iter()
            .collect()
    }

    /// Whether the page asks for changes.
    pub fn is_watched(&self) -> bool {
        !self.is_done() && self.round < MOST_ROUNDS
    }

    /// The time until the next poll, in seconds.
    pub fn pause(&self) -> u32 {
        (4 + self.round / 4).min(60)
    }
}

#[derive(Template)]
#[template(path = "keys/_start.html", blocks = ["watch"])]
struct StartFragment {
    start: Start,
}

#[derive(Deserialize)]
pub struct Asked {
    /// What the page currently shows.
    #[serde(default)]
    shown: String,
    #[serde(default)]
    round: u32,
}

/// `GET /api-keys/start`: the steps, if one of them was done since. It does not extend the session,
/// because the person may have left.
pub async fn start(
    context: web::Data<Context>,
    request: HttpRequest,
    user: Option<SignedIn>,
    asked: web::Query<Asked>,
) -> Result<HttpResponse, Error> {
    let Some(SignedIn(user)) = user else {
        return Ok(page::stop_polling());
    };
    let account = user.account;
    let domains = context
        .db
        .read(move |conn| domains_store::list(conn, account))
        .await?;
    let mut start = Start::find(&context, &request, &user, &domains).await?;
    start.round = asked.round.saturating_add(1);
    let is_news = start.spelled() != asked.shown;
    let fragment = StartFragment { start };
    if !is_news {
        return page::html(&fragment.as_watch());
    }
    let mut answer = page::html(&fragment)?;
    page::retarget(&mut answer, "#start");
    Ok(answer)
}
