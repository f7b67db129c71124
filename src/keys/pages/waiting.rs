//! Whether a new key was used, asked by the list that shows it, again and again.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, HttpResponseBuilder, web};
use askama::Template;

use super::super::store::{Found, Key};
use super::{find, sent};
use crate::accounts::session::SignedIn;
use crate::app::State;
use crate::http::{Error, page};

/// The cell of a key's last use.
#[derive(Template)]
#[template(path = "keys/_use.html")]
struct UseFragment {
    key: Key,
    /// How many emails it had, as people read it.
    sent: String,
    /// What is read aloud.
    said: Option<String>,
}

/// `GET /api-keys/{id}/first-use`. Does not keep the session alive: nobody may be there any more.
pub async fn first_use(
    state: web::Data<State>,
    user: Option<SignedIn>,
    id: web::Path<i64>,
) -> Result<HttpResponse, Error> {
    let Some(SignedIn(user)) = user else {
        return Ok(stop_asking());
    };
    let Found::Live(key) = find(&state, &user, *id).await? else {
        return Ok(stop_asking());
    };
    let said = match key.last_use {
        Some(_) => Some(format!(
            "The key “{}” was used for the first time.",
            key.name
        )),
        None => None,
    };
    // Asked again and again while there are none.
    let sent = match key.last_use {
        Some(_) => sent(&state, &user, key.id).await?,
        None => String::new(),
    };
    page::html(&UseFragment { key, sent, said })
}

/// htmx ends asking by this status of its own.
fn stop_asking() -> HttpResponse {
    let stop = StatusCode::from_u16(286).expect("a status");
    HttpResponseBuilder::new(stop)
        .insert_header(("HX-Reswap", "none"))
        .finish()
}
