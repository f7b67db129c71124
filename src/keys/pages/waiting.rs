//! Whether new keys have been used, polled by the list that shows them.

use actix_web::{HttpResponse, web};
use askama::Template;
use serde::Deserialize;

use super::super::store::{self, Key};
use super::PER_PAGE;
use super::emails::{Emails, emails_of};
use super::shown_key::UseCell;
use crate::accounts::session::SignedIn;
use crate::http::{Context, Error, page};

#[derive(Deserialize)]
pub struct Asked {
    /// The ids of the keys that the list waits for, separated by commas.
    #[serde(default)]
    ids: String,
}

/// The cells of the keys that are no longer waited for, with the message and the counts beside
/// them.
#[derive(Template)]
#[template(path = "keys/_uses.html")]
struct UsesFragment {
    cells: Vec<UseCell>,
    emails: Emails,
    /// The message for screen readers.
    said: Option<String>,
}

/// `GET /api-keys/first-uses`: one request for the whole list. It does not extend the session,
/// because the person may have left.
pub async fn first_uses(
    context: web::Data<Context>,
    user: Option<SignedIn>,
    asked: web::Query<Asked>,
) -> Result<HttpResponse, Error> {
    let Some(SignedIn(user)) = user else {
        // The list stops polling.
        return Ok(HttpResponse::NoContent().finish());
    };
    let ids = asked.ids.split(',').filter_map(|id| id.parse().ok());
    let ids: Vec<i64> = ids.take(PER_PAGE as usize).collect();
    let account = user.account;
    let mut keys = context
        .db
        .read(move |conn| store::in_order(conn, account, &ids))
        .await?;
    keys.retain(|key| !key.awaits_first_use());
    // Most polls find nothing new.
    if keys.is_empty() {
        return Ok(HttpResponse::Ok().finish());
    }
    let emails = emails_of(&context, &user, keys.iter().map(|key| key.id).collect()).await?;
    let used: Vec<&Key> = keys.iter().filter(|key| key.last_use.is_some()).collect();
    let said = match &used[..] {
        [] => None,
        [key] => Some(format!(
            "The key “{}” was used for the first time.",
            key.name
        )),
        keys => Some(format!("{} keys were used for the first time.", keys.len())),
    };
    let cells = keys.iter().map(|key| UseCell::new(key, &emails));
    page::html(&UsesFragment {
        cells: cells.collect(),
        emails,
        said,
    })
}
