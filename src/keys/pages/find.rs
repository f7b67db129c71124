//! From keys that somebody has in hand, maybe leaked ones, to their rows.

use actix_web::{HttpResponse, web};
use askama::Template;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::super::find::{Findings, FoundBy, MOST_KEYS, Other, identify};
use super::shown_key::ShownKey;
use crate::accounts::session::SignedIn;
use crate::accounts::store::User;
use crate::http::{Context, Error, page};

#[derive(Template)]
#[template(path = "keys/find.html")]
struct FindPage {
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
        Self { user, found }
    }

    /// Whether nothing was found, so that the field is to be filled in again.
    fn is_in_vain(&self) -> bool {
        self.found
            .as_ref()
            .is_some_and(|found| found.keys.is_empty())
    }
}

/// A key that was found.
struct ShownFinding<'a> {
    shown: ShownKey<'a>,
    /// Other keys have the same truncated form.
    is_one_of_several: bool,
}

impl FindPage {
    fn found(&self) -> Vec<ShownFinding<'_>> {
        let found = self.found.iter().flat_map(|found| &found.keys);
        found
            .map(|found| ShownFinding {
                shown: ShownKey::new(&found.key, &self.user.account_status),
                is_one_of_several: found.by == FoundBy::SharedForm,
            })
            .collect()
    }

    fn found_title(&self) -> String {
        match self.found().len() {
            1 => "This is your key".to_owned(),
            number => format!("{number} of your keys, those that work first"),
        }
    }

    /// What else looks like a key in the text, and whether all of the text was read.
    fn others(&self) -> Vec<String> {
        let Some(found) = &self.found else {
            return Vec::new();
        };
        let others = found.others.iter().map(Other::sentence);
        others.chain(found.cut()).collect()
    }

    /// What is wrong with the text, if no key was found.
    fn errors(&self) -> Vec<String> {
        match self.is_in_vain() {
            true => self.others(),
            false => Vec::new(),
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
