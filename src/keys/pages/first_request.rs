//! The first request with a new key, shown while the key itself is still shown.

use actix_web::{HttpResponse, web};
use askama::Template;
use serde::Deserialize;

use super::super::store::{Key, LastUse};
use super::{find_key, path_of};
use crate::accounts::session::SignedIn;
use crate::http::{Context, Error, page};
use crate::keys::usage::history::History;
use crate::keys::usage::outcome::Outcome;
use crate::keys::usage::store as usage_store;

/// How often the page asks: about an hour in all.
const MOST_ROUNDS: u32 = 240;

pub enum FirstRequest {
    None,
    Refused {
        why: Outcome,
        /// What to do about it.
        help: &'static str,
        client: LastUse,
    },
    Accepted {
        client: LastUse,
    },
}

impl FirstRequest {
    fn of(key: &Key, history: &History) -> Self {
        let is_accepted = history.days.iter().any(|day| day.accepted > 0);
        let latest = history
            .refusals
            .iter()
            .max_by_key(|refused| (refused.last_hour, refused.calls));
        match (key.last_use.clone(), latest) {
            (Some(client), _) if is_accepted => Self::Accepted { client },
            (Some(client), Some(refused)) => Self::Refused {
                why: refused.why,
                help: remedy(refused.why),
                client,
            },
            // Outcomes are counted a few seconds after the use.
            _ => Self::None,
        }
    }

    /// What the page displays, to recognize a change.
    fn spelled(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Refused { why, client, .. } => {
                format!("{}-{}", why.as_str(), client.at.and_utc().timestamp())
            }
            Self::Accepted { .. } => "accepted".to_owned(),
        }
    }
}

/// What to do about a refused request.
fn remedy(why: Outcome) -> &'static str {
    match why {
        Outcome::DomainNotFound => "Add the domain to your domains, or send from another one.",
        Outcome::DomainNotVerified => "Verify the domain first: its page shows the DNS record.",
        Outcome::DomainNotAllowed => "Send from a domain of this key, or edit the key.",
        Outcome::AddressNotAllowed | Outcome::RecipientNotAllowed => {
            "Use another address, or edit the key."
        }
        Outcome::InvalidRequest => {
            "A field is missing or wrong, such as “from”. The answer to the request names it."
        }
        _ => "",
    }
}

/// Polled by the page that shows the key.
pub struct Watch {
    pub path: String,
    pub shown: String,
    pub round: u32,
}

impl Watch {
    /// For a key that has just been created.
    pub fn new(key: &Key) -> Self {
        Self {
            path: format!("{}/first-request", path_of(key.id)),
            shown: FirstRequest::None.spelled(),
            round: 0,
        }
    }

    /// The time until the next poll, in seconds.
    pub fn pause(&self) -> u32 {
        (2 + self.round / 15).min(30)
    }
}

#[derive(Template)]
#[template(path = "keys/_first_request_news.html")]
struct NewsFragment {
    /// Omitted when nothing more is awaited.
    watch: Option<Watch>,
    /// Omitted while nothing has changed.
    first: Option<FirstRequest>,
}

#[derive(Deserialize)]
pub struct Asked {
    /// What the page currently shows.
    #[serde(default)]
    shown: String,
    #[serde(default)]
    round: u32,
}

/// `GET /api-keys/{id}/first-request`: what came of the key's first request, if that is news. It
/// does not extend the session, because the person may have left.
pub async fn first_request(
    context: web::Data<Context>,
    user: Option<SignedIn>,
    id: web::Path<i64>,
    asked: web::Query<Asked>,
) -> Result<HttpResponse, Error> {
    let Some(SignedIn(user)) = user else {
        return Ok(page::stop_polling());
    };
    let (account, id) = (user.account, *id);
    let key = match find_key(&context, &user, id).await {
        Err(Error::NotFound) => return Ok(page::stop_polling()),
        key => key?,
    };
    let history = context
        .db
        .read(move |conn| usage_store::history(conn, account, id))
        .await?;
    let first = FirstRequest::of(&key, &history);
    let shown = first.spelled();
    let is_over = matches!(first, FirstRequest::Accepted { .. }) || asked.round >= MOST_ROUNDS;
    let watch = Watch {
        shown: shown.clone(),
        round: asked.round.saturating_add(1),
        ..Watch::new(&key)
    };
    page::html(&NewsFragment {
        watch: (!is_over).then_some(watch),
        first: (shown != asked.shown).then_some(first),
    })
}
