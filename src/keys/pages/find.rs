//! From keys that somebody has in hand, maybe leaked ones, to their rows.

use actix_web::{HttpResponse, web};
use askama::Template;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::super::find::{Findings, FoundBy, MOST_KEYS, identify};
use crate::accounts::session::SignedIn;
use crate::accounts::store::{AccountStatus, User};
use crate::http::{Context, Error, page};

#[derive(Template)]
#[template(path = "keys/find.html")]
struct FindPage {
    account_status: AccountStatus,
    user: User,
    /// What was found, if something was asked. Never what was pasted.
    found: Option<Findings>,
}

/// `GET /api-keys/find`
pub async fn find_form(SignedIn(user): SignedIn) -> Result<HttpResponse, Error> {
    page::html(&FindPage::new(user, None))
}

impl FindPage {
    fn new(user: User, mut found: Option<Findings>) -> Self {
        if let Some(found) = &mut found {
            found.sort(user.account_status);
        }
        Self {
            account_status: user.account_status,
            user,
            found,
        }
    }

    /// Whether nothing was found, so that the field is to be filled in again.
    fn is_in_vain(&self) -> bool {
        self.found
            .as_ref()
            .is_some_and(|found| found.keys.is_empty())
    }
}

#[derive(Deserialize)]
pub struct FindForm {
    #[serde(default)]
    pasted: SecretString,
}

/// `POST /api-keys/find`: answers in place, so that no address ever holds a key.
pub async fn find_pasted(
    context: web::Data<Context>,
    SignedIn(user): SignedIn,
    web::Form(form): web::Form<FindForm>,
) -> Result<HttpResponse, Error> {
    let account = user.account;
    let found = context
        .db
        .read(move |conn| identify(conn, account, form.pasted.expose_secret()))
        .await?;
    let page = FindPage::new(user, Some(found));
    match page.is_in_vain() {
        true => page::unprocessable(&page),
        false => page::html(&page),
    }
}
