//! From a key that somebody has in hand, maybe a leaked one, to its row.

use actix_web::{HttpResponse, web};
use askama::Template;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::super::find::{Identified, identify};
use crate::accounts::session::SignedIn;
use crate::accounts::store::{AccountStatus, User};
use crate::app::State;
use crate::http::{Error, page};

#[derive(Template)]
#[template(path = "keys/find.html")]
struct FindPage {
    account_status: AccountStatus,
    user: User,
    /// What was found, if something was asked. Never what was pasted.
    found: Option<Identified>,
}

/// `GET /api-keys/find`
pub async fn find_form(SignedIn(user): SignedIn) -> Result<HttpResponse, Error> {
    page::html(&FindPage::new(user, None))
}

impl FindPage {
    fn new(user: User, found: Option<Identified>) -> Self {
        Self {
            account_status: user.account_status,
            user,
            found,
        }
    }
}

#[derive(Deserialize)]
pub struct FindForm {
    #[serde(default)]
    pasted: SecretString,
}

/// `POST /api-keys/find`: answers in place, so that no address ever holds a key.
pub async fn find_pasted(
    state: web::Data<State>,
    SignedIn(user): SignedIn,
    web::Form(form): web::Form<FindForm>,
) -> Result<HttpResponse, Error> {
    let account = user.account;
    let found = state
        .db
        .read(move |conn| identify(conn, account, form.pasted.expose_secret()))
        .await?;
    let is_found = !found.keys().is_empty();
    let page = FindPage::new(user, Some(found));
    match is_found {
        true => page::html(&page),
        false => page::unprocessable(&page),
    }
}
