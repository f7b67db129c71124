//! Whether new keys were used, asked by the list that shows them, again and again.

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
    /// Of the keys that the list waits for, with commas between.
    #[serde(default)]
    ids: String,
}

/// The cells of those that are waited for no more, and what is said and counted beside them.
#[derive(Template)]
#[template(path = "keys/_uses.html")]
struct UsesFragment {
    cells: Vec<UseCell>,
    emails: Emails,
    /// What is read aloud.
    said: Option<String>,
}

/// `GET /api-keys/first-uses`: one question for the whole list. Does not keep the session alive:
/// nobody may be there any more.
pub async fn first_uses(
    context: web::Data<Context>,
    user: Option<SignedIn>,
    asked: web::Query<Asked>,
) -> Result<HttpResponse, Error> {
    let Some(SignedIn(user)) = user else {
        // The list asks no more.
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
    // Asked again and again while there is nothing to tell.
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
