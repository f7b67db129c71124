//! Leads from keys that a person pastes, possibly leaked ones, to their rows.

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use askama::Template;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::super::find::{FoundBy, FoundKeys, MOST_KEYS, Other, identify};
use super::shown_key::ShownKey;
use crate::accounts::session::SignedIn;
use crate::accounts::store::User;
use crate::http::{Context, Error, page};

#[derive(Template)]
#[template(path = "keys/find.html", blocks = ["find"])]
struct FindPage {
    user: User,
    is_fragment: bool,
    /// The findings, if a text was submitted. Never the pasted text.
    found: Option<FoundKeys>,
}

/// `GET /api-keys/find`
pub async fn find_form(
    request: HttpRequest,
    SignedIn(user): SignedIn,
) -> Result<HttpResponse, Error> {
    FindPage::new(&request, user, None).answer(HttpResponse::Ok())
}

impl FindPage {
    fn new(request: &HttpRequest, user: User, mut found: Option<FoundKeys>) -> Self {
        if let Some(found) = &mut found {
            found.sort(user.account_status);
        }
        Self {
            user,
            is_fragment: page::is_htmx(request),
            found,
        }
    }

    fn answer(&self, answer: HttpResponseBuilder) -> Result<HttpResponse, Error> {
        match self.is_fragment {
            true => page::answer(answer, &self.as_find()),
            false => page::answer(answer, self),
        }
    }

    /// Whether nothing was found, so that the field should be filled in again.
    fn is_in_vain(&self) -> bool {
        self.found
            .as_ref()
            .is_some_and(|found| found.keys.is_empty())
    }
}

/// A key that was found.
struct ShownFinding<'a> {
    shown: ShownKey<'a>,
    /// Whether other keys have the same truncated form.
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
            number => format!("{number} of your keys, working ones first"),
        }
    }

    /// Everything else in the text that looks like a key, and a note if the text was not read to
    /// its end.
    fn others(&self) -> Vec<String> {
        let Some(found) = &self.found else {
            return Vec::new();
        };
        let others = found.others.iter().map(Other::sentence);
        others.chain(found.cut()).collect()
    }

    /// The problem with the text, if no key was found.
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

/// `POST /api-keys/find`: answers in place, so that a key never appears in an address.
pub async fn find_pasted(
    context: web::Data<Context>,
    request: HttpRequest,
    SignedIn(user): SignedIn,
    web::Form(form): web::Form<FindForm>,
) -> Result<HttpResponse, Error> {
    let account = user.account;
    let found = context
        .db
        .read(move |conn| identify(conn, account, form.pasted.expose_secret()))
        .await?;
    let page = FindPage::new(&request, user, Some(found));
    page.answer(match page.is_in_vain() {
        true => HttpResponse::UnprocessableEntity(),
        false => HttpResponse::Ok(),
    })
}
